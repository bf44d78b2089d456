"""Assign samples to fixed centres under bounds on the cluster sizes: prices first, an exact repair after them.

This is a transport problem: every sample goes to one cluster, cluster ``j`` takes between ``low[j]`` and ``high[j]``
samples, the sum of squared distances is least. Its dual has one price per cluster, and a sample goes to the cluster of
least squared distance + price. :func:`soft_price_step` and :func:`newton_price_step` climb the dual; :func:`exchange`
moves the samples that are still over along shortest paths between the clusters, cheapest first, and is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def soft_price_step(prices: Tensor, soft: Tensor, temperature: float, low: Tensor, high: Tensor) -> Tensor:
    """Sinkhorn step: the prices at which every cluster's soft size would be inside its bounds, others unchanged.

    Parameters
    ----------
    prices
        (k,).
    soft
        (k,) soft sizes, the column sums of softmax(-(distances + prices) / temperature).
    temperature
        In units of the squared distance.
    low, high
        (k,) bounds, floating.

    Returns
    -------
    prices
        (k,) new prices; a cluster whose bounds do not bind has price 0.

    References
    ----------
    Cuturi, Sinkhorn distances: lightspeed computation of optimal transport, NeurIPS 2013.
    """
    log_soft = soft.clamp(min=1e-30).log()
    to_high = prices + temperature * (log_soft - high.log())
    to_low = prices + temperature * (log_soft - low.clamp(min=1e-30).log())
    return torch.maximum(to_high, torch.minimum(to_low, torch.zeros_like(prices)))


def newton_price_step(prices: Tensor, counts: Tensor, curvature: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Newton step on the dual: gradient from the sizes, curvature from soft assignments at a temperature.

    Parameters
    ----------
    prices
        (k,).
    counts
        (k,) sizes at these prices.
    curvature
        (k, k) minus the derivative of the sizes by the prices; for soft assignments P at a temperature t
        that is (diag(sum P) - P^T P) / t.
    low, high
        (k,) bounds, floating; equal for clusters that are to have exactly this (mean) size.

    Returns
    -------
    prices
        (k,) new prices.
    """
    k = len(prices)
    tied = bool((low == high).all())
    wanted = counts.clamp(low, high)
    if not tied:
        wanted = torch.where(prices > 0, high, torch.where(prices < 0, low, wanted))
    residual = counts - wanted
    scale = curvature.diagonal().mean().clamp(min=1e-30)
    curvature = curvature.clone()
    curvature.diagonal().add_(1e-6 * scale)
    if tied:
        curvature += scale / k  # the level is free: all may rise together
    else:
        still = (prices == 0) & (residual == 0)
        curvature[still] = 0
        curvature[:, still] = 0
        curvature.diagonal()[still] = 1
    step = torch.linalg.solve_ex(curvature, residual)[0].nan_to_num(0.0)
    moved = prices + step
    if tied:
        return moved - moved.mean()
    return torch.where(moved * prices < 0, torch.zeros_like(moved), moved)


def follow(prices: Tensor, moves: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Prices (k,) under which the sizes stay about what they were when the centres make these ``moves`` (k, d).

    A centre that goes to the mean of its samples comes nearer to them by the square of its way, on average over their
    squared distances: by so much its price rises, where its size is given (``low`` equal to ``high``).
    """
    return torch.where(low == high, prices + moves.square().sum(1), prices)


def desired_sizes(prices: np.ndarray, counts: np.ndarray, low: np.ndarray, high: np.ndarray, n: int) -> np.ndarray:
    """Sizes that complementary slackness asks of the clusters at these prices.

    A cluster dearer than the free ones is sought after and gets ``high``, a cheaper one gets ``low``. Where the bounds
    are at most one apart the price of a free cluster is not known beforehand: the dearest get the samples left over.

    Parameters
    ----------
    prices
        (k,).
    counts
        (k,) samples that choose the cluster at these prices.
    low, high
        (k,) integer bounds.
    n
        Number of samples.

    Returns
    -------
    sizes
        (k,) integers inside the bounds.
    """
    if np.all(high - low <= 1):
        sizes = low.copy()
        dearest = np.argsort(-prices, kind="stable")
        sizes[dearest[(high > low)[dearest]][: n - int(low.sum())]] += 1
        return sizes
    return np.where(prices > 0, high, np.where(prices < 0, low, np.clip(counts, low, high)))


@dataclass
class Exchange:
    """What :func:`exchange` works on; all but ``cost``, ``low``, ``high`` and ``limit`` is changed in place.

    Attributes
    ----------
    cost
        (m, k) squared distances of the samples that may move, up to a constant per sample.
    labels
        (m,) their clusters.
    counts
        (k,) sizes of the clusters, samples that may not move included.
    sizes
        (k,) sizes aimed at, see :func:`desired_sizes`.
    prices
        (k,) prices at which every sample is where it is cheapest; optimal ones at the end.
    low, high
        (k,) integer bounds.
    limit
        (k, k) no sample outside ``cost`` moves from a to b for less; None where there are no others.
    """

    cost: np.ndarray
    labels: np.ndarray
    counts: np.ndarray
    sizes: np.ndarray
    prices: np.ndarray
    low: np.ndarray
    high: np.ndarray
    limit: np.ndarray | None = None

    def cheapest_moves(self, cluster: int) -> np.ndarray:
        """(k,) least extra cost of moving a sample of ``cluster`` to each other one; inf where there is none."""
        moves = self.extra(self.members(cluster), cluster).min(axis=0, initial=np.inf)
        moves[cluster] = np.inf
        return moves

    def members(self, cluster: int) -> np.ndarray:
        """Samples of ``cluster``, in their order."""
        return (self.labels == cluster).nonzero()[0]

    def extra(self, rows: np.ndarray, cluster: int) -> np.ndarray:
        """(len(rows), k) extra cost of these samples of ``cluster`` elsewhere."""
        return self.cost[rows] - self.cost[rows, cluster, None]

    def move(self, rows: np.ndarray, a: int, b: int, moves: np.ndarray) -> None:
        """Samples ``rows`` from a to b; ``moves``, whose rows are :meth:`cheapest_moves`, is kept up to date."""
        k = len(self.counts)
        left = self.extra(rows, a).min(axis=0) <= moves[a, :k]  # to these clusters they were the cheapest to move
        self.labels[rows] = b
        self.counts[a] -= len(rows)
        self.counts[b] += len(rows)
        staying = self.members(a)
        left[a] = False
        columns = left.nonzero()[0]
        moves[a, columns] = (self.cost[np.ix_(staying, columns)] - self.cost[staying, a, None]).min(0, initial=np.inf)
        np.minimum(moves[b, :k], self.extra(rows, b).min(axis=0), out=moves[b, :k])
        moves[b, b] = np.inf


def _shortest_paths(edges: np.ndarray, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bellman-Ford over non-negative (k, k) edges from all ``sources``: distances and predecessors (-1 at sources)."""
    nodes = np.arange(len(edges))
    distance = np.where(sources, 0.0, np.inf)
    previous = np.full(len(edges), -1)
    fresh = np.flatnonzero(sources)
    while len(fresh):
        through = distance[fresh, None] + edges[fresh]
        best = through.argmin(axis=0)
        reached = through[best, nodes]
        better = reached < distance
        distance[better] = reached[better]
        previous[better] = fresh[best[better]]
        fresh = np.flatnonzero(better)
    return distance, previous


def _hops(previous: np.ndarray, end: int) -> list[tuple[int, int]]:
    """Pairs of neighbours on the path to ``end``, from its source on."""
    path = [end]
    while previous[path[-1]] >= 0:
        path.append(int(previous[path[-1]]))
    path.reverse()
    return list(zip(path[:-1], path[1:], strict=True))


def _send(
    state: Exchange, hops: list[tuple[int, int]], amount: int, moves: np.ndarray, seen: np.ndarray, tolerance: float
) -> int:
    """Move up to ``amount`` samples along ``hops``, as far as each still costs what was ``seen``; how many went.

    ``moves`` (k + 1, k + 1) is kept up to date; its last row and column are the hub.
    """
    hub = len(state.counts)
    movers: dict[tuple[int, int], np.ndarray] = {}
    for a, b in hops:
        if b == hub:
            amount = min(amount, int(state.high[a] - state.sizes[a]))
        elif a == hub:
            amount = min(amount, int(state.sizes[b] - state.low[b]))
        elif moves[a, b] > seen[a, b] + tolerance:  # another path took the sample, or it is outside
            return 0
        else:
            members = state.members(a)
            extra = state.cost[members, b] - state.cost[members, a]
            movers[a, b] = members[extra <= moves[a, b] + tolerance]
            amount = min(amount, len(movers[a, b]))
    if not amount:
        return 0
    for a, b in hops:
        if b == hub:
            state.sizes[a] += amount
        elif a == hub:
            state.sizes[b] -= amount
        else:
            state.move(movers[a, b][:amount], a, b, moves)
    return amount


def exchange(state: Exchange) -> bool:
    """Move samples along cheapest paths from clusters with too many to clusters with too few.

    Successive shortest paths over the k clusters and a hub that hands out the sizes between the bounds: to every
    cluster with too few in turn, as long as no other path took what its own needs. Samples whose move costs the same
    go together. Exact where the start obeys complementary slackness: the labels are the cheapest
    at ``prices`` and the sizes are the :func:`desired_sizes`.

    Returns
    -------
    done
        True once every cluster has its size; False as soon as a sample outside ``cost`` might move for less.

    References
    ----------
    Ahuja, Magnanti & Orlin, Network Flows, 1993, section 9.7.
    """
    k = hub = len(state.counts)
    tolerance = 1e-12 * float(max(state.cost.max(initial=0.0), -state.cost.min(initial=0.0)))
    prices = np.append(state.prices, 0.0)
    if np.all(state.high - state.low <= 1):  # any price between the dearest at ``low`` and the cheapest at ``high``
        floor = state.prices[(state.sizes == state.low) & (state.high > state.low)]
        ceil = state.prices[(state.sizes == state.high) & (state.high > state.low)]
        prices[hub] = floor.max() if len(floor) else ceil.min() if len(ceil) else 0.0
    moves = np.full((k + 1, k + 1), np.inf)
    for cluster in range(k):
        moves[cluster, :k] = state.cheapest_moves(cluster)
    while True:
        seen = moves.copy()
        if state.limit is not None:
            np.minimum(seen[:k, :k], state.limit, out=seen[:k, :k])
        seen[:k, hub] = np.where(state.sizes < state.high, 0.0, np.inf)
        seen[hub, :k] = np.where(state.sizes > state.low, 0.0, np.inf)
        excess = np.append(state.counts - state.sizes, state.sizes.sum() - state.counts.sum())
        if not excess.any():
            state.prices = prices[:k] - prices[hub]
            return True
        distance, previous = _shortest_paths(np.maximum(seen + prices - prices[:, None], 0.0), excess > 0)
        ends = np.flatnonzero((excess < 0) & np.isfinite(distance))
        paths = [_hops(previous, int(end)) for end in ends[np.argsort(distance[ends], kind="stable")]]
        if any(hub not in hop and moves[hop] > seen[hop] for hop in paths[0]):
            state.prices = prices[:k] - prices[hub]
            return False
        prices -= np.minimum(distance, distance[ends].max())  # now no hop of the paths costs anything
        for hops in paths:
            start, end = hops[0][0], hops[-1][1]
            amount = _send(state, hops, int(min(excess[start], -excess[end])), moves, seen, tolerance)
            excess[start] -= amount
            excess[end] += amount
