"""Dilated, multi-grid ResNet trunk, with or without a second copy of layers 2-4 for the subclasses."""

from copy import deepcopy

from torch import Tensor, nn

from models.batch_norm import BatchNorm2d
from models.layers import DilatedConv2d

# Bottlenecks in layers 1-4. 14 and 26 are for demos and tests: they have no ImageNet weights.
BLOCKS: dict[int, tuple[int, int, int, int]] = {
    14: (1, 1, 1, 1),
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
}
MULTI_GRID = (2, 4, 8)  # dilations of layer4's bottlenecks, in place of a stride
SUBCLASS_LAYERS = ("layer2", "layer3", "layer4")  # the layers that exist twice in the USRN network


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut (He et al., 2016); as in torchvision, the 3x3 is strided."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = BatchNorm2d(width)
        if dilation == 1:
            self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        else:
            self.conv2 = DilatedConv2d(width, width, dilation)
        self.bn2 = BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) → (N, 4 width, ceil(H / stride), ceil(W / stride))."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + shortcut)


class ResNet(nn.Module):
    """Trunk of output stride 16 (docs/method.md section 4). Parameter names are torchvision's.

    Parameters
    ----------
    layers
        Depth, a key of ``BLOCKS``.
    base_width
        Channels of the stem; every other width grows with it. 64 is the published network.
    subclass_copy
        Keep a second copy of layers 2-4, ``layer2_aux`` to ``layer4_aux``, for the subclass branch.
        The copies start with the values of the layers they copy, and live their own life after.

    Raises
    ------
    ValueError
        For a depth that is not there, or a width below 1.
    """

    layer2_aux: nn.Sequential
    layer3_aux: nn.Sequential
    layer4_aux: nn.Sequential

    def __init__(self, layers: int = 50, *, base_width: int = 64, subclass_copy: bool = False) -> None:
        super().__init__()
        if layers not in BLOCKS:
            raise ValueError(f"layers must be one of {sorted(BLOCKS)}, not {layers!r}")
        if base_width < 1:
            raise ValueError(f"base_width must be at least 1, not {base_width!r}")
        n1, n2, n3, n4 = BLOCKS[layers]
        width = base_width
        self.low_level_channels = width * Bottleneck.expansion
        self.out_channels = 8 * width * Bottleneck.expansion

        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(width, width, stride=1, dilations=(1,) * n1)
        self.layer2 = _stage(4 * width, 2 * width, stride=2, dilations=(1,) * n2)
        self.layer3 = _stage(8 * width, 4 * width, stride=2, dilations=(1,) * n3)
        self.layer4 = _stage(16 * width, 8 * width, stride=1, dilations=MULTI_GRID[:n4])
        self._initialise()

        self.all_names = frozenset(self.state_dict())
        self.has_subclass_copy = subclass_copy
        if subclass_copy:
            for name in SUBCLASS_LAYERS:
                self.add_module(f"{name}_aux", deepcopy(getattr(self, name)))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) → layer1's (N, 4 w, H/4, W/4) and layer4's (N, 32 w, H/16, W/16), sizes rounded up."""
        low_level = self.low_level(images)
        return low_level, self.top(low_level)

    def both(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As ``forward``, and layer4's of the subclass branch. Only with ``subclass_copy``."""
        low_level = self.low_level(images)
        return low_level, self.top(low_level), self.subclass_top(low_level)

    @property
    def named_as_in_files(self) -> nn.Module:
        """The part whose parameters have the names of torchvision's files: all but the subclass copies have them."""
        return self

    def low_level(self, images: Tensor) -> Tensor:
        """Stem and layer1, which both branches share: (N, 3, H, W) → (N, 4 w, H/4, W/4), w the base width."""
        return self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(images)))))

    def top(self, low_level: Tensor) -> Tensor:
        """Layers 2-4 of the class branch: (N, 4 w, H/4, W/4) → (N, 32 w, H/16, W/16)."""
        return self.layer4(self.layer3(self.layer2(low_level)))

    def subclass_top(self, low_level: Tensor) -> Tensor:
        """Layers 2-4 of the subclass branch, shapes as ``top``. Only with ``subclass_copy``."""
        return self.layer4_aux(self.layer3_aux(self.layer2_aux(low_level)))

    def copy_to_subclass_layers(self) -> None:
        """Give the subclass copies, where there are any, the values of layers 2-4."""
        if self.has_subclass_copy:
            for name in SUBCLASS_LAYERS:
                getattr(self, f"{name}_aux").load_state_dict(getattr(self, name).state_dict())

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # Fan-out, where the heads have fan-in: normal, variance 2 / (k x k x output channels).
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)


def _stage(in_channels: int, width: int, *, stride: int, dilations: tuple[int, ...]) -> nn.Sequential:
    """One bottleneck for each dilation; the first takes the stride."""
    blocks = [Bottleneck(in_channels, width, stride, dilations[0])]
    blocks += [Bottleneck(width * Bottleneck.expansion, width, dilation=d) for d in dilations[1:]]
    return nn.Sequential(*blocks)
