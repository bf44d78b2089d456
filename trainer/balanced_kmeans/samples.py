"""The samples of all processes as blocks on one device, and passes over them: what balanced k-means reads.

Every pass adds up over the processes what it finds, so that all of them go on with the same numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from sklearn.utils import assert_all_finite
from torch import Tensor

from trainer.balanced_kmeans.workers import BLOCK, blocks, in_order

Result = TypeVar("Result")

_ROOM = 2**28  # bytes of centred samples that a process keeps


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


def place(n: int, device: torch.device, group: dist.ProcessGroup | None) -> tuple[int, int]:
    """Where this process has n of something: how many the processes before it have, and all together."""
    if group is None:
        return 0, n
    counts = torch.zeros(dist.get_world_size(group), dtype=torch.int64, device=device)
    counts[dist.get_rank(group)] = n
    ends = all_reduce(counts, group).cumsum(0).tolist()
    return ends[dist.get_rank(group)] - n, ends[-1]


def gathered(rows: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, slice]:
    """The rows of all processes, one process after the other, and where this one's are among them."""
    start, total = place(len(rows), rows.device, group)
    own = slice(start, start + len(rows))
    if group is None:
        return rows, own
    everyone = rows.new_zeros(total, *rows.shape[1:])
    everyone[own] = rows
    return all_reduce(everyone, group), own


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

    Raises
    ------
    ValueError
        Samples are NaN or infinite.

    Attributes
    ----------
    size, start, total
        Samples here, in the processes before, in all.
    mean
        (d,) mean over all processes, subtracted from every block.
    scatter
        Sum of squared distances to it.
    """

    _is_centred = False  # whether ``data`` is what blocks are made of, as floats, less the mean

    def __init__(self, X: np.ndarray | Tensor, device: torch.device, group: dist.ProcessGroup | None) -> None:
        self.data = as_tensor(X)
        self.device, self.group = device, group
        self.dtype = torch.float64 if self.data.dtype == torch.float64 else torch.float32
        self.size, self.features = self.data.shape
        if device.type == "cuda" and self.data.device != device:
            free, _ = torch.cuda.mem_get_info(device)
            if self.data.numel() * self.data.element_size() < free // 2:
                self.data = self.data.to(device)
        self.rows = BLOCK if device.type == "cpu" else max(4096, 2**26 // self.features)
        self.start, self.total = place(self.size, device, group)
        self.mean = torch.zeros(self.features, dtype=self.dtype, device=device)
        moment = torch.zeros(self.features, dtype=torch.float64, device=device)
        for one in self.of_blocks(lambda _, x: x.double().sum(0)):
            moment += one
        moment = all_reduce(moment, group)
        if not bool(moment.isfinite().all()):  # the sum says it in a fraction of the time that a look at each one takes
            self._refuse_not_finite()
        self.mean = (moment / self.total).to(self.dtype)
        scatter = torch.zeros((), dtype=torch.float64, device=device)
        kept = None
        if self.data.numel() * self.dtype.itemsize <= _ROOM:
            kept = torch.empty(self.data.shape, dtype=self.dtype, device=device)

        def spread(part: slice, x: Tensor) -> Tensor:
            if kept is not None:
                kept[part] = x
            return x.square().sum(1).sum(dtype=torch.float64)

        for one in self.of_blocks(spread):
            scatter += one
        if kept is not None:
            self.data, self._is_centred = kept, True
        self.scatter = float(all_reduce(scatter, group))

    def _refuse_not_finite(self) -> None:
        finite = bool(self.data.isfinite().all())
        if bool(all_reduce(torch.tensor(float(not finite), device=self.device), self.group)):
            if not finite:
                assert_all_finite(self.data.cpu().numpy(), input_name="X")
            raise ValueError("X of another process contains NaN or infinity.")

    def take(self, index: slice | Tensor) -> Tensor:
        """(b, d) centred samples of these positions; read only."""
        if self._is_centred:
            return self.data[index]
        if isinstance(index, Tensor):
            index = index.to(self.data.device)
        given = self.data[index]
        x = given.to(self.device, self.dtype)
        return x - self.mean if x is given else x.sub_(self.mean)

    def of_blocks(self, work: Callable[[slice, Tensor], Result]) -> Iterator[Result]:
        """``work`` of the positions and the (b, d) centred samples of every block, in their order."""
        return in_order(lambda part: work(part, self.take(part)), blocks(self.size, self.rows))

    def added_up(self, values: Tensor) -> Tensor:
        """(1,) float64 sum of one value of each sample here (samples here, 1), block by block."""
        total = torch.zeros(1, dtype=torch.float64, device=self.device)
        for block in values.split(self.rows):
            total += block.sum(dtype=torch.float64)
        return total

    def everywhere(self, index: Tensor) -> Tensor:
        """(len(index), d) centred samples of these positions among all, given to every process."""
        own = (index >= self.start) & (index < self.start + self.size)
        out = torch.zeros(len(index), self.features, dtype=self.dtype, device=self.device)
        out[own.to(self.device)] = self.take(index[own] - self.start)
        return all_reduce(out, self.group)


def means(samples: Samples, labels: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Means of the clusters (k, d) in float64, an empty one keeps its centre, and their sizes (k, 1)."""
    k = len(centers)

    def add(part: slice, x: Tensor) -> tuple[Tensor, Tensor]:
        label = labels[part]
        if x.is_cuda:  # index_add_ adds in any order there
            block = torch.nn.functional.one_hot(label, k).to(x.dtype).T @ x
        else:
            block = torch.zeros(k, samples.features, dtype=x.dtype).index_add_(0, label, x)
        return block, torch.bincount(label, minlength=k)

    sums = torch.zeros(k, samples.features + 1, dtype=torch.float64, device=samples.device)
    for block, size in samples.of_blocks(add):
        sums[:, :-1] += block
        sums[:, -1] += size
    size = all_reduce(sums, samples.group)[:, -1:]
    return torch.where(size > 0, sums[:, :-1] / size.clamp(min=1), centers.double()), size


def inertia(samples: Samples, labels: Tensor, centers: Tensor) -> float:
    """Sum of squared distances of all samples to the centres of their clusters."""
    total = torch.zeros((), dtype=torch.float64, device=samples.device)
    near = centers.to(samples.dtype)

    def off(part: slice, x: Tensor) -> Tensor:
        return near.index_select(0, labels[part]).sub_(x).square_().sum(1).sum(dtype=torch.float64)

    for one in samples.of_blocks(off):
        total += one
    return float(all_reduce(total, samples.group))
