"""DeepLabv3+ heads (Chen et al., 2018): atrous spatial pyramid pooling and the decoder."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.batch_norm import BatchNorm2d
from models.layers import DilatedConv2d, Dropout

ASPP_DILATIONS = (1, 6, 12, 18)  # for output stride 16; 1 stands for the 1x1 branch
LOW_LEVEL_REDUCED = 48  # channels to which the decoder brings the low-level feature


def upsample(x: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """(N, C, h, w) → (N, C, *size) of the same type, bilinear with corners aligned, as everywhere in this method."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True).to(x.dtype)  # autocast gives float32


class AtrousBranch(nn.Module):
    """Convolution, batch norm, ReLU; 1x1 where the dilation is 1, else 3x3."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int) -> None:
        super().__init__()
        if dilation == 1:
            self.atrous_conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        else:
            self.atrous_conv = DilatedConv2d(in_channels, out_channels, dilation)
        self.bn = BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, h, w) → (N, out_channels, h, w)."""
        return self.relu(self.bn(self.atrous_conv(x)))


class ASPP(nn.Module):
    """Four atrous branches and global average pooling, joined by a 1x1 convolution (docs/method.md section 4)."""

    def __init__(self, in_channels: int, out_dim: int = 256) -> None:
        super().__init__()
        self.aspp1, self.aspp2, self.aspp3, self.aspp4 = (
            AtrousBranch(in_channels, out_dim, dilation) for dilation in ASPP_DILATIONS
        )
        self.global_avg_pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(in_channels, out_dim, 1, bias=False),
            BatchNorm2d(out_dim),
            nn.ReLU(inplace=True),
        )
        self.conv1 = nn.Conv2d(5 * out_dim, out_dim, 1, bias=False)
        self.bn1 = BatchNorm2d(out_dim)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = Dropout(0.5)
        initialise_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, h, w) → (N, out_dim, h, w)."""
        branches = [self.aspp1(x), self.aspp2(x), self.aspp3(x), self.aspp4(x)]
        branches.append(upsample(self.global_avg_pool(x), x.shape[-2:]))
        return self.dropout(self.relu(self.bn1(self.conv1(torch.cat(branches, dim=1)))))


class Decoder(nn.Module):
    """ASPP output and low-level feature → the pixel feature (docs/method.md section 4)."""

    def __init__(self, low_level_channels: int, out_dim: int = 256) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(low_level_channels, LOW_LEVEL_REDUCED, 1, bias=False)
        self.bn1 = BatchNorm2d(LOW_LEVEL_REDUCED)
        self.relu = nn.ReLU(inplace=True)
        self.last_conv = nn.Sequential(
            nn.Conv2d(out_dim + LOW_LEVEL_REDUCED, out_dim, 3, padding=1, bias=False),
            BatchNorm2d(out_dim),
            nn.ReLU(inplace=True),
            Dropout(0.5),
            nn.Conv2d(out_dim, out_dim, 3, padding=1, bias=False),
            BatchNorm2d(out_dim),
            nn.ReLU(inplace=True),
        )
        initialise_convolutions(self)

    def forward(self, x: Tensor, low_level: Tensor) -> Tensor:
        """(N, out_dim, h, w) and (N, low_level_channels, H/4, W/4) → (N, out_dim, H/4, W/4)."""
        low_level = self.relu(self.bn1(self.conv1(low_level)))
        return self.last_conv(torch.cat([upsample(x, low_level.shape[-2:]), low_level], dim=1))


def initialise_convolutions(module: nn.Module) -> None:
    """Kaiming-normal (fan-in) for every convolution in ``module``; batch norm is born as 1 and 0 already."""
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            nn.init.kaiming_normal_(child.weight)
