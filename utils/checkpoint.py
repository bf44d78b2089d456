"""Checkpoints: the original's four entries, and what going on exactly needs.

``arch``, ``epoch``, ``state_dict`` (names with ``module.``) and ``monitor_best`` have the original's meaning, so
each side reads the other's files. ``classes`` and ``colours`` (so that a checkpoint predicts by itself) and ``resume``
are ours alone.
"""

import hashlib
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.errors import NotFiniteError, UsageError
from utils.files import write_atomically

PREFIX = "module."
# The original stores its best score as a NumPy float64; nothing else than tensors and plain values is let in.
_NUMPY_SCALARS = [np.dtype, np.float64, np.dtypes.Float64DType, np.core.multiarray.scalar] if not hasattr(
    np, "_core"
) else [np.dtype, np.float64, np.dtypes.Float64DType, np._core.multiarray.scalar,
        (np._core.multiarray.scalar, "numpy.core.multiarray.scalar")]  # fmt: skip


def save_checkpoint(
    path: Path,
    network: nn.Module,
    *,
    epoch: int,
    best: float | None,
    classes: tuple[str, ...],
    colours: np.ndarray,
    resume: dict | None = None,
    keep: Path | None = None,
) -> None:
    """Write a checkpoint of ``network`` (unwrapped) atomically; with ``keep``, the one before under that name.

    ``colours`` are the classes' RGB, uint8 (C, 3). No best yet is written as -inf, as the original does.

    Raises
    ------
    NotFiniteError
        Weights are not finite. What is there stays there.
    """
    state_dict = network.state_dict()
    finite = {name: value.isfinite().all() for name, value in state_dict.items()}
    if not torch.stack(list(finite.values())).all():
        name = next(name for name, all_finite in finite.items() if not all_finite)
        raise NotFiniteError(
            f"{path}: is not written, since {name} is not finite: the training has diverged. The checkpoints of before "
            "are still there. Train with a lower optimizer.args.lr."
        )
    contents: dict[str, Any] = {
        "arch": "DistributedDataParallel",
        "epoch": epoch,
        "state_dict": {PREFIX + name: value for name, value in state_dict.items()},
        "monitor_best": -math.inf if best is None else best,
        "classes": list(classes),
        "colours": colours.tolist(),
    }
    if resume is not None:
        contents["resume"] = resume
    write_atomically(path, lambda file: torch.save(contents, file), keep=keep)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, ours or the original's; nothing in it can run code.

    ``state_dict`` comes without the ``module.`` prefix and on the CPU.
    """
    if not path.is_file():
        raise UsageError(f"--resume {path}: there is no such checkpoint. Run the stage that writes it first.")
    try:
        _check_sums(path)
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            contents = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on a damaged file the unpickler may stumble over anything
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UsageError(f"{path}: is no checkpoint that can be read safely ({reason}).") from None
    state_dict = contents.get("state_dict") if isinstance(contents, dict) else None
    if not isinstance(state_dict, dict) or not all(isinstance(value, Tensor) for value in state_dict.values()):
        raise UsageError(f"{path}: holds no state_dict; it is not a checkpoint of this project or of the original.")
    contents["state_dict"] = {name.removeprefix(PREFIX): value for name, value in state_dict.items()}
    return contents


def _check_sums(path: Path) -> None:
    """Hold every record of the file against its CRC-32, which PyTorch writes but does not look at."""
    if not zipfile.is_zipfile(path):
        return  # files of PyTorch before 1.6 have no sums
    with zipfile.ZipFile(path) as archive:
        if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
            raise ValueError("its records are compressed, as PyTorch never writes them")
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged} in it is damaged")


def load_weights(network: nn.Module, state_dict: dict[str, Tensor], path: Path) -> None:
    """Load weights, all or none.

    Raises
    ------
    UsageError
        Names or shapes differ; the message lists which. Or a weight is of a type that is none, or not finite.
    """
    expected = network.state_dict()
    lines = [f"missing: {name}" for name in expected if name not in state_dict]
    lines += [f"unexpected: {name}" for name in state_dict if name not in expected]
    lines += [
        f"{name}: shape {tuple(state_dict[name].shape)} in the file, {tuple(value.shape)} in the network"
        for name, value in expected.items()
        if name in state_dict and state_dict[name].shape != value.shape
    ]
    if lines:
        shown = "\n  ".join(lines[:12] + ([f"… and {len(lines) - 12} more"] if len(lines) > 12 else []))
        raise UsageError(
            f"{path}: these weights do not fit the configuration (its name, layers, out_dim, classes):\n  {shown}"
        )
    for name, value in expected.items():
        if reason := why_unusable(state_dict[name], value.dtype):
            raise UsageError(f"{path}: {name} {reason}; no network can run with it. Take another checkpoint.")
    network.load_state_dict(state_dict)


def why_unusable(value: Tensor, dtype: torch.dtype) -> str | None:
    """What keeps a tensor of a file from being a network's weight of type ``dtype``; None for nothing."""
    if value.is_complex() or value.is_floating_point() != dtype.is_floating_point:
        return f"is of type {str(value.dtype).removeprefix('torch.')} in place of {str(dtype).removeprefix('torch.')}"
    return None if value.to(dtype).isfinite().all() else "holds values that are not finite"


def fingerprint(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else hashlib.sha256(file.read()).hexdigest()
        )
