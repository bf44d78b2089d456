"""Squared distances of all samples to the centres, and what balanced k-means reads off them at given prices.

Centres move seldom, prices often: distances are kept between the passes where they fit into memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.balanced_kmeans.samples import Samples, all_reduce

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


def squared_distances(x: Tensor, centers: Tensor) -> Tensor:
    """(b, k) between samples (b, d) and centres (k, d)."""
    return torch.addmm(centers.square().sum(1), x, centers.T, alpha=-2).add_(x.square().sum(1, keepdim=True))


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

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Positions and (b, k) distances, block by block; read only."""
        if self.kept is not None and not self._stale:
            for part in self.samples.parts():
                yield part, self.kept[part]
            return
        for part, x in self.samples.blocks():
            yield part, self._measured(x, None if self.kept is None else self.kept[part])
        self._stale = False

    def at(self, positions: Tensor) -> Tensor:
        """(b, k) distances of the samples at these positions here."""
        if self.kept is not None and not self._stale:
            return self.kept[positions]
        return self._measured(self.samples.take(positions))

    def _measured(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.addmm(self.centers.square().sum(1), x, -2 * self.centers.T, out=out)

    def assign(self, prices: Tensor, labels: Tensor) -> Found:
        """Assign every sample to its least distance + price, into ``labels``."""
        samples, k = self.samples, len(prices)
        prices = prices.to(samples.dtype)
        counts = torch.zeros(k, dtype=torch.float64, device=samples.device)
        value = counts.new_zeros(1)
        few = []
        for part, cost in self.blocks():
            paid = cost + prices
            label = paid.argmin(1) if paid.is_cuda else torch.from_numpy(paid.numpy().argmin(1))  # thrice torch's speed
            least = paid.gather(1, label[:, None])[:, 0]
            labels[part] = label
            value += least.sum(dtype=torch.float64)
            first = -(samples.start + part.start) % self.sparse  # the same samples on any number of processes
            few.append(paid[first :: self.sparse] - least[first :: self.sparse, None])
        counts += torch.bincount(labels, minlength=k)
        counts, value = all_reduce(torch.cat([counts, value]), samples.group).split([k, 1])
        return Found(counts, float(value), torch.cat(few) if few else prices.new_zeros(0, k))

    def curvature(self, found: Found, temperature: float) -> Tensor:
        """(levels, k, k) of the dual where ``found`` was seen, smoothed at multiples of a temperature."""
        k = len(found.counts)
        packed = found.counts.new_zeros(len(_WARMER), k * k + 1)
        for level, factor in zip(packed, _WARMER, strict=True):
            extra = found.extra if factor == 1 else found.extra[self._first :: self._sparser]
            share, _ = shares(extra.clone(), factor * temperature)
            level[:-1] = ((torch.diag(share.sum(0)) - share.T @ share) / (factor * temperature)).flatten()
            level[-1] = len(extra)
        curvature, seen = all_reduce(packed, self.samples.group).split([k * k, 1], dim=1)
        return (curvature * (self.samples.total / seen.clamp(min=1))).view(-1, k, k)
