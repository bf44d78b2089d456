"""Time, memory and error of balanced k-means; prints a table and, last, one JSON line.

    python -m benchmarks.balanced_kmeans                              # 50,000 x 256, 121 clusters, and optimality
    python -m benchmarks.balanced_kmeans --sizes 5000 50000 300000    # three kinds of features each
    python -m benchmarks.balanced_kmeans --reference DIR              # error on the data sets in DIR, ten seeds each
    python -m benchmarks.balanced_kmeans --features DIR               # real features, .npy files of (256, h, w)
    python -m benchmarks.balanced_kmeans --device cuda --sizes 700000

The optimality is measured against SciPy's assignment solver and, where k-means-constrained is there (`pip install
k-means-constrained`; nothing else needs it), against a min-cost flow. Where FAISS is there (`pip install faiss-cpu`;
nothing else needs it), its k-means, which knows no balance, runs after every fit with as many iterations.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.features import KINDS, make_features, read_features  # noqa: E402
from trainer.balanced_kmeans.estimator import BalancedKMeans  # noqa: E402

Row = dict[str, object]


class Peak:
    """Most resident memory of this process inside the block, above that at its start, in bytes."""

    def __enter__(self) -> Peak:
        self.start = self.most = self._resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.bytes = max(self.most, self._resident()) - self.start

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self.most = max(self.most, self._resident())

    @staticmethod
    def _resident() -> int:
        try:
            return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        except OSError:  # not Linux
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def time_fit(X: np.ndarray, k: int, device: str, name: str) -> Row:
    """One fit: seconds, processor seconds, memory above the input."""
    with Peak() as peak:
        start, processor = time.perf_counter(), time.process_time()
        model = BalancedKMeans(k, random_state=0, device=device).fit(X)
        seconds, processor = time.perf_counter() - start, time.process_time() - processor
    sizes = np.bincount(model.labels_, minlength=k)
    return {
        "what": name,
        "n": len(X),
        "d": X.shape[1],
        "k": k,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(processor, 2),
        "peak_gb": round(peak.bytes / 1e9, 3),
        "iterations": model.n_iter_,
        "inertia": model.inertia_,
        "sizes": f"{sizes.min()}..{sizes.max()}",
    }


def time_unconstrained(X: np.ndarray, k: int, iterations: int, threads: int) -> Row | None:
    """FAISS's k-means, one start, all samples, so many iterations, on a float32 copy; None without it."""
    try:
        import faiss
    except ImportError:
        return None
    X = X.astype(np.float32)
    faiss.omp_set_num_threads(threads)
    model = faiss.Kmeans(X.shape[1], k, niter=iterations, max_points_per_centroid=len(X), min_points_per_centroid=1)
    start, processor = time.perf_counter(), time.process_time()
    model.train(X)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    return {
        "what": "FAISS, unbalanced",
        "n": len(X),
        "d": X.shape[1],
        "k": k,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(processor, 2),
        "iterations": iterations,
        "inertia": float(model.obj[-1]),
    }


def compare(X: np.ndarray, k: int, name: str, device: str, threads: int, unconstrained: bool) -> list[Row]:
    """Our fit, and FAISS's right after it; the ratios of their times stand in our row."""
    ours = time_fit(X, k, device, name)
    other = time_unconstrained(X, k, int(str(ours["iterations"])), threads) if unconstrained else None
    if other is None:
        return [ours]
    for ratio, key in (("times_faiss", "seconds"), ("times_faiss_cpu", "cpu_seconds")):
        ours[ratio] = round(float(str(ours[key])) / max(float(str(other[key])), 0.01), 2)
    return [ours, other]


def optimality(n: int = 5000, k: int = 30) -> list[Row]:
    """Cost of the last assignment over the least cost of any balanced assignment to the same centres, less one."""
    X = make_features(n).astype(np.float64)
    model = BalancedKMeans(k, random_state=0, device="cpu").fit(X)
    cost = ((X**2).sum(1)[:, None] - 2 * X @ model.cluster_centers_.T) + (model.cluster_centers_**2).sum(1)
    found = cost[np.arange(n), model.labels_].sum()
    least = {"scipy": least_by_seats(cost)}
    with contextlib.suppress(ImportError):
        least["k-means-constrained"] = least_by_flow(cost)
    return [
        {"what": f"optimality against {judge}", "n": n, "k": k, "excess": float(found / cost_of_judge - 1)}
        for judge, cost_of_judge in least.items()
    ]


def least_by_seats(cost: np.ndarray) -> float:
    """Least cost of a balanced assignment, (n, k) costs: every sample takes one of n seats, by SciPy."""
    n, k = cost.shape
    low, spare = n // k, n % k
    seats = np.concatenate([np.repeat(cost, low, axis=1), cost[:, : k if spare else 0]], axis=1)
    if spare:  # every cluster may take one more, but only so many do: idle samples sit on the other extra seats
        idle = np.full((k - spare, seats.shape[1]), 0.0)
        idle[:, : low * k] = 1e3 * cost.max()
        seats = np.concatenate([seats, idle])
    rows, columns = linear_sum_assignment(seats)
    return float(seats[rows, columns][rows < n].sum())


def least_by_flow(cost: np.ndarray) -> float:
    """The same by OR-tools, through the flow problem of k-means-constrained; that package itself has distances as
    costs, not their squares."""
    from k_means_constrained.k_means_constrained_ import minimum_cost_flow_problem_graph, solve_min_cost_flow_graph

    n, k = cost.shape
    extra = cost - cost.min(1, keepdims=True)
    extra *= 2e6 / extra.max()  # as fine as its integers allow
    labels = solve_min_cost_flow_graph(*minimum_cost_flow_problem_graph(cost, cost.T, extra, n // k, -(-n // k)))
    return float(cost[np.arange(n), labels].sum())


def error_on(folder: Path, seeds: int) -> list[Row]:
    """Mean inertia over ``seeds`` fits of each data set of reference_sse.json, over the reference's mean."""
    rows: list[Row] = []
    for name, entry in json.loads((folder / "reference_sse.json").read_text()).items():
        X = np.loadtxt(folder / f"{name}.csv", delimiter=",")
        for run in entry["hard_balanced"]:
            start = time.perf_counter()
            models = [BalancedKMeans(run["k"], random_state=seed).fit(X) for seed in range(seeds)]
            seconds = (time.perf_counter() - start) / seeds
            for model in models:
                sizes = np.bincount(model.labels_, minlength=run["k"])
                assert sizes.max() - sizes.min() <= 1, (name, sizes)
            ratios = np.array([model.inertia_ for model in models]) / run["sse_mean"]
            rows.append(
                {
                    "what": name,
                    "n": len(X),
                    "k": run["k"],
                    "seconds": round(seconds, 3),
                    "mean_ratio": round(float(ratios.mean()), 5),
                    "max_ratio": round(float(ratios.max()), 5),
                }
            )
    return rows


def print_table(rows: list[Row]) -> None:
    """The rows under the union of their keys."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = [keys] + [
        [f"{v:.6g}" if isinstance(v, float) else str(v) for v in (row.get(key, "") for key in keys)] for row in rows
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(keys))]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[50_000], help="numbers of made samples (50000)")
    parser.add_argument("--clusters", type=int, default=121)
    parser.add_argument("--dimensions", type=int, default=256)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto (cpu)")
    parser.add_argument("--threads", type=int, default=None, help="threads for both libraries")
    parser.add_argument("--reference", type=Path, help="folder with reference_sse.json and its .csv files")
    parser.add_argument("--seeds", type=int, default=10, help="fits per data set of --reference")
    parser.add_argument("--features", type=Path, help="folder of .npy features of shape (256, h, w)")
    parser.add_argument("--no-optimality", action="store_true", help="leave out the comparison with an exact solver")
    parser.add_argument("--no-faiss", action="store_true", help="leave out FAISS's k-means")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    rows: list[Row] = []
    summary: dict[str, object] = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    with threadpool_limits(arguments.threads):
        if arguments.device != "cpu" and torch.cuda.is_available():
            summary["device"] = torch.cuda.get_device_name()
            torch.ones(1, device="cuda").sum().item()  # the context is not the algorithm's time
        settings = arguments.device, torch.get_num_threads(), not arguments.no_faiss
        for n in arguments.sizes:
            for kind in KINDS:
                X = make_features(n, arguments.dimensions, kind)
                rows += compare(X, arguments.clusters, kind, *settings)
        if not arguments.no_optimality:
            rows += optimality()
        if arguments.reference:
            rows += error_on(arguments.reference, arguments.seeds)
        if arguments.features:
            X = read_features(arguments.features)
            rows += compare(X, min(arguments.clusters, len(X)), "real features", *settings)
    print_table(rows)
    print(json.dumps({**summary, "rows": rows}))


if __name__ == "__main__":
    main()
