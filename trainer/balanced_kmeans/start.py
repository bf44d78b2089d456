"""Where balanced k-means begins: centres and prices from samples in memory, by k-means++ and annealing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer.balanced_kmeans.assignment import follow, newton_price_step, soft_price_step
from trainer.balanced_kmeans.distances import shares, squared_distances
from trainer.balanced_kmeans.workers import product, side_by_side, spans


class Schedule(NamedTuple):
    """How :func:`plus_plus` and :func:`anneal` begin.

    Attributes
    ----------
    trials
        Samples drawn for each centre, of which the best is taken; None: two, and more where there are many centres.
    warm, cold, steps
        First and last temperature, in units of the gap, and how many there are.
    fastest, slowest
        From step to step the temperature falls to between these shares of what it was.
    """

    trials: int | None
    warm: float
    cold: float
    steps: int
    fastest: float
    slowest: float


CAREFUL = Schedule(None, 2.0, 0.05, 14, 0.6, 1.0)
QUICK = Schedule(2, 1.0, 0.05, 12, 0.55, 0.85)  # as good where there are many samples, and quicker

_SOFT_PASSES, _SOFT_SHARE = 3, 0.1  # to balance softly at every temperature, and how well
_LAST_PASSES, _LAST_SHARE = 30, 0.02  # the same at the last


def plus_plus(x: Tensor, k: int, rng: np.random.RandomState, schedule: Schedule = CAREFUL) -> Tensor:
    """Greedy k-means++: (k, d) of the samples ``x`` (m, d), each the best of a few drawn by squared distance.

    References
    ----------
    Arthur & Vassilvitskii, k-means++: the advantages of careful seeding, SODA 2007.
    """
    trials = schedule.trials or 2 + int(np.log(k))
    norms = x.square().sum(1)
    chosen = [int(rng.randint(len(x)))]
    nearest = (x - x[chosen[0]]).square().sum(1)
    while len(chosen) < k:
        reach = nearest.double().cumsum(0)
        drawn = torch.from_numpy(rng.uniform(size=trials)).to(reach) * reach[-1]
        candidates = torch.searchsorted(reach, drawn).clamp(max=len(x) - 1)
        distance = torch.addmm(norms, x[candidates], x.T, alpha=-2).add_(norms[candidates, None])
        distance = torch.minimum(distance.clamp_(min=0), nearest)
        best = int(distance.sum(1).argmin())
        nearest = distance[best]
        chosen.append(int(candidates[best]))
    return x[chosen]


def _soft_balance(
    cost: Tensor,
    prices: Tensor,
    temperature: float,
    low: Tensor,
    high: Tensor,
    steps: int,
    share: float,
    damping: float,
) -> tuple[Tensor, Tensor, float, float]:
    """Climb the smoothed dual by damped Newton steps, by a Sinkhorn step, which never overshoots, where one fails.

    Returns
    -------
    prices, soft, value, damping
        Prices, soft assignments (m, k), dual value and the damping to go on with, once no more than ``share`` of the
        samples are over or after so many steps.
    """

    soft, least, total = torch.empty_like(cost), cost.new_empty(len(cost), 1), cost.new_empty(len(cost), 1)

    def look(prices: Tensor) -> float:
        """Soft assignments, into ``soft``, and the dual value."""

        def share(part: slice) -> None:
            paid = torch.add(cost[part], prices, out=soft[part])
            torch.amin(paid, 1, keepdim=True, out=least[part])
            total[part] = shares(paid.sub_(least[part]), temperature)[1]

        side_by_side(share, spans(len(cost), cost.device))
        value = float((least - temperature * total.log()).sum(dtype=torch.float64))
        return value - float((prices.clamp(min=0) * high + prices.clamp(max=0) * low).sum(dtype=torch.float64))

    value = look(prices)
    for _ in range(steps):
        sizes = soft.sum(0)
        over = (sizes - high).clamp(min=0).sum() + (low - sizes).clamp(min=0).sum()
        if float(over) <= share * len(cost):
            break
        curvature = torch.diag(sizes + damping * len(cost) / len(sizes)) - product(soft.T, soft)
        after = newton_price_step(
            prices.double(), sizes.double(), curvature.double() / temperature, low.double(), high.double()
        ).to(prices.dtype)
        there = look(after)
        if there > value:
            damping = max(damping / 4, 1e-3)
        else:
            damping = min(damping * 8, 64.0)
            after = soft_price_step(prices, sizes, temperature, low, high)
            there = look(after)
        prices, value = after, there
    return prices, soft, value, damping


def anneal(
    x: Tensor, centers: Tensor, low: Tensor, high: Tensor, schedule: Schedule = CAREFUL
) -> tuple[Tensor, Tensor, float, float]:
    """Soft balanced k-means from a high to a low temperature, in units of the median gap between best and second.

    Parameters
    ----------
    x
        (m, d) samples.
    centers
        (k, d).
    low, high
        (k,) bounds, floating, for m samples.
    schedule
        The temperatures.

    Returns
    -------
    centers, prices, temperature, value
        Centres, prices, last temperature and the dual value (sum of squared distances, smoothed, at these centres).

    References
    ----------
    Rose, Deterministic annealing for clustering, compression, classification, regression, 1998.
    """
    prices, norms = torch.zeros_like(low), x.square().sum(1, keepdim=True)
    temperature, damping, value = np.inf, 1.0, 0.0
    factors = np.geomspace(schedule.warm, schedule.cold, schedule.steps).tolist()
    for factor in factors:
        cost = squared_distances(x, centers, norms)
        gap = 0.0
        if len(centers) > 1:
            paid = cost[:: 1 + len(cost) // 1024] + prices
            least, nearest = paid.min(1)
            second = paid.scatter_(1, nearest[:, None], torch.inf).amin(1)  # topk takes several times as long
            gap = float((second - least).median())
        wanted = factor * gap
        if temperature < np.inf:  # a gap is small, too, while centres share a place: cool slowly, never heat
            wanted = min(max(wanted, schedule.fastest * temperature), schedule.slowest * temperature)
        floor = 1e-6 * float(cost.mean())  # many equal samples: no gap to measure
        temperature = max(wanted, floor, torch.finfo(x.dtype).tiny)
        passes, share = (_LAST_PASSES, _LAST_SHARE) if factor == factors[-1] else (_SOFT_PASSES, _SOFT_SHARE)
        prices, soft, value, damping = _soft_balance(cost, prices, temperature, low, high, passes, share, damping)
        size = soft.sum(0)[:, None]
        moved = torch.where(size > 1e-3, product(soft.T, x) / size.clamp(min=1e-3), centers)
        prices, centers = follow(prices, moved - centers, low, high), moved
    return centers, prices, temperature, value
