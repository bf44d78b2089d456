"""From a start to balanced clusters: what :class:`trainer.balanced_kmeans.estimator.BalancedKMeans` is made of.

:func:`fit_exact` finishes a small problem with exact assignments. :func:`lloyd` streams over any number of samples,
on one process or on many, and :func:`repair` ends it: every pass assigns by squared distance + price; centres move to
the means, prices towards balance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from trainer.balanced_kmeans.assignment import Exchange, desired_sizes, exchange, follow, newton_price_step
from trainer.balanced_kmeans.distances import Distances, Found, squared_distances
from trainer.balanced_kmeans.samples import Samples, all_reduce, broadcast, gathered, means

OnIteration = Callable[[int, float], None]
"""Called after every iteration over all samples with its number and the inertia, about."""

_BALANCED = 0.03  # share of the samples that may be too many before the centres move
_BALANCE_PASSES = 4  # passes to get there, per iteration
_PATIENCE = 2  # iterations without a gain before a large problem stops
_SETTLE_ITERATIONS = 8  # iterations with less excess than _BALANCED, at most, after all others
_SETTLE_PASSES = 16  # passes over all samples with fixed centres before the repair
_SETTLED, _SETTLED_SAMPLES = 5e-3, 256  # share of the samples that is left to the repair, and how many, at most
_RIDGE = 256.0  # prices without soft samples move no further than this many temperatures, at a caution of 1
_CAUTION, _SETTLE_CAUTION, _MOST_CAUTION = 0.3, 0.1, 1e4  # least while centres move, least at the end, largest
_LEVELS = (2**14, 2**16, 2**18)  # samples that a far larger problem is solved on before all of them ...
_ROUGH = 10  # ... to a tolerance so many times as large
_REPAIR_ROWS, _REPAIR_SHARE = 2**14, 16  # samples offered to the repair at first, about, or one in so many if more ...
_REPAIR_ROOM = 2**26  # ... but at most so many distances, of all processes together


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


class Pass(NamedTuple):
    """What one pass over all samples finds at some prices: its sizes, the dual value, and the samples that a cluster
    has too many or too few, as a share of all."""

    found: Found
    dual: float
    excess_share: float


@dataclass
class Descent:
    """Prices on their way at the centres of ``distances``, and the labels (samples here,) at these prices."""

    distances: Distances
    prices: Tensor
    temperature: float
    low: Tensor
    high: Tensor
    labels: Tensor
    least_caution: float = _CAUTION
    caution: float = 1.0  # weight of the curvature at the warmer temperatures, which see further, and of a ridge

    def look(self, prices: Tensor) -> Pass:
        """One pass at these prices."""
        found = self.distances.assign(prices, self.labels)
        samples = self.distances.samples
        bound = float((prices.clamp(min=0) * self.high + prices.clamp(max=0) * self.low).sum())
        over = (found.counts - self.high).clamp(min=0).sum() + (self.low - found.counts).clamp(min=0).sum()
        return Pass(found, found.value + samples.scatter - bound, float(over) / samples.total)

    def step(self, found: Found, curvature: Tensor) -> Tensor:
        """Prices after a step from the current ones, where ``found`` and its ``curvature`` (levels, k, k) were seen."""
        k, samples = len(self.prices), self.distances.samples
        ridge = torch.eye(k).to(self.prices) * (samples.total / (k * _RIDGE * self.temperature))
        near, *far = curvature
        curvature = near + self.caution * (torch.stack(far).sum(0) + ridge)
        after = newton_price_step(self.prices, found.counts, curvature, self.low, self.high)
        return broadcast(after, samples.group)

    def balance(self, passes: int, share: float) -> Pass:
        """Climb the dual with the centres where they are, until the excess is no more than ``share``.

        Returned is the pass at the prices where the climb ends.
        """
        here = self.look(self.prices)
        climbed = True
        for _ in range(passes):
            if here.excess_share <= share:
                break
            if climbed:
                curvature = self.distances.curvature(here.found, self.temperature)
            trial = self.step(here.found, curvature)
            there = self.look(trial)
            climbed = there.dual >= here.dual
            if climbed:
                here, self.prices = there, trial
                self.caution = max(self.caution / 1.5, self.least_caution)
            else:
                self.caution = min(self.caution * 4, _MOST_CAUTION)
        return here if climbed else self.look(self.prices)

    def move(self) -> float:
        """Centres to the means of their samples, and prices after them; by how much the squared distances fall."""
        samples, centers = self.distances.samples, self.distances.centers
        moved, size = means(samples, self.labels, centers)
        way = moved - centers
        self.prices = broadcast(follow(self.prices, way, self.low, self.high), samples.group)
        self.distances.move(moved.to(samples.dtype))
        return float((size * way.square()).sum())

    def iterate(self, number: int, share: float, on_iteration: OnIteration | None) -> tuple[Pass, float]:
        """Prices towards an excess of ``share``, then centres to the means: the last pass, and what the move gained."""
        here = self.balance(_BALANCE_PASSES, share)
        gain = self.move()
        if on_iteration is not None:
            on_iteration(number, here.dual)
        return here, gain

    def settle(self, done: int, problem: Problem, on_iteration: OnIteration | None = None) -> tuple[Tensor, int]:
        """More iterations, of better balance, then prices, so that few samples are left to :func:`repair`.

        Returned are the sizes (k,) at the end and the iterations now, after the ``done`` ones.
        """
        share = min(_SETTLED, _SETTLED_SAMPLES / problem.total)
        self.least_caution = _SETTLE_CAUTION
        for iteration in range(done + 1, min(done + _SETTLE_ITERATIONS, problem.max_iter) + 1):
            here, gain = self.iterate(iteration, share, on_iteration)
            done = iteration
            if gain <= problem.tol * here.dual:
                break
        return self.balance(_SETTLE_PASSES, share).found.counts, done


def lloyd(
    samples: Samples,
    centers: Tensor,
    prices: Tensor,
    temperature: float,
    problem: Problem,
    on_iteration: OnIteration | None = None,
) -> tuple[Descent, int]:
    """Iterations over all samples that move prices towards balance, then centres to the means.

    Returns
    -------
    descent, iterations
        The last centres, prices that suit them, and labels from before the centres moved; the number of iterations.
    """
    low, high = problem.soft_bounds(samples.total, prices.double())
    labels = torch.zeros(samples.size, dtype=torch.int64, device=samples.device)
    descent = Descent(Distances(samples, centers), prices.double(), temperature, low, high, labels)
    best, stale = np.inf, 0
    for iteration in range(1, problem.max_iter + 1):  # noqa: B007
        here, gain = descent.iterate(iteration, _BALANCED, on_iteration)
        if here.excess_share <= _BALANCED:  # elsewhere the value is far below the inertia
            stale = 0 if here.dual < best * (1 - problem.tol) else stale + 1
            best = min(best, here.dual)
        if gain <= problem.tol * here.dual or stale == _PATIENCE:
            break
    return descent, iteration


def on_subsets(
    samples: Samples, centers: Tensor, prices: Tensor, temperature: float, problem: Problem, rng: np.random.RandomState
) -> tuple[Tensor, Tensor]:
    """Most of the way on random subsets, where a pass costs little: centres and prices after it."""
    rough = replace(problem, tol=_ROUGH * problem.tol)
    for size in _LEVELS:
        if samples.total <= 3 * size:
            break
        chosen = np.sort(rng.choice(samples.total, size, replace=False))
        middle = Samples(samples.everywhere(torch.from_numpy(chosen)), samples.device, None)
        descent, _ = lloyd(middle, centers - middle.mean, prices, temperature, rough)
        centers, prices = descent.distances.centers + middle.mean, descent.prices
    return centers, prices


def fit_exact(
    x: Tensor,
    centers: Tensor,
    prices: Tensor,
    temperature: float,
    problem: Problem,
    on_iteration: OnIteration | None = None,
) -> tuple[Tensor, Tensor, float, int]:
    """:func:`lloyd`, then exact assignments: labels (n,), centres (k, d) in float64, inertia, iterations."""
    n, k = len(x), len(centers)
    before = 0
    if problem.max_iter > 1:
        samples = Samples(x, x.device, None)
        rough = replace(problem, max_iter=problem.max_iter - 1)
        descent, before = lloyd(samples, centers - samples.mean, prices, temperature, rough, on_iteration)
        centers, prices = descent.distances.centers + samples.mean, descent.prices
    x, centers = x.double(), centers.double()
    norms = x.square().sum(1, keepdim=True)
    inertia = np.inf
    support = prices.double().numpy()
    best = torch.zeros(n, dtype=torch.int64), centers
    for iteration in range(before + 1, problem.max_iter + 1):  # noqa: B007
        cost = squared_distances(x, centers, norms).numpy()
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
        now = float(centers.index_select(0, assigned).sub_(x).square_().sum())
        gain, inertia = inertia - now, min(now, inertia)
        if gain > 0:
            best = assigned, centers
        if on_iteration is not None:
            on_iteration(iteration, inertia)
        if gain <= problem.tol * inertia:
            break
    return *best, inertia, iteration


def _offer(distances: Distances, prices: Tensor, labels: Tensor, rows: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """Samples that the repair may move: of every cluster those that would lose least elsewhere at these prices.

    Returns
    -------
    positions, costs, limit
        Positions here (m,), their distances to all centres (m, k) and ``limit`` of :class:`Exchange`.
    """
    samples, k = distances.samples, len(prices)
    loss = torch.empty(samples.size, dtype=torch.float64, device=samples.device)

    def lost(part: slice, cost: Tensor) -> None:
        paid, own = cost + prices, labels[part, None]
        stay = paid.gather(1, own)
        loss[part] = (paid.scatter_(1, own, torch.inf).amin(1, keepdim=True) - stay)[:, 0]

    distances.over_all(lost)
    lost_by = loss.cpu().numpy()
    of_cluster = labels.cpu().numpy().astype(np.min_scalar_type(k))  # a short type is sorted in a tenth of the time
    counts = np.bincount(of_cluster, minlength=k)
    members = np.split(np.argsort(of_cluster, kind="stable"), counts.cumsum()[:-1])
    each = max(8, rows // max(1, np.count_nonzero(counts)))
    reach = np.full(k, np.inf)
    for cluster, positions in enumerate(members):
        if len(positions) > each:
            members[cluster] = positions = np.sort(positions[lost_by[positions].argpartition(each - 1)[:each]])
            reach[cluster] = lost_by[positions].max()  # those left out lose no less
    chosen = torch.from_numpy(np.concatenate(members)).to(labels.device)
    reach = torch.from_numpy(reach).to(prices)
    limit = (all_reduce(reach, samples.group, dist.ReduceOp.MIN) + prices)[:, None] - prices
    return chosen, distances.at(chosen), limit.cpu().numpy()


def repair(distances: Distances, prices: Tensor, labels: Tensor, sizes: Tensor, problem: Problem) -> None:
    """Bring the sizes inside the bounds at the least cost, in ``labels``; every process works out the same moves.

    The ``labels`` are the cheapest ones at ``prices`` and the clusters of all processes have these ``sizes`` (k,).
    """
    samples, counts = distances.samples, sizes.long().cpu().numpy()
    support = prices.cpu().numpy()
    wanted = desired_sizes(support, counts, problem.low, problem.high, samples.total)
    share = min(1 / _REPAIR_SHARE, _REPAIR_ROOM / (len(counts) * samples.total))
    offered = max(_REPAIR_ROWS, int(samples.size * share))
    while (counts != wanted).any():
        chosen, cost, limit = _offer(distances, torch.from_numpy(support).to(prices), labels, offered)
        table, own = gathered(cost.double(), samples.group)
        given, _ = gathered(labels[chosen], samples.group)
        state = Exchange(
            table.cpu().numpy(), given.cpu().numpy(), counts, wanted, support, problem.low, problem.high, limit
        )
        before = np.abs(counts - wanted).sum()
        done = exchange(state)
        support = state.prices
        labels[chosen] = torch.from_numpy(state.labels[own]).to(labels.device)
        if done:
            break
        if np.abs(counts - wanted).sum() > 0.5 * before:  # these were too few
            offered *= 2
