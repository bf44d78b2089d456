"""Batch norm over what counts as one batch: a part of the tensor, or the tensors of all processes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from utils.distributed import all_sum, world_size

_sizes: list[int] | None = None


@contextmanager
def separate_batches(*sizes: int) -> Iterator[None]:
    """Within, a network in training is given several batches joined, of ``sizes`` images: each is normalised by itself.

    Statistics move once for each batch, in their order, as if the network had been called with one after the other.
    ``nn.SyncBatchNorm``, which serves several GPUs, does not know of it.
    """
    global _sizes
    before, _sizes = _sizes, list(sizes)
    try:
        yield
    finally:
        _sizes = before


class BatchNorm2d(nn.BatchNorm2d):
    """PyTorch's, and aware of ``separate_batches``."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        if not self.training or _sizes is None:
            return self.normalise(x)
        return torch.cat([self.normalise(batch) for batch in x.split(_sizes)])

    def normalise(self, x: Tensor) -> Tensor:
        """One batch (N, C, H, W) → the same shape."""
        return super().forward(x)


class BatchNormAct2d(BatchNorm2d):
    """timm's, with the activation inside, and aware of ``separate_batches``; one of timm's becomes it by its class."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        return self.act(self.drop(super().forward(x)))


class _OverProcesses(BatchNorm2d):
    """Over the batches of all processes, for devices that ``nn.SyncBatchNorm`` does not serve."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def normalise(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().normalise(x)
        values = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        sums = _Sum.apply(torch.cat([values.sum((0, 2, 3)), values.new_full((1,), values[:, 0].numel())]))
        count = sums[-1]
        mean = sums[:-1] / count
        deviations = values - mean.view(1, -1, 1, 1)
        variance = _Sum.apply(deviations.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (deviations * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x.dtype)


class _ActOverProcesses(BatchNormAct2d, _OverProcesses):
    """Both."""


class _Sum(torch.autograd.Function):
    """Sum over all processes; so is its gradient's."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        return all_sum(values.clone())

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return all_sum(gradient.clone())


def synchronise_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Make batch norm see the total batch of all processes; parameters and their names stay as they are."""
    if world_size() == 1:
        return module
    for child in module.modules():
        if isinstance(child, BatchNormAct2d):
            child.__class__ = _ActOverProcesses
        elif isinstance(child, BatchNorm2d) and device.type != "cuda":
            child.__class__ = _OverProcesses
    return _to_sync_batch_norm(module) if device.type == "cuda" else module


def _to_sync_batch_norm(module: nn.Module) -> nn.Module:
    """``nn.SyncBatchNorm`` for all but the norms that are synchronised already."""
    if isinstance(module, BatchNorm2d) and not isinstance(module, _OverProcesses):
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for name, child in module.named_children():
        module.add_module(name, _to_sync_batch_norm(child))
    return module
