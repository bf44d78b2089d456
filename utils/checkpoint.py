"""Checkpoints: the original's four entries, and what going on exactly needs.

``arch``, ``epoch``, ``state_dict`` (names with ``module.``) and ``monitor_best`` have the original's meaning, so
each side reads the other's files. ``classes``, ``colours``, ``value_range`` and ``trunk`` (so that a checkpoint
predicts by itself) and ``resume`` are ours alone.
"""

import math
import re
import warnings
import zipfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor, nn

from utils.config_sections import TRUNK
from utils.errors import NotFiniteError, UsageError
from utils.files import write_atomically
from utils.inputs import first_problem, plain_text

PREFIX = "module."
_COLOUR_CODES = re.compile(r"\x1b\[[0-9;]*m")
# The original stores its best score as a NumPy float64; nothing else than tensors and plain values is let in.
_scalar = (np._core if hasattr(np, "_core") else np.core).multiarray.scalar
_NUMPY_SCALARS = [np.dtype, np.float64, np.dtypes.Float64DType, _scalar, (_scalar, "numpy.core.multiarray.scalar")]


def save_checkpoint(
    path: Path,
    network: nn.Module,
    *,
    epoch: int,
    best: float | None,
    classes: tuple[str, ...],
    colours: np.ndarray,
    value_range: tuple[int, int] | None = None,
    trunk: str | None = None,
    resume: dict | None = None,
    keep: Path | None = None,
) -> None:
    """Write a checkpoint of ``network`` (unwrapped) atomically; with ``keep``, the one before under that name.

    ``colours`` are the classes' RGB, uint8 (C, 3), ``value_range`` the values of 16-bit images that were black and
    white, ``trunk`` the configuration's. ``best``, a share, is written in percent with two decimals and none yet as
    -inf, as the original does.

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
        "monitor_best": -math.inf if best is None else round(100 * best, 2),
        "classes": list(classes),
        "colours": colours.tolist(),
    }
    if value_range is not None:
        contents["value_range"] = list(value_range)
    if trunk is not None:
        contents["trunk"] = trunk
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
        contents = read_tensors(path)
        state_dict = contents.get("state_dict") if isinstance(contents, dict) else None
        if state_dict is None or not is_state_dict(state_dict):
            raise UsageError(f"{path}: holds no state_dict; it is not a checkpoint of this project or of the original.")
        _Others.model_validate({name: value for name, value in contents.items() if name in _Others.model_fields})
        return {**contents, "state_dict": _without_prefix(state_dict)}
    except ValidationError as error:
        raise UsageError(f"{path}: is no checkpoint that can be used ({first_problem(error)}).") from None
    except ValueError as error:
        raise UsageError(f"{path}: is no checkpoint that can be read safely ({error}).") from None


def read_tensors(path: Path) -> Any:
    """What ``torch.save`` has written of tensors and plain values; nothing in it can run code.

    Raises
    ------
    ValueError
        The file is damaged, or holds anything else.
    """
    try:
        _check_sums(path)
        with torch.serialization.safe_globals(_NUMPY_SCALARS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, on kinds of tensors that are refused below
            contents = torch.load(path, map_location="cpu", weights_only=True)
        _check_tensors(contents)
    except Exception as error:  # on a damaged file the unpickler may stumble over anything
        raise ValueError(_reason(error)) from None
    return contents


def is_state_dict(value: Any) -> bool:
    """Whether it is weights: tensors by name."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(weight, Tensor) for name, weight in value.items()
    )


Channel = Annotated[int, Field(ge=0, le=255)]


class _Others(BaseModel):
    """What stands beside the weights, as far as it is used here; ``resume`` is checked where a run goes on."""

    model_config = ConfigDict(strict=True)

    epoch: int | None = None
    monitor_best: float | None = None
    classes: list[Annotated[str, AfterValidator(plain_text)]] | None = Field(None, min_length=2, max_length=255)
    colours: list[Annotated[list[Channel], Field(min_length=3, max_length=3)]] | None = None
    value_range: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None
    trunk: str | None = Field(None, pattern=TRUNK)
    resume: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _colour_for_each_class(self) -> "_Others":
        if len(self.classes or ()) != len(self.colours or ()):
            raise ValueError("classes and colours are not of one number")
        return self


def _without_prefix(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    weights = {name.removeprefix(PREFIX): value for name, value in state_dict.items()}
    if len(weights) < len(state_dict):
        raise ValueError(f"it has weights of one name with and without {PREFIX}")
    empty = next((name for name, value in weights.items() if not value.numel()), None)
    if empty is not None:
        raise ValueError(f"{empty} is empty")
    return weights


def _check_tensors(value: Any, place: str = "") -> None:
    """Raise unless every tensor in ``value`` is a plain one, whose values are all there."""
    if isinstance(value, Tensor):
        kind = _foreign_kind(value)
        if kind is not None:
            raise ValueError(f"{place} is {kind}")
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check_tensors(inner, f"{place}.{name}" if place else f"{name}")
    elif isinstance(value, list | tuple | set):
        for number, inner in enumerate(value):
            _check_tensors(inner, f"{place}.{number}")


def _foreign_kind(tensor: Tensor) -> str | None:
    if type(tensor) not in (Tensor, nn.Parameter):
        return f"a tensor of the type {type(tensor).__name__}"
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.layout is not torch.strided:
        return "a sparse tensor"
    if tensor.is_quantized:
        return "a quantized tensor"
    if tensor.device.type != "cpu":
        return f"a tensor without values, on the device {tensor.device.type}"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"a tensor of {tensor.numel():,} values, of which the file does not hold all"
    return None


def _reason(error: Exception) -> str:
    """What a file could not be read for; a type that is not let in, in words."""
    text = _COLOUR_CODES.sub("", str(error)).strip()
    foreign = re.search(r"GLOBAL ([\w.]+)|but got <class '([\w.]+)'>", text)
    if foreign is None:
        return next(iter(text.split("WeightsUnpickler error:")[-1].strip().splitlines()), type(error).__name__)
    name = foreign[1] or foreign[2]
    what = f"an object of the type {name}"
    if name.startswith("numpy."):
        what = "a NumPy array" if name.endswith("._reconstruct") else "a NumPy number"
    return f"it holds {what}; only tensors, numbers, texts, lists and dictionaries are let in, which cannot run code"


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
        As of ``check_fit``. Or a weight is of a type that is none, or not finite.
    """
    check_fit(network, state_dict, path)
    for name, value in network.state_dict().items():
        if reason := why_unusable(state_dict[name], value.dtype):
            raise UsageError(f"{path}: {name} {reason}; no network can run with it. Take another checkpoint.")
    network.load_state_dict(state_dict)


def check_fit(network: nn.Module, state_dict: dict[str, Tensor], path: Path) -> None:
    """See whether weights are those of a network, which may be without values itself (on the device "meta").

    Raises
    ------
    UsageError
        Names or shapes differ; the message lists which.
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


def why_unusable(value: Tensor, dtype: torch.dtype) -> str | None:
    """What keeps a tensor of a file from being a network's weight of type ``dtype``; None for nothing."""
    if value.is_complex() or value.is_floating_point() != dtype.is_floating_point:
        return f"is of type {str(value.dtype).removeprefix('torch.')} in place of {str(dtype).removeprefix('torch.')}"
    return None if value.to(dtype).isfinite().all() else "holds values that are not finite"
