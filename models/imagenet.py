"""ImageNet weights: from a file or from torchvision's server, into the trunk of a network."""

from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path

from torch import Tensor
from torchvision.models import ResNet50_Weights, ResNet101_Weights

from models.segmentor import Segmentor
from utils.checkpoint import is_state_dict, read_tensors, why_unusable
from utils.errors import UsageError, some

WEIGHTS = {50: ResNet50_Weights.IMAGENET1K_V1, 101: ResNet101_Weights.IMAGENET1K_V1}
# The names under which people have these weights; torchvision renamed the files later, and both are read.
FILES = {50: "resnet50-19c8e357.pth", 101: "resnet101-5d3b4d8f.pth"}
SHOWN = 4  # differing entries that an error names before it only counts


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
    for path in (folder / FILES[layers], folder / Path(weights.url).name):
        if path.is_file():
            return _read(path)
    try:
        return dict(weights.get_state_dict(model_dir=str(folder), map_location="cpu", check_hash=True))
    # OSError: no connection, or no right to write; HTTPException: cut off; RuntimeError: another hash.
    except (OSError, HTTPException, RuntimeError) as error:
        raise UsageError(
            f"{folder / FILES[layers]} is missing and fetching {weights.url} failed ({error}). "
            f'Put the file there, or set "pretrained": false to start from random weights.'
        ) from error


def load_imagenet_weights(network: Segmentor, state_dict: Mapping[str, Tensor]) -> None:
    """Put a torchvision ResNet's weights into the trunk, and the same into the subclass copy of layers 2-4.

    The ImageNet classifier (``fc``) is left out. Nothing is changed where the weights do not fit.

    Raises
    ------
    UsageError
        Names or shapes differ from the trunk's.
    """
    backbone = network.encoder.backbone
    given = {name: value for name, value in state_dict.items() if not name.startswith("fc.")}
    wanted = {name: value for name, value in backbone.state_dict().items() if "_aux." not in name}

    # Files from before PyTorch 0.4.1 have no such counters, and with a fixed momentum nothing reads them.
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in given if name not in wanted]
    shapes = [
        f"{name} {tuple(value.shape)} in place of {tuple(wanted[name].shape)}"
        for name, value in given.items()
        if name in wanted and value.shape != wanted[name].shape
    ]
    unusable = [
        f"{name} {reason}"
        for name, value in given.items()
        if name in wanted and (reason := why_unusable(value, wanted[name].dtype))
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
            "The ImageNet weights do not fit this network's ResNet; are they for another depth or width? "
            + "; ".join(differences)
        )
    backbone.load_state_dict(given, strict=False)
    backbone.copy_to_subclass_layers()


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
