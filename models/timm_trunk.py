"""Trunks of timm (https://github.com/huggingface/pytorch-image-models, an optional package), cut into two halves.

The earlier half is shared by both branches of a network, the later one exists a second time for the subclasses.
"""

import difflib
import math
import re
from collections.abc import Sequence
from copy import deepcopy
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.batch_norm import BatchNorm2d, BatchNormAct2d
from models.deeplab import upsample
from utils.errors import UsageError, first_line

PREFIX = "timm/"
LOW_LEVEL_STRIDE, TOP_STRIDE = 4, 16


class TimmTrunk(nn.Module):
    """What the trunks of timm have in common: two levels of features, and a copy of the later half.

    ``net`` has the names of timm's own files, ``net_aux`` the copy of its later half.
    """

    net: Any
    net_aux: Any
    low_level_channels: int
    out_channels: int
    scale: Tensor
    shift: Tensor

    def __init__(self, full: Any) -> None:
        super().__init__()
        from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

        self.all_names = frozenset(full.state_dict())
        given = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
        own = tuple(tuple(full.pretrained_cfg[key]) for key in ("mean", "std"))
        self.is_renormalised = own != given
        (given_mean, given_std), (mean, std) = (torch.tensor(values).view(2, 3, 1, 1) for values in (given, own))
        self.register_buffer("scale", given_std / std, persistent=False)
        self.register_buffer("shift", (given_mean - mean) / std, persistent=False)

    @property
    def named_as_in_files(self) -> nn.Module:
        """The part whose parameters have the names of timm's files."""
        return self.net

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W), normalised by ImageNet's mean and deviation → the low level at stride 4, the top near 16."""
        low_level, shared = self._shared(images)
        return low_level, self._later(self.net, shared)

    def both(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As ``forward``, and the top of the subclass branch. Only with ``subclass_copy``."""
        low_level, shared = self._shared(images)
        return low_level, self._later(self.net, shared), self._later(self.net_aux, shared)

    def copy_to_subclass_layers(self) -> None:
        """Give the subclass copy, where there is one, the values of the later half."""
        if self.net_aux is not None:
            values = self.net.state_dict()
            self.net_aux.load_state_dict({name: values[name] for name in self.net_aux.state_dict()})

    def _shared(self, images: Tensor) -> tuple[Tensor, Any]:
        """The low level, and what the later half goes on from."""
        raise NotImplementedError

    def _later(self, net: Any, shared: Any) -> Tensor:
        """The later half of ``net`` or ``net_aux``."""
        raise NotImplementedError

    def _renormalised(self, images: Tensor) -> Tensor:
        """By the mean and deviation that the trunk was trained with."""
        return images * self.scale + self.shift if self.is_renormalised else images


class HierarchicalTrunk(TimmTrunk):
    """Stages one after the other: the features at the strides that are nearest to 4 and 16."""

    def __init__(self, features: Any, full: Any, *, subclass_copy: bool) -> None:
        super().__init__(full)
        chain = _chain(features, full)
        strides, channels = features.feature_info.reduction(), features.feature_info.channels()
        taps = [position for position, (_, _, is_tap) in enumerate(chain) if is_tap]
        low = min(range(len(strides) - 1), key=lambda i: abs(math.log(strides[i] / LOW_LEVEL_STRIDE)))
        top = min(range(len(strides) - 1, low, -1), key=lambda i: abs(math.log(strides[i] / TOP_STRIDE)))
        self.low_level_channels, self.out_channels = channels[low], channels[top]
        self.low_level_stride = strides[low]
        self.channels_last = str(getattr(features, "output_fmt", "NCHW")).endswith("NHWC")
        self.net = nn.Module()
        for name, module, _ in chain[: taps[top] + 1]:
            _put(self.net, name, module)
        names = [name for name, _, _ in chain]
        self.early, self.late = names[: taps[low] + 1], names[taps[low] + 1 : taps[top] + 1]
        self.net_aux = None
        if subclass_copy:
            self.net_aux = nn.Module()
            for name in self.late:
                _put(self.net_aux, name, deepcopy(self.net.get_submodule(name)))

    def _shared(self, images: Tensor) -> tuple[Tensor, Any]:
        shared = self._run(self.net, self.early, self._renormalised(images))
        return _at_stride_4(self._map(shared), self.low_level_stride, images), shared

    def _later(self, net: Any, shared: Any) -> Tensor:
        return self._map(self._run(net, self.late, shared))

    def _run(self, net: Any, names: Sequence[str], values: Any) -> Any:
        for name in names:
            values = net.get_submodule(name)(values)
        return values

    def _map(self, values: Any) -> Tensor:
        """What a stage gives as (N, C, h, w)."""
        values = values[0] if isinstance(values, tuple | list) else values
        return values.permute(0, 3, 1, 2) if self.channels_last else values


class PlainViTTrunk(TimmTrunk):
    """A vision transformer: the tokens after the first half of its blocks, brought to stride 4, and after all."""

    def __init__(self, vit: Any, *, subclass_copy: bool) -> None:
        super().__init__(vit)
        self.low_level_channels = self.out_channels = vit.embed_dim
        for name in ("head", "head_drop", "fc_norm", "attn_pool"):  # what stands behind the tokens
            if getattr(vit, name, None) is not None:
                setattr(vit, name, nn.Identity())
        self.net = vit
        self.middle, self.depth = len(vit.blocks) // 2, len(vit.blocks)
        self.net_aux = None
        if subclass_copy:
            self.net_aux = nn.Module()
            for name in (*(f"blocks.{i}" for i in range(self.middle, self.depth)), "norm"):
                _put(self.net_aux, name, deepcopy(vit.get_submodule(name)))

    def _shared(self, images: Tensor) -> tuple[Tensor, Any]:
        height, width = self.net.patch_embed.patch_size
        rows, columns = (images.shape[-2] + height - 1) // height, (images.shape[-1] + width - 1) // width
        missing = (0, columns * width - images.shape[-1], 0, rows * height - images.shape[-2])
        tokens = self.net._pos_embed(self.net.patch_embed(F.pad(self._renormalised(images), missing)))
        tokens, rope = tokens if isinstance(tokens, tuple) else (tokens, None)
        tokens = self._blocks(self.net, range(self.middle), self.net.norm_pre(tokens), rope)
        grid = (rows, columns)
        return _at_stride_4(self._map(tokens, grid), height, images), (tokens, rope, grid)

    def _later(self, net: Any, shared: Any) -> Tensor:
        tokens, rope, grid = shared
        return self._map(net.norm(self._blocks(net, range(self.middle, self.depth), tokens, rope)), grid)

    def _blocks(self, net: Any, numbers: Sequence[int], tokens: Tensor, rope: Tensor | None) -> Tensor:
        for number in numbers:
            block = net.get_submodule(f"blocks.{number}")
            if rope is None:
                tokens = block(tokens)
            else:
                tokens = block(tokens, rope=rope[number] if getattr(self.net, "rope_mixed", False) else rope)
        return tokens

    def _map(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(N, tokens, C) → (N, C, h, w), without class token and registers."""
        return tokens[:, self.net.num_prefix_tokens :].transpose(1, 2).unflatten(2, grid)


def make_timm_trunk(trunk: str, *, subclass_copy: bool) -> TimmTrunk:
    """A trunk of timm with random weights.

    Parameters
    ----------
    trunk
        ``timm/<model>``, with or without a tag of weights.
    subclass_copy
        Keep a second copy of the later half for the subclass branch.

    Raises
    ------
    UsageError
        timm is missing or has no such model, or the model is of a kind that cannot be cut in two.
    """
    with torch.device("meta"):
        full = _create(trunk)
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    made: TimmTrunk
    if type(full) in (VisionTransformer, Eva):
        vit = _create(trunk, num_classes=0, dynamic_img_size=True)
        made = PlainViTTrunk(vit, subclass_copy=subclass_copy)
    else:
        any_size = {"strict_img_size": False} if hasattr(getattr(full, "patch_embed", 0), "strict_img_size") else {}
        features = _create(trunk, features_only=True, **any_size)
        made = HierarchicalTrunk(features, full, subclass_copy=subclass_copy)
    _know_batches(made, trunk)
    _try(made, trunk)
    return made


def timm_weights(trunk: str) -> dict[str, Tensor]:
    """The weights of a model of timm, from its cache or fetched there, under the names of its files.

    Raises
    ------
    UsageError
        As of ``make_timm_trunk``, or there are no such weights, or they are not to be had.
    """
    return _create(trunk, pretrained=True).state_dict()


def _create(trunk: str, **settings: Any) -> Any:
    """``timm.create_model``, whose errors are messages."""
    if find_spec("timm") is None:
        raise UsageError(f"model.trunk {trunk} needs the package timm: pip install timm")
    import timm

    name = trunk.removeprefix(PREFIX)
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3)
        raise UsageError(f"model.trunk {trunk}: timm {timm.__version__} has no such model; near it: {', '.join(near)}.")
    try:
        return timm.create_model(name, **settings)
    except Exception as error:  # whatever timm and its client of the weights' server raise
        of_weights = 'Set "pretrained" to a file of its weights, or to false.'
        advice = of_weights if settings.get("pretrained") else "Take another model."
        raise UsageError(f"model.trunk {trunk}: timm cannot make it ({first_line(error)}). {advice}") from error


def _chain(features: Any, full: Any) -> list[tuple[str, nn.Module, bool]]:
    """The modules that a network of features runs, in order: name in the files, module, whether its output is one."""
    kind = type(features).__name__
    if kind == "FeatureListNet":
        known = dict(full.named_modules())
        return [(_name_in_files(key, known), module, key in features.return_layers) for key, module in features.items()]
    if kind in ("EfficientNetFeatures", "MobileNetV3Features") and features.feature_hooks is None:
        taps = features._stage_out_idx
        stem = [("conv_stem", features.conv_stem, False), ("bn1", features.bn1, 0 in taps)]
        return stem + [(f"blocks.{i}", block, i + 1 in taps) for i, block in enumerate(features.blocks)]
    raise UsageError(
        f"model.trunk {PREFIX}{full.pretrained_cfg['architecture']}: it is neither a plain ViT nor stages one after "
        f"the other ({kind}). Take another model."
    )


def _name_in_files(key: str, known: dict[str, nn.Module]) -> str:
    """``stages.0`` of ``stages_0``, as timm calls what it takes out of a sequence."""
    names = [key] + [f"{key[: at.start()]}.{key[at.end() :]}" for at in re.finditer("_", key)]
    return next(name for name in names if name in known)


def _put(root: nn.Module, name: str, module: nn.Module) -> None:
    """``root.<name> = module``, with empty modules for the dots on the way."""
    *parents, last = name.split(".")
    for parent in parents:
        if parent not in root._modules:
            root.add_module(parent, nn.Module())
        root = root.get_submodule(parent)
    root.add_module(last, module)


def _at_stride_4(low_level: Tensor, stride: int, images: Tensor) -> Tensor:
    """Where no feature is at stride 4, the nearest one brought there, so that pixel features always are."""
    if stride == LOW_LEVEL_STRIDE:
        return low_level
    size = [(side + LOW_LEVEL_STRIDE - 1) // LOW_LEVEL_STRIDE for side in images.shape[-2:]]
    return upsample(low_level, (size[0], size[1]))


def _know_batches(trunk: TimmTrunk, name: str) -> None:
    """Make batch norms those of this project, which know what one batch is; names and values stay."""
    from timm.layers import BatchNormAct2d as TimmBatchNormAct2d

    for module in trunk.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = BatchNorm2d
        elif type(module) is TimmBatchNormAct2d:
            module.__class__ = BatchNormAct2d  # type: ignore[assignment] # its attributes are those of timm's
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise UsageError(f"model.trunk {name}: its norms ({type(module).__name__}) cannot take batches apart.")


@torch.no_grad()
def _try(made: TimmTrunk, trunk: str) -> None:
    """Refuse a model that is made for one size of images."""
    example = torch.zeros(1, 3, 72, 104, device=made.scale.device)
    if example.is_meta:  # nothing is to run
        return
    try:
        made.eval()(example)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UsageError(f"model.trunk {trunk}: does not take images of any size ({error}). Take another.") from error
    made.train()
