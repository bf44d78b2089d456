"""torchvision's ImageNet weights: from a file or from its server."""

from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from torch import Tensor
from torchvision.models import ResNet50_Weights, ResNet101_Weights

from utils.checkpoint import is_state_dict, read_tensors
from utils.errors import UsageError

WEIGHTS = {50: ResNet50_Weights.IMAGENET1K_V1, 101: ResNet101_Weights.IMAGENET1K_V1}
# The names under which people have these weights; torchvision renamed the files later, and both are read.
FILES = {50: "resnet50-19c8e357.pth", 101: "resnet101-5d3b4d8f.pth"}
_PATIENCE = 5.0  # seconds in which a server has to answer


def are_to_be_had(layers: int, folder: str | Path) -> bool:
    """Whether ``imagenet_weights`` would find its file, or a server to fetch it from."""
    if _file(layers, Path(folder)) is not None:
        return True
    try:
        with urlopen(Request(WEIGHTS[layers].url, method="HEAD"), timeout=_PATIENCE):
            return True
    except (OSError, HTTPException):
        return False


def imagenet_weights(layers: int, folder: str | Path) -> dict[str, Tensor]:
    """torchvision's ImageNet weights (V1) of a ResNet of that depth: ``{name: value}``, on the CPU.

    Read from ``folder`` where they are, else fetched into it once, with the hash checked.

    Raises
    ------
    UsageError
        There are no such weights, or the file is neither there nor to be had, or cannot be read.
    """
    if layers not in WEIGHTS:
        raise UsageError(
            f'There are no ImageNet weights for a ResNet of {layers} layers: set "pretrained": false, '
            f"or layers to one of {sorted(WEIGHTS)}."
        )
    folder = Path(folder)
    weights = WEIGHTS[layers]
    if (path := _file(layers, folder)) is not None:
        return _read(path)
    try:
        return dict(weights.get_state_dict(model_dir=str(folder), map_location="cpu", check_hash=True))
    # OSError: no connection, or no right to write; HTTPException: cut off; RuntimeError: another hash.
    except (OSError, HTTPException, RuntimeError) as error:
        raise UsageError(
            f"{folder / FILES[layers]} is missing and fetching {weights.url} failed ({error}). "
            f'Put the file there, or set "pretrained": false to start from random weights.'
        ) from error


def _file(layers: int, folder: Path) -> Path | None:
    names = FILES[layers], Path(WEIGHTS[layers].url).name
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        weights = read_tensors(path)
        if not is_state_dict(weights):
            raise ValueError("it holds something else")
    except ValueError as error:
        raise UsageError(
            f"{path} cannot be read as weights ({error}): delete it, so that it is fetched anew."
        ) from None
    return weights
