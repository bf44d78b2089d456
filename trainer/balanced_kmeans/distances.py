"""Squared distances of all samples to the centres, and what balanced k-means reads off them at given prices.

Centres move seldom, prices often: distances are kept between the passes where they fit into memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.balanced_kmeans.samples import Samples, all_reduce
from trainer.balanced_kmeans.workers import blocks, even_blocks, in_order, side_by_side, spans

_ROOM = 2**29  # bytes of distances that a process keeps
_WARMER = (1.0, 8.0, 64.0)  # multiples of the temperature at which the curvature is measured
_SPARSE = 8  # the curvature is measured on one sample in so many ...
_FEW, _FEW_PER_CLUSTER, _MANY = 2048, 16, 2**14  # ... but on at least (the larger) and at most so many
_SPARSER = 4  # ... and at the warmer temperatures on one in so many of these, where they are not fewer than _FEW


class Found(NamedTuple):
    """Of one assignment of the samples of all processes: sizes and summed least cost; of a few samples here, what each
    cluster costs more than the cheapest (b, k)."""

    counts: Tensor
    value: float
    extra: Tensor


def squared_distances(x: Tensor, centers: Tensor, norms: Tensor | None = None) -> Tensor:
    """(n, k) between samples (n, d), whose squared norms (n, 1) may be given, and centres (k, d)."""
    norms = x.square().sum(1, keepdim=True) if norms is None else norms
    parts = even_blocks(len(x)) if x.device.type == "cpu" else [slice(0, len(x))]
    own, out = centers.square().sum(1), x.new_empty(len(x), len(centers))

    def measure(part: slice) -> None:
        torch.addmm(own, x[part], centers.T, alpha=-2, out=out[part]).add_(norms[part])

    side_by_side(measure, parts)
    return out


def shares(extra: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Soft assignments (b, k) by what each cluster costs more than the cheapest (b, k), and what they were divided by.

    ``extra`` is overwritten. Shares that would not change a sum are 0: they or their products were denormal numbers,
    which a processor takes a hundred times as long with.
    """
    soft = torch.nn.functional.threshold(extra.div_(-temperature).clamp_(min=-45.0).exp_(), 1e-18, 0.0, inplace=True)
    total = soft.sum(1, keepdim=True)
    return soft.div_(total), total


class Distances:
    """Squared distances of all samples to k centres, less the samples' own squared norms.

    Attributes
    ----------
    samples
        The samples.
    kept
        (samples here, k), or None where they do not fit and are made anew in every pass.
    sparse
        The curvature is measured on one in so many samples.
    """

    def __init__(self, samples: Samples, centers: Tensor) -> None:
        k = len(centers)
        self.samples, self.kept = samples, None
        if samples.size * k * samples.dtype.itemsize <= _ROOM:
            self.kept = torch.empty(samples.size, k, dtype=samples.dtype, device=samples.device)
        few = max(_FEW, _FEW_PER_CLUSTER * k)
        self.sparse = max(1, min(_SPARSE, samples.total // few), samples.total // _MANY)
        self._sparser = _SPARSER if samples.total // self.sparse >= _FEW else 1
        self._first = (-samples.start // self.sparse) % self._sparser  # the same ones on any number of processes, too
        self.move(centers)

    def move(self, centers: Tensor) -> None:
        """To these centres (k, d) from now on."""
        self.centers, self._stale = centers, True
        self._norms, self._factor = centers.square().sum(1), -2 * centers.T

    def over_all(self, work: Callable[[slice, Tensor], None]) -> None:
        """``work`` of positions and (b, k) distances, which it only reads, of all samples here, for what it writes."""

        def measured(part: slice) -> None:
            if self.kept is None:
                work(part, self._measured(self.samples.take(part)))
                return
            if self._stale:
                self._measured(self.samples.take(part), out=self.kept[part])
            work(part, self.kept[part])

        samples, known = self.samples, self.kept is not None and not self._stale
        quick = known and samples.device.type == "cpu"  # else memory matters, and every block is work enough
        parts = spans(samples.size, samples.device) if quick else blocks(samples.size, samples.rows)
        side_by_side(measured, parts)
        self._stale = False

    def at(self, positions: Tensor) -> Tensor:
        """(b, k) distances of the samples at these positions here."""
        if self.kept is not None and not self._stale:
            return self.kept[positions]
        return self._measured(self.samples.take(positions))

    def _measured(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.addmm(self._norms, x, self._factor, out=out)

    def assign(self, prices: Tensor, labels: Tensor) -> Found:
        """Assign every sample to its least distance + price, into ``labels``."""
        samples, k = self.samples, len(prices)
        prices = prices.to(samples.dtype)
        least = torch.empty(samples.size, 1, dtype=samples.dtype, device=samples.device)

        first = -samples.start % self.sparse  # the same samples on any number of processes
        extra = least.new_empty(len(range(first, samples.size, self.sparse)), k)

        def cheapest(part: slice, cost: Tensor) -> None:
            paid, label = cost + prices, labels[part]
            if paid.is_cuda:
                torch.argmin(paid, 1, out=label)
            else:
                paid.numpy().argmin(1, out=label.numpy())  # thrice torch's speed
            torch.gather(paid, 1, label[:, None], out=least[part])
            few = slice((first - part.start) % self.sparse, None, self.sparse)
            begin, end = (-(-(place - first) // self.sparse) for place in (part.start, part.stop))
            torch.sub(paid[few], least[part][few], out=extra[begin:end])

        self.over_all(cheapest)
        value = samples.added_up(least)
        counts = torch.bincount(labels, minlength=k).double()
        counts, value = all_reduce(torch.cat([counts, value]), samples.group).split([k, 1])
        return Found(counts, float(value), extra)

    def curvature(self, found: Found, temperature: float) -> Tensor:
        """(levels, k, k) of the dual where ``found`` was seen, smoothed at multiples of a temperature."""
        k = len(found.counts)
        sparser = found.extra[self._first :: self._sparser]
        levels = [(factor * temperature, found.extra if factor == 1 else sparser) for factor in _WARMER]

        def level(one: tuple[float, Tensor]) -> Tensor:
            warmth, share = one[0], one[1].clone()
            for part in spans(len(share), share.device):
                shares(share[part], warmth)
            dense = (torch.diag(share.sum(0)) - share.T @ share) / warmth
            return torch.cat([dense.flatten().double(), found.counts.new_tensor([len(share)])])

        packed = all_reduce(torch.stack(list(in_order(level, levels))), self.samples.group)
        curvature, seen = packed.split([k * k, 1], dim=1)
        return (curvature * (self.samples.total / seen.clamp(min=1))).view(-1, k, k)
