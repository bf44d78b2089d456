"""PyTorch's layers, made faster where a training step spends its time in vain, on a CPU above all."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Dropout(nn.Dropout):
    """PyTorch's; on a CPU its zeros are drawn as uniform numbers, which takes a fifth of the time."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape → the same."""
        if not self.training or self.p in (0, 1) or x.device.type != "cpu":
            return super().forward(x)
        kept = torch.empty_like(x, dtype=torch.float32).uniform_() >= self.p
        return x * kept.to(x.dtype).div_(1 - self.p)


class DilatedConv2d(nn.Conv2d):
    """A 3x3 convolution of stride 1 whose padding is its dilation; in training fast where a map is mostly padding."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, h, w) → (N, out_channels, h, w)."""
        # In evaluation any size may come, and exported networks must not depend on the one they were traced with.
        size, dilation = max(x.shape[-2:]), self.dilation[0]
        if self.training and size <= dilation:
            # Wherever the kernel stands, every tap but the central one falls into the padding.
            return F.conv2d(x, self.weight[:, :, 1:2, 1:2])
        on_cpu = x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        if self.training and size <= 2 * dilation and on_cpu:
            return _MostlyPadding.apply(x, self.weight, dilation)
        return super().forward(x)


class _MostlyPadding(torch.autograd.Function):
    """The convolution, its weights' gradient taken tap by tap from the pixels that are not padding.

    oneDNN multiplies the padding as well, which takes three to ten times as long on these maps.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return F.conv2d(x, weight, padding=dilation, dilation=dilation)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        d = [ctx.dilation] * 2
        for_x, _, _ = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, [1, 1], d, d, False, [0, 0], 1, [True, False, False]
        )
        pixels, gradients = (values.permute(0, 2, 3, 1) for values in (x, gradient))
        rows, columns = (_overlaps(size, ctx.dilation) for size in x.shape[-2:])
        taps = [
            gradients[:, row_out, column_out].flatten(0, 2).T @ pixels[:, row_in, column_in].flatten(0, 2)
            for row_in, row_out in rows
            for column_in, column_out in columns
        ]
        for_weight = torch.stack(taps).permute(1, 2, 0).unflatten(2, (3, 3))
        return for_x, for_weight, None


def _overlaps(size: int, dilation: int) -> list[tuple[slice, slice]]:
    """For each of the three taps along a side, the inputs it reads and the outputs they count for."""
    inner = max(0, size - dilation)
    low, high = slice(0, inner), slice(size - inner, size)
    return [(low, high), (slice(0, size), slice(0, size)), (high, low)]
