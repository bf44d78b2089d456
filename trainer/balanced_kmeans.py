"""Balanced k-means: clusters of equal size (or of sizes inside bounds), a million samples at a time.

A start is made by annealing on a random subset, see :func:`_anneal`. Small problems then alternate exact assignments
and means. Large ones stream over all samples in blocks: every pass assigns by distance + price, moves the centres to
the means and the prices towards balance, and one exact repair at the end moves the few samples still over. Over
several processes (:func:`fit_distributed`) only sums, counts, prices and the samples to repair travel.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.cluster import kmeans_plusplus
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from trainer.balanced_assignment import (
    Exchange,
    desired_sizes,
    exchange,
    newton_price_step,
    soft_price_step,
)

_EXACT_SAMPLES = 20_000  # up to here, and to this many distances, every assignment is exact
_EXACT_DISTANCES = 2**20
_SUBSET_PER_CLUSTER = 100  # samples for the start of a large problem
_STARTS = 3  # a small problem is solved so many times for each of n_init, and the best kept
_WARMER = (1.0, 8.0, 64.0)  # multiples of the temperature at which the curvature is measured
_BALANCED = 0.02  # share of the samples that may be too many before the centres move
_BALANCE_PASSES = 5  # passes to get there, per iteration
_PATIENCE = 3  # iterations without a gain before a large problem stops
_SETTLE_PASSES = 12  # passes over all samples with fixed centres before the repair
_SETTLED = 5e-4  # share of the samples that is left to the repair
_REPAIR_ROWS = 2**17  # samples offered to the repair, about


class _Sums(NamedTuple):
    """Of one pass over the samples of all processes: sizes, sums, summed least cost, curvature of the dual."""

    counts: Tensor
    sums: Tensor
    value: float
    curvature: Tensor


def _all_reduce(tensor: Tensor, group: dist.ProcessGroup | None, op: dist.ReduceOp = dist.ReduceOp.SUM) -> Tensor:
    if group is not None:
        dist.all_reduce(tensor, op=op, group=group)
    return tensor


def _broadcast(tensor: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """What the first process has, so that rounding on unlike machines cannot part them."""
    if group is not None:
        dist.broadcast(tensor, dist.get_global_rank(group, 0), group=group)
    return tensor


def _as_tensor(X: np.ndarray | Tensor) -> Tensor:
    if isinstance(X, Tensor):
        return X
    if any(stride < 0 for stride in X.strides) or not X.dtype.isnative:
        X = np.ascontiguousarray(X, dtype=X.dtype.newbyteorder("="))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.asarray(X))


class _Samples:
    """This process's samples, read as centred float blocks on one device.

    Attributes:
        size, start, total: samples here, in the processes before, in all.
        mean: (d,) mean over all processes, subtracted from every block.
        scatter: sum of squared distances to it.
    """

    def __init__(self, X: np.ndarray | Tensor, device: torch.device, group: dist.ProcessGroup | None) -> None:
        self.data = _as_tensor(X)
        self.device, self.group = device, group
        self.dtype = torch.float64 if self.data.dtype == torch.float64 else torch.float32
        self.size, self.features = self.data.shape
        if device.type == "cuda" and self.data.device != device:
            free, _ = torch.cuda.mem_get_info(device)
            if self.data.numel() * self.data.element_size() < free // 2:
                self.data = self.data.to(device)
        self.sparse = 8 if self.size >= 2**15 else 1  # the curvature is measured on every eighth sample
        self.rows = 4096 if device.type == "cpu" else max(4096, 2**26 // self.features)
        sizes = torch.zeros(1 if group is None else dist.get_world_size(group), dtype=torch.int64, device=device)
        rank = 0 if group is None else dist.get_rank(group)
        sizes[rank] = self.size
        _all_reduce(sizes, group)
        self.start, self.total = int(sizes[:rank].sum()), int(sizes.sum())
        self.mean = torch.zeros(self.features, dtype=self.dtype, device=device)
        moment = torch.zeros(self.features, dtype=torch.float64, device=device)
        for _, x in self.blocks():
            moment += x.double().sum(0)
        self.mean = (_all_reduce(moment, group) / self.total).to(self.dtype)
        scatter = torch.zeros((), dtype=torch.float64, device=device)
        for _, x in self.blocks():
            scatter += x.square().sum(1).sum(dtype=torch.float64)
        self.scatter = float(_all_reduce(scatter, group))

    def take(self, index: slice | Tensor) -> Tensor:
        """(b, d) centred samples of these positions."""
        if isinstance(index, Tensor):
            index = index.to(self.data.device)
        return self.data[index].to(self.device, self.dtype) - self.mean

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, self.size, self.rows):
            part = slice(start, min(start + self.rows, self.size))
            yield part, self.take(part)

    def everywhere(self, index: Tensor) -> Tensor:
        """(len(index), d) centred samples of these positions among all, given to every process."""
        own = (index >= self.start) & (index < self.start + self.size)
        out = torch.zeros(len(index), self.features, dtype=self.dtype, device=self.device)
        out[own.to(self.device)] = self.take(index[own] - self.start)
        return _all_reduce(out, self.group)

    def scan(self, centers: Tensor, prices: Tensor, temperature: float, labels: Tensor) -> _Sums:
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
            sample = cost[:: self.sparse].div_(-temperature)
            for level, factor in enumerate(_WARMER):
                share = torch.softmax(sample / factor, 1)
                curvature[level] -= share.T @ share
                curvature[level].diagonal().add_(share.sum(0))
            seen += len(sample)
        packed = torch.cat([counts, sums.flatten(), value, curvature.flatten(), seen])
        _all_reduce(packed, self.group)
        counts, sums, value, curvature, seen = packed.split([k, sums.numel(), 1, curvature.numel(), 1])
        widths = temperature * counts.new_tensor(_WARMER)[:, None, None]
        curvature = curvature.view(-1, k, k) * (self.total / seen.clamp(min=1)) / widths
        return _Sums(counts, sums.view(k, -1), float(value), curvature)


def _squared_distances(x: Tensor, centers: Tensor) -> Tensor:
    return torch.addmm(centers.square().sum(1), x, centers.T, alpha=-2).add_(x.square().sum(1, keepdim=True))


def _anneal(
    x: Tensor, centers: Tensor, low: Tensor, high: Tensor, steps: int = 25
) -> tuple[Tensor, Tensor, float, float]:
    """Soft balanced k-means from a high to a low temperature, in units of the median gap between best and second.

    Args:
        x: (m, d) samples.
        centers: (k, d).
        low, high: (k,) bounds, floating, for m samples.

    Returns:
        Centres, prices, last temperature and the dual value (sum of squared distances, smoothed, at these centres).

    References:
        Rose, Deterministic annealing for clustering, compression, classification, regression, 1998.
    """
    prices = torch.zeros_like(low)
    temperature = value = 0.0
    for factor in np.geomspace(3.0, 0.1, steps):
        cost = _squared_distances(x, centers)
        if len(centers) > 1:
            nearest = torch.topk(cost + prices, 2, largest=False).values
            temperature = float((nearest[:, 1] - nearest[:, 0]).median()) * float(factor)
        floor = 1e-6 * float(cost.mean())  # many equal samples: no gap to measure
        temperature = max(temperature, floor, torch.finfo(x.dtype).tiny)
        last = factor == 0.1
        for _ in range(30 if last else 2):
            share = torch.softmax(-(cost + prices) / temperature, 1)
            prices = soft_price_step(prices, share.sum(0), temperature, low, high)
        logits = -(cost + prices) / temperature
        share = torch.softmax(logits, 1)
        value = -temperature * float(torch.logsumexp(logits, 1).sum(dtype=torch.float64))
        value -= float((prices.clamp(min=0) * high + prices.clamp(max=0) * low).sum())
        size = share.sum(0)[:, None]
        centers = torch.where(size > 1e-3, share.T @ x / size.clamp(min=1e-3), centers)
    return centers, prices, temperature, value


@dataclass
class _Problem:
    """What to solve: integer bounds (k,), and when to stop."""

    low: np.ndarray
    high: np.ndarray
    max_iter: int
    tol: float

    def soft_bounds(self, n: int, total: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds for n of the samples; equal where the sizes can differ by one at most."""
        k = len(self.low)
        low, high = (self.low, self.high) if np.any(self.high - self.low > 1) else (total / k, total / k)
        make = lambda bound: like.new_tensor(np.broadcast_to(bound, k) * (n / total))  # noqa: E731
        return make(low), make(high)


def _fit_exact(x: Tensor, centers: Tensor, prices: Tensor, problem: _Problem) -> tuple[Tensor, Tensor, float, int]:
    """Lloyd's algorithm with exact assignments: labels (n,), centres (k, d), inertia, iterations. ``x`` is float64."""
    n, k = len(x), len(centers)
    inertia = np.inf
    support = prices.double().numpy()
    best: tuple[Tensor, Tensor] | None = None
    for iteration in range(1, problem.max_iter + 1):  # noqa: B007
        cost = _squared_distances(x, centers).numpy()
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
        if gain > 0 or best is None:
            best = assigned, centers
        if gain <= problem.tol * inertia:
            break
    return *best, inertia, iteration


@dataclass
class _Descent:
    """Centres and prices on their way, over all samples."""

    samples: _Samples
    centers: Tensor
    prices: Tensor
    temperature: float
    low: Tensor
    high: Tensor
    labels: Tensor
    caution: float = 1.0  # weight of the curvature at the warmer temperatures, which see further

    def look(self, prices: Tensor) -> tuple[_Sums, float, float]:
        """One pass at these prices: its sums, the dual value, the share of samples that are too many somewhere."""
        found = self.samples.scan(self.centers, prices.to(self.samples.dtype), self.temperature, self.labels)
        bound = float((prices.clamp(min=0) * self.high + prices.clamp(max=0) * self.low).sum())
        over = (found.counts - self.high).clamp(min=0).sum() + (self.low - found.counts).clamp(min=0).sum()
        return found, found.value + self.samples.scatter - bound, float(over) / self.samples.total

    def step(self, found: _Sums) -> Tensor:
        """Prices after a step from the current ones, where ``found`` was seen."""
        curvature = found.curvature[0] + self.caution * found.curvature[1:].sum(0)
        after = newton_price_step(self.prices, found.counts, curvature, self.low, self.high)
        return _broadcast(after, self.samples.group)

    def balance(self, seen: tuple[_Sums, float, float], passes: int, share: float) -> tuple[_Sums, float, float]:
        """Climb the dual with the centres where they are, until no more than ``share`` of the samples are over."""
        for _ in range(passes):
            if seen[2] <= share:
                break
            trial = self.step(seen[0])
            there = self.look(trial)
            if there[1] >= seen[1]:
                seen, self.prices = there, trial
                self.caution = max(self.caution / 1.5, 0.1)
            else:
                self.caution = min(self.caution * 4, 100.0)
        return seen


def _lloyd(
    samples: _Samples, centers: Tensor, prices: Tensor, temperature: float, problem: _Problem
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Passes over all samples that move centres and prices together, then prices only: labels, both, iterations."""
    low, high = problem.soft_bounds(samples.total, samples.total, prices.double())
    labels = torch.zeros(samples.size, dtype=torch.int64, device=samples.device)
    way = _Descent(samples, centers, prices.double(), temperature, low, high, labels)
    seen = way.look(way.prices)
    best, stale = np.inf, 0
    for iteration in range(1, problem.max_iter + 1):  # noqa: B007
        seen = way.balance(seen, _BALANCE_PASSES, _BALANCED)
        found, value, over = seen
        size = found.counts[:, None]
        moved = torch.where(size > 0, found.sums / size.clamp(min=1), way.centers.double())
        gain = float((size * (moved - way.centers).square()).sum())  # by this much the squared distances fall
        prices, way.centers = way.prices, moved.to(samples.dtype)
        if over <= _BALANCED:
            way.prices = way.step(found)
        seen = way.look(way.prices)
        if over <= _BALANCED and seen[2] > 5 * _BALANCED:
            way.prices = prices
            seen = way.look(prices)
        stale = 0 if value < best * (1 - problem.tol) else stale + 1
        best = min(best, value)
        if gain <= problem.tol * value or stale == _PATIENCE:
            break
    way.balance(seen, _SETTLE_PASSES, _SETTLED)
    return labels, way.centers, way.prices, iteration


def _offer(samples: _Samples, centers: Tensor, labels: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, np.ndarray]:
    """Samples that the repair may move: for every pair of clusters (a, b), the cheapest of a to go to b.

    Returns:
        Positions here (m,), their distances to all centres (m, k), and ``limit`` of :class:`Exchange`.
    """
    k = len(centers)
    each = max(8, _REPAIR_ROWS // (k * max(1, int((counts > 0).sum()))))
    limit = torch.full((k, k), torch.inf, dtype=torch.float64, device=samples.device)
    order = torch.argsort(labels, stable=True)
    positions = []
    for cluster, members in enumerate(order.split(torch.bincount(labels, minlength=k).tolist())):
        kept = members[:0]
        extra = torch.zeros(0, k, dtype=samples.dtype, device=samples.device)
        for part in members.split(samples.rows):
            cost = _squared_distances(samples.take(part), centers)
            extra = torch.cat([extra, cost - cost[:, cluster, None]])
            kept = torch.cat([kept, part])
            if len(kept) > each:
                value, row = torch.topk(extra, each, dim=0, largest=False)
                limit[cluster] = torch.minimum(limit[cluster], value[-1].double())
                row = row.flatten().unique()
                kept, extra = kept[row], extra[row]
        positions.append(kept)
    _all_reduce(limit, samples.group, dist.ReduceOp.MIN)
    chosen = torch.cat(positions)
    return chosen, _squared_distances(samples.take(chosen), centers).double(), limit.cpu().numpy()


def _repair(samples: _Samples, centers: Tensor, prices: Tensor, labels: Tensor, problem: _Problem) -> None:
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
        rows = _all_reduce(rows, group).tolist()
        own = slice(sum(rows[:here]), sum(rows[: here + 1]))
        table = torch.zeros(sum(rows), k + 1, dtype=torch.float64, device=samples.device)
        table[own, :k], table[own, k] = cost, labels[chosen].double()
        table = _all_reduce(table, group).cpu().numpy()
        state = Exchange(
            table[:, :k], table[:, k].astype(np.int64), counts, sizes, support, problem.low, problem.high, limit
        )
        done = exchange(state)
        support = state.prices
        labels[chosen] = torch.from_numpy(state.labels[own]).to(labels.device)
        if done:
            break


class BalancedKMeans(ClusterMixin, BaseEstimator):
    """k-means whose clusters all have floor(n / k) or ceil(n / k) samples, or sizes inside given bounds.

    It minimises the sum of squared distances to the cluster means under bounds on the sizes, whatever the data
    (equal samples and constant features included). Blocks of samples are converted as they are read, so that a memory
    map of float16 takes no more memory than the map.

    Parameters
    ----------
    n_clusters : int
        Number of clusters k, at most the number of samples.
    size_min, size_max : int or None
        Bounds on the sizes. Both None: floor(n / k) and ceil(n / k). One given: the other side is open.
    init : {"k-means++", "random"} or array of shape (k, d)
        Where the annealed start begins; an array is taken as it is, without annealing.
    n_init : int
        Number of starts, of which the best goes on. A small problem makes four times as many.
    max_iter : int
        Largest number of iterations over all samples.
    tol : float
        Stop when an iteration lowers the inertia by less than this share.
    random_state : int, RandomState or None
        Seed; the same seed gives the same result on the same machine.
    device : {"auto", "cpu", "cuda"} or torch.device
        Where to compute. "auto" is CUDA where there is one. Small problems are always computed on the CPU.

    Attributes
    ----------
    labels_ : ndarray of shape (n,), int32
        Cluster of every sample.
    cluster_centers_ : ndarray of shape (k, d)
        Means of the clusters.
    inertia_ : float
        Sum of squared distances of the samples to the means of their clusters.
    n_iter_ : int
        Iterations over all samples.
    n_features_in_ : int
        d.

    References
    ----------
    Malinen & Fränti, Balanced K-Means for Clustering, S+SSPR 2014 (the problem); method.md section 7 (its use).
    The prices are those of Bertsekas, Auction algorithms, 1992, and Mérigot, A multiscale approach to optimal
    transport, 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from trainer.balanced_kmeans import BalancedKMeans
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [50.0]])
    >>> model = BalancedKMeans(n_clusters=2, random_state=0).fit(X)
    >>> np.bincount(model.labels_).tolist()
    [3, 3]
    >>> round(model.inertia_, 1)
    1382.0
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        size_min: int | None = None,
        size_max: int | None = None,
        init: str | np.ndarray = "k-means++",
        n_init: int = 1,
        max_iter: int = 100,
        tol: float = 1e-5,
        random_state: int | np.random.RandomState | None = None,
        device: str | torch.device = "auto",
    ) -> None:
        self.n_clusters = n_clusters
        self.size_min = size_min
        self.size_max = size_max
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.device = device

    def fit(self, X: np.ndarray | Tensor, y: None = None, sample_weight: np.ndarray | None = None) -> BalancedKMeans:
        """Cluster X of shape (n, d): an array or memory map of floats, or a tensor. ``y`` is ignored.

        Raises:
            ValueError: ``sample_weight`` is given, a parameter is out of its range, the bounds do not admit n samples,
                or X holds NaN or infinity.
        """
        if sample_weight is not None:
            raise ValueError("BalancedKMeans counts every sample once: sample_weight is not supported, leave it out")
        return self._fit(self._validated(X, reset=True), None)

    def predict(self, X: np.ndarray | Tensor) -> np.ndarray:
        """Nearest centre of every sample of X (n, d), no regard to sizes: (n,) int32."""
        check_is_fitted(self)
        data = _as_tensor(self._validated(X, reset=False))
        centers = torch.from_numpy(self.cluster_centers_)
        offset = centers.mean(0)
        labels = np.empty(len(data), dtype=np.int32)
        for start in range(0, len(data), 4096):
            x = data[start : start + 4096].to(centers) - offset
            labels[start : start + 4096] = _squared_distances(x, centers - offset).argmin(1).numpy()
        return labels

    def _validated(self, X: np.ndarray | Tensor, reset: bool) -> np.ndarray | Tensor:
        if isinstance(X, Tensor) and (X.is_cuda or X.dtype == torch.bfloat16):
            if X.ndim != 2 or not X.is_floating_point() or not bool(torch.isfinite(X).all()):
                raise ValueError(f"X must be a finite floating tensor of shape (n, d), not {tuple(X.shape)} {X.dtype}")
            if reset:
                self.n_features_in_ = X.shape[1]
            elif X.shape[1] != self.n_features_in_:
                raise ValueError(f"X has {X.shape[1]} features, but {self.n_features_in_} were seen by fit")
            return X
        if isinstance(X, Tensor):
            X = X.detach().numpy()
        return validate_data(self, X, reset=reset, dtype=[np.float64, np.float32, np.float16])

    def _problem(self, n: int) -> _Problem:
        k = self.n_clusters
        for name in ("n_clusters", "n_init", "max_iter"):
            if not isinstance(getattr(self, name), (int, np.integer)) or getattr(self, name) < 1:
                raise ValueError(f"{name} must be an integer of at least 1, not {getattr(self, name)!r}")
        if not self.tol >= 0:
            raise ValueError(f"tol must be at least 0, not {self.tol!r}")
        if n < k:
            raise ValueError(f"n_samples={n} should be >= n_clusters={k}")
        open_ended = self.size_min is not None or self.size_max is not None
        low = (0 if open_ended else n // k) if self.size_min is None else int(self.size_min)
        high = (n if open_ended else -(-n // k)) if self.size_max is None else int(self.size_max)
        if not 0 <= low <= high or low * k > n or high * k < n:
            raise ValueError(
                f"size_min={self.size_min}, size_max={self.size_max}: {k} clusters of {low} to {high} samples cannot "
                f"hold {n} samples"
            )
        return _Problem(np.full(k, low), np.full(k, min(high, n)), int(self.max_iter), float(self.tol))

    def _device(self) -> torch.device:
        if str(self.device) == "auto":
            return (
                torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
            )
        device = torch.device(self.device)
        if device.type == "cuda":
            if not torch.cuda.is_available():
                raise ValueError(f"device={self.device!r}, but torch sees no CUDA device: take device='cpu' or 'auto'")
            if device.index is None:
                device = torch.device("cuda", torch.cuda.current_device())
        return device

    def _start(self, x: Tensor, mean: Tensor, rng: np.random.RandomState) -> Tensor:
        """(k, d) centres to begin with, centred like ``x`` (m, d)."""
        k = self.n_clusters
        if isinstance(self.init, str) and self.init == "k-means++":
            found, _ = kmeans_plusplus(x.cpu().numpy(), k, random_state=rng)
            return torch.from_numpy(found).to(x)
        if isinstance(self.init, str) and self.init == "random":
            return x[torch.from_numpy(rng.choice(len(x), k, replace=False)).to(x.device)]
        if isinstance(self.init, str):
            raise ValueError(f"init must be 'k-means++', 'random' or an array, not {self.init!r}")
        centers = torch.as_tensor(np.asarray(self.init, dtype=np.float64))
        if centers.shape != (k, x.shape[1]):
            raise ValueError(
                f"init has shape {tuple(centers.shape)}, but (n_clusters, n_features) is {(k, x.shape[1])}"
            )
        return centers.to(x) - mean.to(x)

    def _fit(self, X: np.ndarray | Tensor, group: dist.ProcessGroup | None) -> BalancedKMeans:
        samples = _Samples(X, self._device(), group)
        n, k = samples.total, self.n_clusters
        problem = self._problem(n)
        rng = check_random_state(self.random_state)
        seed = torch.tensor([rng.randint(2**31 - 1)], device=samples.device)
        rng = np.random.RandomState(int(_broadcast(seed, group)))
        exact = n <= _EXACT_SAMPLES and n * k <= _EXACT_DISTANCES
        subset = n if exact else min(n, max(4096, _SUBSET_PER_CLUSTER * k))
        chosen = np.arange(n) if subset == n else np.sort(rng.choice(n, subset, replace=False))
        x = samples.everywhere(torch.from_numpy(chosen))
        if exact:
            x = x.cpu().double()
        low, high = problem.soft_bounds(len(x), n, x)
        starts = self.n_init * (_STARTS if exact else 1) if isinstance(self.init, str) else 1
        found = [_anneal(x, self._start(x, samples.mean, rng), low, high) for _ in range(starts)]
        if exact:
            solved = [_fit_exact(x, centers, prices, problem) for centers, prices, _, _ in found]
            everyone, centers, inertia, self.n_iter_ = min(solved, key=lambda result: result[2])
            labels = _broadcast(everyone.to(samples.device), group)[samples.start : samples.start + samples.size]
        else:
            centers, prices, temperature, _ = min(found, key=lambda start: start[3])
            centers, prices = _broadcast(centers, group), _broadcast(prices, group)
            labels, centers, prices, self.n_iter_ = _lloyd(samples, centers, prices, temperature, problem)
            _repair(samples, centers, prices, labels, problem)
            centers, inertia = _means(samples, labels, centers)
        self.labels_ = labels.cpu().numpy().astype(np.int32)
        kind = torch.float64 if samples.dtype == torch.float64 else torch.float32
        self.cluster_centers_ = (centers.cpu().double() + samples.mean.cpu().double()).to(kind).numpy()
        self.inertia_ = float(inertia)
        return self


def _means(samples: _Samples, labels: Tensor, centers: Tensor) -> tuple[Tensor, float]:
    """Means of the clusters (k, d) in float64, an empty one keeps its centre, and the inertia."""
    k = len(centers)
    sums = torch.zeros(k, samples.features + 1, dtype=torch.float64, device=samples.device)
    for part, x in samples.blocks():
        sums[:, :-1] += torch.nn.functional.one_hot(labels[part], k).to(x.dtype).T @ x
        sums[:, -1] += torch.bincount(labels[part], minlength=k)
    size = _all_reduce(sums, samples.group)[:, -1:]
    means = torch.where(size > 0, sums[:, :-1] / size.clamp(min=1), centers.double())
    inertia = torch.zeros((), dtype=torch.float64, device=samples.device)
    near = means.to(samples.dtype)
    for part, x in samples.blocks():
        inertia += (x - near[labels[part]]).square().sum(1).sum(dtype=torch.float64)
    return means, float(_all_reduce(inertia, samples.group))


def fit_distributed(
    model: BalancedKMeans, X: np.ndarray | Tensor, group: dist.ProcessGroup | None = None
) -> BalancedKMeans:
    """Fit over several processes, each with samples of its own; the same result as one process with all of them.

    Every process calls it. Samples stay where they are, but for a random subset for the start and the few that the
    repair may move; centres, counts and prices travel by all_reduce.

    Args:
        model: the same parameters everywhere; the seed is taken from the first process.
        X: (n of this process, d); may be empty (0, d).
        group: process group, the default one if None. NCCL groups need ``device="cuda"``, gloo groups ``"cpu"``.

    Returns:
        ``model``, fitted: ``labels_`` of this process's samples, all else of all samples.
    """
    if len(X):
        X = model._validated(X, reset=True)
    else:
        model.n_features_in_ = X.shape[1]
    return model._fit(X, dist.group.WORLD if group is None else group)
