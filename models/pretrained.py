"""Anybody's weights of a trunk: read from a file, found by their names, put into both branches."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from models.segmentor import Segmentor
from utils.checkpoint import read_tensors, why_unusable
from utils.errors import UsageError, some
from utils.inputs import open_plain
from utils.logger import log
from utils.safetensors import is_safetensors, read_safetensors

SHOWN = 4  # differing entries that an error names before it only counts
# Of several networks in one file: averaged ones are what their authors evaluate, keys of contrastive training are not.
_FIRST = {"teacher", "ema", "model_ema", "state_dict_ema"}
_LAST = {"student", "encoder_k", "momentum_encoder", "target_encoder", "target_network"}


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a file of ``torch.save`` or safetensors, on the CPU; dictionaries in it give dotted names.

    Raises
    ------
    UsageError
        The file cannot be read, is damaged, or holds anything that could run code.
    """
    try:
        with open_plain(path) as file:
            start = file.read(9)
        contents = read_safetensors(path) if is_safetensors(start) else read_tensors(path)
    except OSError as error:
        raise UsageError(f"pretrained: {path}: cannot be read ({error.strerror}). Put the file there.") from None
    except ValueError as error:
        raise UsageError(f"pretrained: {path}: cannot be read as weights ({error}). Name another file.") from None
    return dict(_tensors(contents))


def load_trunk(network: Segmentor, weights: Mapping[str, Tensor], source: str) -> None:
    """Put a trunk's weights into ``network.encoder.backbone``, and the same into its copy for the subclasses.

    The trunk is found by its parameters' names behind any prefix (``module.encoder_q.``); what else the file has,
    such as a classifier, is left out. What was taken is logged. Nothing is changed where the weights do not fit.

    Parameters
    ----------
    source
        Where the weights are from, for messages.

    Raises
    ------
    UsageError
        Names or shapes differ from the trunk's, or several trunks are there of which none is to be preferred.
    """
    backbone = network.encoder.backbone
    part = backbone.named_as_in_files
    wanted = {name: value for name, value in part.state_dict().items() if "_aux." not in name}
    prefix = _prefix(weights, wanted, source)
    given = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    parts = {name.partition(".")[0] for name in wanted}
    taken = {name: value for name, value in given.items() if name in wanted}
    # Files from before PyTorch 0.4.1 have no such counters, and with a fixed momentum nothing reads them.
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in given if name not in backbone.all_names and name.partition(".")[0] in parts]
    shapes = [
        f"{name} {tuple(value.shape)} in place of {tuple(wanted[name].shape)}"
        for name, value in taken.items()
        if value.shape != wanted[name].shape
    ]
    unusable = [
        f"{name} {reason}" for name, value in taken.items() if (reason := why_unusable(value, wanted[name].dtype))
    ]
    differences = [
        f"{what}: {some(names, SHOWN)}"
        for what, names in (
            ("missing", missing),
            ("not in this network", unexpected),
            ("shape", shapes),
            ("no weights", unusable),
        )
        if names
    ]
    if differences:
        raise UsageError(
            f"{source}: the weights{_under(prefix)} do not fit this network's trunk; are they for another depth or "
            f"width? {'; '.join(differences)}"
        )
    part.load_state_dict(taken, strict=False)
    backbone.copy_to_subclass_layers()
    left_out = [name for name in weights if name.removeprefix(prefix) not in taken or not name.startswith(prefix)]
    log.info(
        f"{source}: {len(taken)} tensors{_under(prefix)} are the trunk's weights"
        + (f"; left out: {some(left_out, SHOWN)}" if left_out else "")
    )


def _tensors(values: Any, place: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in values.items() if isinstance(values, dict) else ():
        if isinstance(value, Tensor) and isinstance(name, str):
            yield place + name, value
        elif isinstance(value, dict):
            yield from _tensors(value, f"{place}{name}.")


def _prefix(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str) -> str:
    """What stands before the trunk's names: where most of them are, and of several such places the preferred one."""
    found: Counter[str] = Counter()
    for name in weights:
        at = 0
        while True:
            if name[at:] in wanted and not name.endswith("num_batches_tracked"):
                found[name[:at]] += 1
            at = name.find(".", at) + 1
            if not at:
                break
    if not found:
        raise UsageError(
            f"{source}: holds none of this network's trunk ({some(list(wanted), SHOWN)}). It holds "
            f"{some(list(weights), SHOWN) or 'no tensors'}."
        )
    most = max(found.values())
    ranked = sorted((_rank(prefix), prefix) for prefix, count in found.items() if count == most)
    best = [prefix for rank, prefix in ranked if rank == ranked[0][0]]
    for other in best[1:]:
        if any(
            (other + name in weights) != (best[0] + name in weights)
            or (other + name in weights and not weights[other + name].equal(weights[best[0] + name]))
            for name in wanted
        ):
            raise UsageError(
                f"{source}: holds several trunks: {some(best)}. Save the one that is meant to a file of its own."
            )
    return best[0]


def _rank(prefix: str) -> int:
    words = set(prefix.split("."))
    return 0 if words & _FIRST else 2 if words & _LAST else 1


def _under(prefix: str) -> str:
    return f" under {prefix}*" if prefix else ""
