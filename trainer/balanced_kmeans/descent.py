"""From a start to balanced clusters: what :class:`trainer.balanced_kmeans.estimator.BalancedKMeans` is made of.

:func:`fit_exact` finishes a small problem with exact assignments. :func:`lloyd` streams over any number of samples,
on one process or on many, and :func:`repair` ends it: every pass assigns by squared distance + price; centres move to
the means, prices towards balance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from trainer.balanced_kmeans.assignment import Exchange, desired_sizes, exchange, newton_price_step
from trainer.balanced_kmeans.samples import Samples, Sums, all_reduce, broadcast, squared_distances

OnIteration = Callable[[int, float], None]
"""Called after every iteration over all samples with its number and the inertia, about."""

_BALANCED = 0.02  # share of the samples that may be too many before the centres move
_BALANCE_PASSES = 5  # passes to get there, per iteration
_PATIENCE = 2  # iterations without a gain before a large problem stops
_SETTLE_PASSES = 12  # passes over all samples with fixed centres before the repair
_SETTLED = 1e-3  # share of the samples that is left to the repair
_RIDGE = 256.0  # prices without soft samples move no further than this many temperatures, at a caution of 1
_REPAIR_ROWS = 2**17  # samples offered to the repair, about


@dataclass
class Problem:
    """What to solve: number of samples, integer bounds (k,), and when to stop."""

    total: int
    low: np.ndarray
    high: np.ndarray
    max_iter: int
    tol: float

    def soft_bounds(self, n: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds for n of the samples; equal where the sizes can differ by one at most."""
        k, total = len(self.low), self.total
        low, high = (self.low, self.high) if np.any(self.high - self.low > 1) else (total / k, total / k)
        low, high = (np.broadcast_to(bound, k) * (n / total) for bound in (low, high))
        return like.new_tensor(low), like.new_tensor(high)


def fit_exact(
    x: Tensor, centers: Tensor, prices: Tensor, problem: Problem, on_iteration: OnIteration | None = None
) -> tuple[Tensor, Tensor, float, int]:
    """Lloyd's algorithm with exact assignments: labels (n,), centres (k, d), inertia, iterations. ``x`` is float64."""
    n, k = len(x), len(centers)
    inertia = np.inf
    support = prices.double().numpy()
    best = torch.zeros(n, dtype=torch.int64), centers
    for iteration in range(1, problem.max_iter + 1):  # noqa: B007
        cost = squared_distances(x, centers).numpy()
        labels = (cost + support).argmin(1)
        counts = np.bincount(labels, minlength=k)
        sizes = desired_sizes(support, counts, problem.low, problem.high, n)
        state = Exchange(cost, labels, counts, sizes, support, problem.low, problem.high)
        exchange(state)
        support = state.prices
        assigned = torch.from_numpy(labels)
        sums = torch.zeros_like(centers).index_add_(0, assigned, x)
        size = torch.from_numpy(counts)[:, None]
        centers = torch.where(size > 0, sums / size.clamp(min=1), centers)
        now = float((x - centers[assigned]).square().sum())
        gain, inertia = inertia - now, min(now, inertia)
        if gain > 0 or iteration == 1:
            best = assigned, centers
        if on_iteration is not None:
            on_iteration(iteration, inertia)
        if gain <= problem.tol * inertia:
            break
    return *best, inertia, iteration


class Pass(NamedTuple):
    """What one pass over all samples finds at some prices: its sums, the dual value, and the samples that a cluster
    has too many or too few, as a share of all."""

    sums: Sums
    dual: float
    excess_share: float


@dataclass
class _Descent:
    """Centres and prices on their way, over all samples."""

    samples: Samples
    centers: Tensor
    prices: Tensor
    temperature: float
    low: Tensor
    high: Tensor
    labels: Tensor
    caution: float = 1.0  # weight of the curvature at the warmer temperatures, which see further, and of a ridge

    def look(self, prices: Tensor) -> Pass:
        """One pass at these prices."""
        found = self.samples.scan(self.centers, prices.to(self.samples.dtype), self.temperature, self.labels)
        bound = float((prices.clamp(min=0) * self.high + prices.clamp(max=0) * self.low).sum())
        over = (found.counts - self.high).clamp(min=0).sum() + (self.low - found.counts).clamp(min=0).sum()
        return Pass(found, found.value + self.samples.scatter - bound, float(over) / self.samples.total)

    def step(self, found: Sums) -> Tensor:
        """Prices after a step from the current ones, where ``found`` was seen."""
        k = len(self.prices)
        ridge = torch.eye(k).to(self.prices) * (self.samples.total / (k * _RIDGE * self.temperature))
        curvature = found.curvature[0] + self.caution * (found.curvature[1:].sum(0) + ridge)
        after = newton_price_step(self.prices, found.counts, curvature, self.low, self.high)
        return broadcast(after, self.samples.group)

    def balance(self, at_prices: Pass, passes: int, share: float) -> Pass:
        """Climb the dual with the centres where they are, until the excess is no more than ``share``.

        ``at_prices`` is the pass at the current prices; returned is the one at the prices where the climb ends.
        """
        for _ in range(passes):
            if at_prices.excess_share <= share:
                break
            trial = self.step(at_prices.sums)
            at_trial = self.look(trial)
            if at_trial.dual >= at_prices.dual:
                at_prices, self.prices = at_trial, trial
                self.caution = max(self.caution / 1.5, 0.1)
            else:
                self.caution = min(self.caution * 4, 1e4)
        return at_prices


def lloyd(
    samples: Samples,
    centers: Tensor,
    prices: Tensor,
    temperature: float,
    problem: Problem,
    on_iteration: OnIteration | None = None,
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Passes over all samples that move centres and prices, then prices only.

    Returns
    -------
    labels, centers, prices, iterations
        Labels of the samples here, centres, prices, iterations. The sizes are close to their bounds, not inside.
    """
    low, high = problem.soft_bounds(samples.total, prices.double())
    labels = torch.zeros(samples.size, dtype=torch.int64, device=samples.device)
    descent = _Descent(samples, centers, prices.double(), temperature, low, high, labels)
    latest = descent.look(descent.prices)
    best, stale = np.inf, 0
    for iteration in range(1, problem.max_iter + 1):  # noqa: B007
        latest = descent.balance(latest, _BALANCE_PASSES, _BALANCED)
        found, value, excess = latest
        size = found.counts[:, None]
        moved = torch.where(size > 0, found.sums / size.clamp(min=1), descent.centers.double())
        gain = float((size * (moved - descent.centers).square()).sum())  # by this much the squared distances fall
        prices, descent.centers = descent.prices, moved.to(samples.dtype)
        if excess <= _BALANCED:
            descent.prices = descent.step(found)
        latest = descent.look(descent.prices)
        if excess <= _BALANCED and latest.excess_share > 5 * _BALANCED:
            descent.prices = prices
            latest = descent.look(prices)
        if excess <= _BALANCED:  # elsewhere the value is far below the inertia
            stale = 0 if value < best * (1 - problem.tol) else stale + 1
            best = min(best, value)
        if on_iteration is not None:
            on_iteration(iteration, value)
        if gain <= problem.tol * value or stale == _PATIENCE:
            break
    descent.balance(latest, _SETTLE_PASSES, _SETTLED)
    return labels, descent.centers, descent.prices, iteration


def _offer(samples: Samples, centers: Tensor, labels: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, np.ndarray]:
    """Samples that the repair may move: for every pair of clusters (a, b), the cheapest of a to go to b.

    Returns
    -------
    positions, costs, limit
        Positions here (m,), their squared distances to all centres less that to their own (m, k), and ``limit`` of
        :class:`Exchange`.
    """
    k = len(centers)
    each = max(8, _REPAIR_ROWS // (k * max(1, int((counts > 0).sum()))))
    limit = torch.full((k, k), torch.inf, dtype=torch.float64, device=samples.device)
    order = torch.argsort(labels, stable=True)
    positions, costs = [], []
    for cluster, members in enumerate(order.split(torch.bincount(labels, minlength=k).tolist())):
        kept = members[:0]
        extra = torch.zeros(0, k, dtype=samples.dtype, device=samples.device)
        for part in members.split(samples.rows):
            cost = squared_distances(samples.take(part), centers)
            extra = torch.cat([extra, cost - cost[:, cluster, None]])
            kept = torch.cat([kept, part])
            if len(kept) > each:
                value, row = torch.topk(extra, each, dim=0, largest=False)
                limit[cluster] = torch.minimum(limit[cluster], value[-1].double())
                row = row.flatten().unique()
                kept, extra = kept[row], extra[row]
        positions.append(kept)
        costs.append(extra)
    all_reduce(limit, samples.group, dist.ReduceOp.MIN)
    return torch.cat(positions), torch.cat(costs).double(), limit.cpu().numpy()


def repair(samples: Samples, centers: Tensor, prices: Tensor, labels: Tensor, problem: Problem) -> None:
    """Bring the sizes inside the bounds at the least cost, in ``labels``; every process works out the same moves."""
    k, group = len(centers), samples.group
    found = samples.scan(centers, prices.to(samples.dtype), 1.0, labels)
    counts = found.counts.long().cpu().numpy()
    support = prices.cpu().numpy()
    sizes = desired_sizes(support, counts, problem.low, problem.high, samples.total)
    while (counts != sizes).any():
        chosen, cost, limit = _offer(samples, centers, labels, torch.from_numpy(counts))
        ranks = 1 if group is None else dist.get_world_size(group)
        here = 0 if group is None else dist.get_rank(group)
        rows = torch.zeros(ranks, dtype=torch.int64, device=samples.device)
        rows[here] = len(chosen)
        rows = all_reduce(rows, group).tolist()
        own = slice(sum(rows[:here]), sum(rows[: here + 1]))
        table = torch.zeros(sum(rows), k + 1, dtype=torch.float64, device=samples.device)
        table[own, :k], table[own, k] = cost, labels[chosen].double()
        table = all_reduce(table, group).cpu().numpy()
        state = Exchange(
            table[:, :k], table[:, k].astype(np.int64), counts, sizes, support, problem.low, problem.high, limit
        )
        done = exchange(state)
        support = state.prices
        labels[chosen] = torch.from_numpy(state.labels[own]).to(labels.device)
        if done:
            break
