"""What trunk and heads are built of beside PyTorch's own layers."""

from torch import Tensor, nn
from torch.nn import functional as F


class DilatedConv2d(nn.Conv2d):
    """A 3x3 convolution of stride 1 whose padding is its dilation; on a small map in training, only what counts of it.

    On a map no larger than the dilation every tap but the central one falls into the padding, wherever the kernel
    stands: the same result, and the same gradients, come from a 1x1 convolution at a ninth of the work.
    """

    def __init__(self, in_channels: int, out_channels: int, dilation: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, h, w) → (N, out_channels, h, w)."""
        # In evaluation any size may come, and exported networks must not depend on the one they were traced with.
        if self.training and max(x.shape[-2:]) <= self.dilation[0]:
            return F.conv2d(x, self.weight[:, :, 1:2, 1:2])
        return super().forward(x)
