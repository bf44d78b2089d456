"""The samples of all processes as blocks on one device, and passes over them: what balanced k-means reads.

Every pass adds up over the processes what it finds, so that all of them go on with the same numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

_WARMER = (1.0, 8.0, 64.0)  # multiples of the temperature at which the curvature is measured


class Sums(NamedTuple):
    """Of one pass over the samples of all processes: sizes, sums, summed least cost, curvature of the dual."""

    counts: Tensor
    sums: Tensor
    value: float
    curvature: Tensor


def all_reduce(
    tensor: Tensor, group: dist.ProcessGroup | None, op: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM
) -> Tensor:
    if group is not None:
        dist.all_reduce(tensor, op=op, group=group)
    return tensor


def broadcast(tensor: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """What the first process has, so that rounding on unlike machines cannot part them."""
    if group is not None:
        dist.broadcast(tensor, dist.get_global_rank(group, 0), group=group)
    return tensor


def as_tensor(X: np.ndarray | Tensor) -> Tensor:
    """The same memory as a tensor; read only."""
    if isinstance(X, Tensor):
        return X
    if any(stride < 0 for stride in X.strides) or not X.dtype.isnative:
        X = np.ascontiguousarray(X, dtype=X.dtype.newbyteorder("="))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.asarray(X))


class Samples:
    """This process's samples, read as centred float blocks on one device.

    Attributes
    ----------
    size, start, total
        Samples here, in the processes before, in all.
    mean
        (d,) mean over all processes, subtracted from every block.
    scatter
        Sum of squared distances to it.
    sparse
        The curvature is measured on one in so many samples.
    """

    def __init__(self, X: np.ndarray | Tensor, device: torch.device, group: dist.ProcessGroup | None) -> None:
        self.data = as_tensor(X)
        self.device, self.group = device, group
        self.dtype = torch.float64 if self.data.dtype == torch.float64 else torch.float32
        self.size, self.features = self.data.shape
        if device.type == "cuda" and self.data.device != device:
            free, _ = torch.cuda.mem_get_info(device)
            if self.data.numel() * self.data.element_size() < free // 2:
                self.data = self.data.to(device)
        self.rows = 8192 if device.type == "cpu" else max(4096, 2**26 // self.features)
        sizes = torch.zeros(1 if group is None else dist.get_world_size(group), dtype=torch.int64, device=device)
        rank = 0 if group is None else dist.get_rank(group)
        sizes[rank] = self.size
        all_reduce(sizes, group)
        self.start, self.total = int(sizes[:rank].sum()), int(sizes.sum())
        self.sparse = 1 + min(15, self.total // 4096)
        self.mean = torch.zeros(self.features, dtype=self.dtype, device=device)
        moment = torch.zeros(self.features, dtype=torch.float64, device=device)
        for _, x in self.blocks():
            moment += x.double().sum(0)
        self.mean = (all_reduce(moment, group) / self.total).to(self.dtype)
        scatter = torch.zeros((), dtype=torch.float64, device=device)
        for _, x in self.blocks():
            scatter += x.square().sum(1).sum(dtype=torch.float64)
        self.scatter = float(all_reduce(scatter, group))

    def take(self, index: slice | Tensor) -> Tensor:
        """(b, d) centred samples of these positions."""
        if isinstance(index, Tensor):
            index = index.to(self.data.device)
        return self.data[index].to(self.device, self.dtype) - self.mean

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Positions and (b, d) centred samples, block by block."""
        for start in range(0, self.size, self.rows):
            part = slice(start, min(start + self.rows, self.size))
            yield part, self.take(part)

    def everywhere(self, index: Tensor) -> Tensor:
        """(len(index), d) centred samples of these positions among all, given to every process."""
        own = (index >= self.start) & (index < self.start + self.size)
        out = torch.zeros(len(index), self.features, dtype=self.dtype, device=self.device)
        out[own.to(self.device)] = self.take(index[own] - self.start)
        return all_reduce(out, self.group)

    def scan(self, centers: Tensor, prices: Tensor, temperature: float, labels: Tensor) -> Sums:
        """Assign every sample to its least distance + price, into ``labels``."""
        k = len(centers)
        bias, weight = centers.square().sum(1) + prices, -2 * centers.T
        counts = torch.zeros(k, dtype=torch.float64, device=self.device)
        sums = torch.zeros(k, self.features, dtype=torch.float64, device=self.device)
        value = torch.zeros(1, dtype=torch.float64, device=self.device)
        curvature, seen = sums.new_zeros(len(_WARMER), k, k), torch.zeros_like(value)
        for part, x in self.blocks():
            cost = torch.addmm(bias, x, weight)
            least, label = cost.min(1)
            labels[part] = label
            value += least.sum(dtype=torch.float64)
            counts += torch.bincount(label, minlength=k)
            if x.is_cuda:  # index_add_ adds in any order there
                sums += torch.nn.functional.one_hot(label, k).to(x.dtype).T @ x
            else:
                sums += torch.zeros(k, self.features, dtype=x.dtype).index_add_(0, label, x)
            first = -(self.start + part.start) % self.sparse  # the same samples on any number of processes
            sample = cost[first :: self.sparse] / -temperature
            for level, factor in enumerate(_WARMER):
                share = torch.softmax(sample / factor, 1)
                curvature[level] -= share.T @ share
                curvature[level].diagonal().add_(share.sum(0))
            seen += len(sample)
        packed = torch.cat([counts, sums.flatten(), value, curvature.flatten(), seen])
        all_reduce(packed, self.group)
        counts, sums, value, curvature, seen = packed.split([k, sums.numel(), 1, curvature.numel(), 1])
        widths = temperature * counts.new_tensor(_WARMER)[:, None, None]
        curvature = curvature.view(-1, k, k) * (self.total / seen.clamp(min=1)) / widths
        return Sums(counts, sums.view(k, -1), float(value), curvature)


def squared_distances(x: Tensor, centers: Tensor) -> Tensor:
    """(b, k) between samples (b, d) and centres (k, d)."""
    return torch.addmm(centers.square().sum(1), x, centers.T, alpha=-2).add_(x.square().sum(1, keepdim=True))


def means(samples: Samples, labels: Tensor, centers: Tensor) -> tuple[Tensor, float]:
    """Means of the clusters (k, d) in float64, an empty one keeps its centre, and the inertia."""
    k = len(centers)
    sums = torch.zeros(k, samples.features + 1, dtype=torch.float64, device=samples.device)
    for part, x in samples.blocks():
        sums[:, :-1] += torch.nn.functional.one_hot(labels[part], k).to(x.dtype).T @ x
        sums[:, -1] += torch.bincount(labels[part], minlength=k)
    size = all_reduce(sums, samples.group)[:, -1:]
    centers = torch.where(size > 0, sums[:, :-1] / size.clamp(min=1), centers.double())
    inertia = torch.zeros((), dtype=torch.float64, device=samples.device)
    near = centers.to(samples.dtype)
    for part, x in samples.blocks():
        inertia += (x - near[labels[part]]).square().sum(1).sum(dtype=torch.float64)
    return centers, float(all_reduce(inertia, samples.group))
