"""Balanced k-means: clusters of equal size, or of sizes inside bounds, of a million samples and more.

A start is made by annealing on a random subset (``start``). Then prices and means alternate over all samples
(``descent``); small problems end with exact assignments and means. Over several processes (:func:`fit_distributed`)
only sums, counts, prices, the subset for the start and the few samples to repair travel.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from trainer.balanced_kmeans.descent import OnIteration, Problem, fit_exact, lloyd, on_subsets, repair
from trainer.balanced_kmeans.distances import squared_distances
from trainer.balanced_kmeans.samples import Samples, as_tensor, broadcast, inertia, means
from trainer.balanced_kmeans.start import CAREFUL, QUICK, Schedule, anneal, plus_plus
from trainer.balanced_kmeans.workers import in_order, workers

_EXACT_SAMPLES = 20_000  # up to here, and to this many distances, every assignment is exact
_EXACT_DISTANCES = 2**20
_SUBSET_PER_CLUSTER = 64  # samples for the start of a large problem
_STARTS = 3  # a small problem is begun with care, solved so many times for each of n_init, and the best kept ...
_STARTS_WORK = 2**24  # ... where no assignment takes more than so many products


class BalancedKMeans(ClusterMixin, BaseEstimator):
    """k-means whose clusters all have floor(n / k) or ceil(n / k) samples, or sizes inside given bounds.

    It minimises the sum of squared distances to the cluster means under bounds on the sizes, whatever the data
    (equal samples and constant features included). Of samples that take more than 256 MB as float32, blocks are
    converted as they are read, so that a memory map of float16 takes no more memory than the map.

    Parameters
    ----------
    n_clusters : int
        Number of clusters k, at most the number of samples.
    size_min, size_max : int or None
        Bounds on the sizes. Both None: floor(n / k) and ceil(n / k). One given: the other side is open.
    init : {"k-means++", "random"} or array of shape (k, d)
        Where the annealed start begins; an array is taken as it is, without annealing.
    n_init : int
        Number of starts, of which the best goes on. A cheap one makes three times as many.
    max_iter : int
        Largest number of iterations over all samples.
    tol : float
        Stop when an iteration lowers the inertia by less than this share.
    random_state : int, RandomState or None
        Seed; the same seed gives the same result on the same machine, on the CPU with any number of threads.
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
    >>> from trainer.balanced_kmeans.estimator import BalancedKMeans
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [50.0]])
    >>> model = BalancedKMeans(n_clusters=2, random_state=0).fit(X)
    >>> np.bincount(model.labels_).tolist()
    [3, 3]
    >>> round(model.inertia_, 1)
    1444.0
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
        tol: float = 1e-4,
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

    def fit(self, X: np.ndarray | Tensor, y: None = None, **unsupported: object) -> BalancedKMeans:
        """Cluster X of shape (n, d): an array or memory map of floats, or a tensor. ``y`` is ignored.

        Raises
        ------
        ValueError
            ``sample_weight`` is given, a parameter is out of its range, the bounds do not admit n samples,
            or X holds NaN or infinity.
        """
        if "sample_weight" in unsupported:
            raise ValueError("sample_weight is not supported: BalancedKMeans counts every sample once, leave it out")
        if unsupported:
            raise TypeError(f"fit() got unexpected arguments: {', '.join(unsupported)}")
        return self._fit(self._validated(X, reset=True), None)

    def predict(self, X: np.ndarray | Tensor) -> np.ndarray:
        """Nearest centre of every sample of X (n, d), no regard to sizes: (n,) int32."""
        check_is_fitted(self)
        data = as_tensor(self._validated(X, reset=False))
        centers = torch.from_numpy(self.cluster_centers_)
        offset = centers.mean(0)
        labels = np.empty(len(data), dtype=np.int32)
        for start in range(0, len(data), 4096):
            x = data[start : start + 4096].to(centers) - offset
            labels[start : start + 4096] = squared_distances(x, centers - offset).argmin(1).numpy()
        return labels

    def _validated(self, X: np.ndarray | Tensor, reset: bool) -> np.ndarray | Tensor:
        if isinstance(X, Tensor) and (X.is_cuda or X.dtype == torch.bfloat16):
            if X.ndim != 2 or not X.is_floating_point() or not bool(torch.isfinite(X).all()):
                raise ValueError(f"X must be a finite floating tensor of shape (n, d), not {tuple(X.shape)} {X.dtype}")
            if reset:
                self.n_features_in_ = X.shape[1]
            elif X.shape[1] != self.n_features_in_:
                raise ValueError(f"X has {X.shape[1]} features, but {self.n_features_in_} were seen by fit")
            return X.detach()
        if isinstance(X, Tensor):
            X = X.detach().numpy()
        kinds = [np.float64, np.float32, np.float16]
        return validate_data(self, X, reset=reset, dtype=kinds, ensure_all_finite=not reset)  # else Samples looks

    def _problem(self, n: int) -> Problem:
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
        return Problem(n, np.full(k, low), np.full(k, min(high, n)), int(self.max_iter), float(self.tol))

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
                device = torch.device("cuda", torch.cuda.current_device())  # type: ignore[unreachable] # stubs have no None
        return device

    def _start(self, x: Tensor, mean: Tensor, rng: np.random.RandomState, schedule: Schedule) -> Tensor:
        """(k, d) centres to begin with, centred like ``x`` (m, d)."""
        k = self.n_clusters
        if isinstance(self.init, str) and self.init == "k-means++":
            return plus_plus(x, k, rng, schedule)
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

    def _fit(
        self, X: np.ndarray | Tensor, group: dist.ProcessGroup | None, on_iteration: OnIteration | None = None
    ) -> BalancedKMeans:
        device = self._device()
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            workers(torch.get_num_threads() if device.type == "cpu" else 1),
        ):
            return self._solve(Samples(X, device, group), on_iteration)

    def _solve(self, samples: Samples, on_iteration: OnIteration | None) -> BalancedKMeans:
        group, n, k = samples.group, samples.total, self.n_clusters
        problem = self._problem(n)
        rng = check_random_state(self.random_state)
        seed = torch.tensor([rng.randint(2**31 - 1)], device=samples.device)
        rng = np.random.RandomState(int(broadcast(seed, group)))
        exact = n <= _EXACT_SAMPLES and n * k <= _EXACT_DISTANCES
        subset = n if exact else min(n, max(4096, _SUBSET_PER_CLUSTER * k))
        chosen = np.arange(n) if subset == n else np.sort(rng.choice(n, subset, replace=False))
        x = samples.everywhere(torch.from_numpy(chosen))
        if exact:
            x = x.cpu()
        low, high = problem.soft_bounds(len(x), x)
        cheap = exact and x.numel() * k <= _STARTS_WORK
        starts = self.n_init * (_STARTS if cheap else 1) if isinstance(self.init, str) else 1
        schedule = CAREFUL if cheap else QUICK
        with workers(
            torch.get_num_threads() if x.device.type == "cpu" else 1
        ):  # of a small problem, on a GPU's host too
            begun = [self._start(x, samples.mean, rng, schedule) for _ in range(starts)]
            found = list(in_order(lambda centers: anneal(x, centers, low, high, schedule), begun))
            if exact:
                solved = [fit_exact(x, *start[:3], problem, on_iteration) for start in found]
        if exact:
            everyone, centers, error, self.n_iter_ = min(solved, key=lambda result: result[2])
            labels = broadcast(everyone.to(samples.device), group)[samples.start : samples.start + samples.size]
        else:
            centers, prices, temperature, _ = min(found, key=lambda start: start[3])
            centers, prices = on_subsets(samples, centers, prices, temperature, problem, rng)
            centers, prices = broadcast(centers, group), broadcast(prices, group)
            descent, iterations = lloyd(samples, centers, prices, temperature, problem, on_iteration)
            sizes, self.n_iter_ = descent.settle(iterations, problem, on_iteration)
            labels = descent.labels
            repair(descent.distances, descent.prices, labels, sizes, problem)
            centers, _ = means(samples, labels, descent.distances.centers)
            error = inertia(samples, labels, centers)
        self.labels_ = labels.cpu().numpy().astype(np.int32)
        kind = torch.float64 if samples.dtype == torch.float64 else torch.float32
        self.cluster_centers_ = (centers.cpu().double() + samples.mean.cpu().double()).to(kind).numpy()
        self.inertia_ = error
        return self


def fit_distributed(
    model: BalancedKMeans,
    X: np.ndarray | Tensor,
    group: dist.ProcessGroup | None = None,
    on_iteration: OnIteration | None = None,
) -> BalancedKMeans:
    """Fit over several processes, each with samples of its own; the same result as one process with all of them.

    Every process calls it. Samples stay where they are, but for a random subset for the start and the few that the
    repair may move; centres, counts and prices travel by all_reduce.

    Parameters
    ----------
    model
        The same parameters everywhere; the seed is taken from the first process.
    X
        (n of this process, d); may be empty (0, d).
    group
        Process group, the default one if None, this process alone where there is none. NCCL groups need
        ``device="cuda"``, gloo groups ``"cpu"``.
    on_iteration
        Called after every iteration over all samples with its number and the inertia, about.

    Returns
    -------
    model
        ``model``, fitted: ``labels_`` of this process's samples, all else of all samples.
    """
    if len(X):
        X = model._validated(X, reset=True)
    else:
        model.n_features_in_ = X.shape[1]
    return model._fit(X, dist.group.WORLD if group is None else group, on_iteration)
