"""Batch norm over what counts as one batch: a part of the tensor, or the tensors of all processes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from utils.distributed import all_sum, rank, world_size

_sizes: list[int] | None = None


@contextmanager
def separate_batches(*sizes: int) -> Iterator[None]:
    """Within, a network in training is given several batches joined, of ``sizes`` images: each is normalised by itself.

    Statistics move once for each batch, in their order, as if the network had been called with one after the other.
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
    """Over the batches of all processes: what ``nn.SyncBatchNorm`` gives, on any device.

    That one makes the host wait for the GPU in every norm, to leave out processes without an image. Here every process
    has some, so nothing waits.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def normalise(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().normalise(x)
        self.num_batches_tracked += 1
        # The compiler fuses operations, and knows nothing of the kernels, which only CUDA has.
        if x.device.type == "cuda" and not torch.compiler.is_compiling():
            return self.by_kernels(x)
        return self.by_operations(x)

    def by_kernels(self, x: Tensor) -> Tensor:
        """As ``by_operations``, on CUDA."""
        buffers = self.running_mean, self.running_var
        return _Kernels.apply(x, self.weight, self.bias, *buffers, self.momentum, self.eps)

    def by_operations(self, x: Tensor) -> Tensor:
        """In training: (N, C, H, W) → the same shape; the statistics have moved."""
        values = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        sums = _Sum.apply(torch.cat([values.sum((0, 2, 3)), values.new_full((1,), values[:, 0].numel())]))
        count = sums[-1]
        mean = sums[:-1] / count
        deviations = values - mean.view(1, -1, 1, 1)
        variance = _Sum.apply(deviations.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (deviations * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x.dtype)


class _Kernels(torch.autograd.Function):
    """The same by the CUDA kernels of ``nn.SyncBatchNorm``: two passes over x each way, which alone is kept of it."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, running_mean: Tensor, running_var: Tensor,
                momentum: float, eps: float) -> Tensor:  # fmt: skip
        x = _dense(x)
        mean, invstd = torch.batch_norm_stats(x, eps)
        found = _of_all(torch.cat([mean, invstd, mean.new_full((1,), x[:, 0].numel())]))
        means, invstds, counts = found.split([len(mean), len(mean), 1], dim=1)
        mean, invstd = torch.batch_norm_gather_stats_with_counts(
            x, means.contiguous(), invstds.contiguous(), running_mean, running_var, momentum, eps, counts.flatten()
        )
        ctx.save_for_backward(x, weight, mean, invstd, counts.flatten().int())
        return torch.batch_norm_elemt(x, weight, bias, mean, invstd, eps)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        gradient = _dense(gradient)
        x, weight, mean, invstd, counts = ctx.saved_tensors
        of_mean, of_deviation, of_weight, of_bias = torch.batch_norm_backward_reduce(
            gradient, x, mean, invstd, weight, True, True, True
        )
        of_mean, of_deviation = all_sum(torch.stack([of_mean, of_deviation])).unbind()
        of_x = torch.batch_norm_backward_elemt(gradient, x, mean, invstd, weight, of_mean, of_deviation, counts)
        return of_x, of_weight, of_bias, None, None, None, None


def _dense(x: Tensor) -> Tensor:
    """In one of the two memory orders that the kernels take."""
    return x if x.is_contiguous(memory_format=torch.channels_last) else x.contiguous()


def _of_all(values: Tensor) -> Tensor:
    """Each process's values (n,), in the order of their ranks: (processes, n)."""
    rows = values.new_zeros(world_size(), len(values))
    rows[rank()] = values
    return all_sum(rows)


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


def synchronise_batch_norm(module: nn.Module) -> nn.Module:
    """Make batch norm see the total batch of all processes; parameters and their names stay as they are."""
    if world_size() > 1:
        for child in module.modules():
            if isinstance(child, BatchNorm2d):
                child.__class__ = _ActOverProcesses if isinstance(child, BatchNormAct2d) else _OverProcesses
    return module
