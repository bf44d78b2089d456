"""Which network a checkpoint's weights belong to, read off their names and shapes."""

import re
from collections.abc import Mapping
from typing import TypedDict

from torch import Tensor

from models.resnet import BLOCKS

_BLOCK = re.compile(r"encoder\.backbone\.layer([1-4])\.\d+\.conv1\.weight")


class Architecture(TypedDict):
    """The arguments of ``build_network``."""

    name: str
    n_classes: int
    n_subclasses: int | None
    layers: int
    out_dim: int
    base_width: int
    trunk: str | None


def infer_architecture(state_dict: Mapping[str, Tensor], trunk: str | None = None) -> Architecture:
    """The arguments of ``build_network`` for the network that these weights are of.

    Which trunk of timm it is cannot be told from them: ``trunk`` says it, None is a ResNet.

    Raises
    ------
    ValueError
        They are of no network of this project.
    """
    needed = {"classifier.1.weight"} if trunk else {"encoder.backbone.conv1.weight", "classifier.1.weight"}
    missing = needed - state_dict.keys()
    if missing:
        raise ValueError(f"{' and '.join(sorted(missing))} are missing")
    for name in ("encoder.backbone.conv1.weight", "classifier.1.weight", "classifier_SubCls.1.weight"):
        if name in state_dict and state_dict[name].ndim != 4:
            raise ValueError(f"{name} is no convolution's")
    layers, base_width = (50, 64) if trunk else _resnet(state_dict)
    n_classes, out_dim = state_dict["classifier.1.weight"].shape[:2]
    if not 2 <= n_classes <= 255:
        raise ValueError(f"classifier.1.weight is of {n_classes} classes; 2 to 255 are possible")
    subclass_head = state_dict.get("classifier_SubCls.1.weight")
    return {
        "name": "Baseline" if subclass_head is None else "USRN",
        "n_classes": n_classes,
        "n_subclasses": None if subclass_head is None else len(subclass_head),
        "layers": layers,
        "out_dim": out_dim,
        "base_width": base_width,
        "trunk": trunk,
    }


def _resnet(state_dict: Mapping[str, Tensor]) -> tuple[int, int]:
    """Depth and width of a ResNet."""
    of_blocks = [match[1] for name in state_dict if (match := _BLOCK.fullmatch(name))]
    blocks = tuple(of_blocks.count(layer) for layer in "1234")
    layers = next((depth for depth, of_depth in BLOCKS.items() if of_depth == blocks), None)
    if layers is None:
        raise ValueError(f"layers 1 to 4 have {blocks} blocks, as no ResNet of {sorted(BLOCKS)} layers has")
    return layers, len(state_dict["encoder.backbone.conv1.weight"])
