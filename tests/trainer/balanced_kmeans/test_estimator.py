import doctest
import json
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment
from sklearn.utils.estimator_checks import parametrize_with_checks

from trainer.balanced_kmeans import descent, estimator
from trainer.balanced_kmeans.distances import Distances
from trainer.balanced_kmeans.estimator import BalancedKMeans, fit_distributed
from trainer.balanced_kmeans.samples import Samples

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def _always_large(monkeypatch):
    """Small problems take the way of large ones, the very large ones' middle subset included."""
    monkeypatch.setattr(estimator, "_EXACT_SAMPLES", 0)
    monkeypatch.setattr(descent, "_LEVELS", (300, 600))


@pytest.fixture
def _one_start(monkeypatch):
    monkeypatch.setattr(estimator, "_STARTS", 1)  # what holds for any start is tried with one


def _features(n: int, d: int = 16, seed: int = 0) -> np.ndarray:
    """Non-negative features in uneven modes, float32 (n, d)."""
    rng = np.random.default_rng(seed)
    mode = rng.choice(6, n, p=[0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
    centers, spread = rng.gamma(0.5, 2.0, (6, d)), 0.4 * rng.normal(size=(6, 4, d))
    latent = rng.normal(size=(n, 1, 4))
    noise = 0.2 * rng.normal(size=(n, d))
    return np.maximum(centers[mode] + (latent @ spread[mode])[:, 0] + noise, 0).astype(np.float32)


def _sizes(model: BalancedKMeans) -> np.ndarray:
    return np.bincount(model.labels_, minlength=model.n_clusters)


def _assert_balanced(sizes: np.ndarray, n: int) -> None:
    assert sizes.sum() == n
    assert sizes.min() >= n // len(sizes)
    assert sizes.max() <= -(-n // len(sizes))


@parametrize_with_checks([BalancedKMeans(n_clusters=3)])
def test_scikit_learn_conventions_hold(estimator, check):
    check(estimator)


_MATRICES = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24),
    elements=st.one_of(st.integers(-3, 3).map(float), st.floats(-1e3, 1e3, width=32)),
)


@pytest.mark.usefixtures("_one_start")
@settings(deadline=None, max_examples=60)
@given(_MATRICES, st.data())
def test_sizes_differ_by_at_most_one_whatever_the_data(X, data):
    k = data.draw(st.integers(1, len(X)))
    model = BalancedKMeans(k, random_state=0, max_iter=5).fit(X)
    _assert_balanced(_sizes(model), len(X))
    for cluster in range(k):
        np.testing.assert_allclose(
            model.cluster_centers_[cluster], X[model.labels_ == cluster].mean(0), rtol=1e-6, atol=1e-6
        )


@pytest.mark.usefixtures("_one_start")
@settings(deadline=None, max_examples=30)
@given(_MATRICES, st.data())
def test_sizes_stay_inside_given_bounds(X, data):
    n = len(X)
    k = data.draw(st.integers(1, n))
    low = data.draw(st.integers(0, n // k))
    high = data.draw(st.integers(-(-n // k), n))
    sizes = _sizes(BalancedKMeans(k, size_min=low, size_max=high, random_state=0, max_iter=5).fit(X))
    assert low <= sizes.min()
    assert sizes.max() <= high
    assert sizes.sum() == n


@pytest.mark.usefixtures("_always_large")
@settings(deadline=None, max_examples=25)
@given(_MATRICES, st.data())
def test_sizes_of_streamed_fits_differ_by_at_most_one_whatever_the_data(X, data):
    k = data.draw(st.integers(1, len(X)))
    _assert_balanced(_sizes(BalancedKMeans(k, random_state=0, max_iter=3, device="cpu").fit(X)), len(X))


@pytest.mark.usefixtures("_always_large")
@pytest.mark.parametrize("k", [1, 7, 50])
@pytest.mark.parametrize(
    "X",
    [np.ones((2003, 3)), np.random.default_rng(0).integers(0, 2, (2003, 3)).astype(float)],
    ids=["constant", "eight distinct samples"],
)
def test_equal_samples_are_spread_over_clusters(X, k):
    _assert_balanced(_sizes(BalancedKMeans(k, random_state=0, device="cpu").fit(X)), len(X))


@pytest.mark.usefixtures("_always_large")
@pytest.mark.parametrize("bounds", [{"size_min": 100, "size_max": 400}, {"size_max": 230}, {"size_min": 180}])
def test_streamed_fit_keeps_bounds(bounds):
    sizes = _sizes(BalancedKMeans(15, random_state=0, device="cpu", **bounds).fit(_features(3001)))
    assert sizes.min() >= bounds.get("size_min", 0)
    assert sizes.max() <= bounds.get("size_max", 3001)


def test_unbinding_bounds_give_plain_kmeans():
    X = _features(600)
    model = BalancedKMeans(6, size_min=0, size_max=600, random_state=0, tol=0).fit(X)
    assert np.array_equal(model.labels_, model.predict(X))


@pytest.mark.parametrize(("k", "name"), [(11, "vowel"), (10, "yeast"), (30, "yeast")])
def test_error_is_no_more_than_the_reference(name, k):
    X = np.loadtxt(DATA / f"balanced_kmeans_{name}.csv", delimiter=",")
    runs = json.loads((DATA / "balanced_kmeans_reference_sse.json").read_text())[name]["hard_balanced"]
    reference = next(run["sse_mean"] for run in runs if run["k"] == k)
    models = [BalancedKMeans(k, random_state=seed).fit(X) for seed in range(4)]
    for model in models:
        _assert_balanced(_sizes(model), len(X))
    assert np.mean([model.inertia_ for model in models]) <= 1.002 * reference


def _distances(X: np.ndarray, centers: np.ndarray) -> np.ndarray:
    return ((X[:, None].astype(np.float64) - centers) ** 2).sum(2)


@pytest.mark.parametrize("streamed", [False, True], ids=["exact", "streamed"])
def test_last_assignment_is_optimal_for_its_centres(streamed, monkeypatch):
    if streamed:
        monkeypatch.setattr(estimator, "_EXACT_SAMPLES", 0)
    X, k = _features(800), 16
    model = BalancedKMeans(k, random_state=0, device="cpu").fit(X)
    cost = _distances(X, model.cluster_centers_)
    seats = np.repeat(cost, len(X) // k, axis=1)
    best = seats[linear_sum_assignment(seats)].sum()
    assert cost[np.arange(len(X)), model.labels_].sum() <= 1.0005 * best


@pytest.mark.usefixtures("_always_large")
def test_repair_offers_more_samples_until_none_is_cheaper(monkeypatch):
    monkeypatch.setattr(descent, "_REPAIR_ROWS", 1)
    monkeypatch.setattr(descent, "_SETTLE_PASSES", 0)
    X, k = _features(800), 8
    samples = Samples(X, torch.device("cpu"), None)
    distances = Distances(samples, samples.take(slice(0, k)))
    problem = descent.Problem(800, np.full(k, 100), np.full(k, 100), 1, 0.0)
    labels, prices = torch.zeros(800, dtype=torch.int64), torch.zeros(k, dtype=torch.float64)
    descent.repair(distances, prices, labels, distances.assign(prices, labels).counts, problem)
    cost = _distances(samples.take(slice(0, 800)).numpy(), distances.centers.numpy())
    seats = np.repeat(cost, 100, axis=1)
    assert cost[np.arange(800), labels].sum() == pytest.approx(seats[linear_sum_assignment(seats)].sum(), rel=1e-6)


@pytest.mark.parametrize("streamed", [False, True], ids=["exact", "streamed"])
def test_seed_decides_the_result(streamed, monkeypatch):
    if streamed:
        monkeypatch.setattr(estimator, "_EXACT_SAMPLES", 0)
    X = _features(1200)
    first, again = (BalancedKMeans(9, random_state=3).fit(X) for _ in range(2))
    assert np.array_equal(first.labels_, again.labels_)
    assert np.array_equal(first.cluster_centers_, again.cluster_centers_)
    assert first.inertia_ == again.inertia_


def test_streamed_error_is_that_of_exact_fits(monkeypatch):
    X = _features(4000)
    exact = np.mean([BalancedKMeans(20, random_state=seed).fit(X).inertia_ for seed in range(3)])
    monkeypatch.setattr(estimator, "_EXACT_SAMPLES", 0)
    monkeypatch.setattr(descent, "_LEVELS", (500, 1000))
    streamed = np.mean([BalancedKMeans(20, random_state=seed).fit(X).inertia_ for seed in range(3)])
    assert streamed <= 1.02 * exact


def test_streamed_fit_masters_modes_of_very_different_width(monkeypatch):
    rng = np.random.default_rng(0)
    width = np.repeat(np.geomspace(0.01, 20, 8), 200)[:, None]
    X = (width * rng.normal(size=(1600, 16)) + rng.normal(size=(8, 16)).repeat(200, axis=0)).astype(np.float32)
    exact = BalancedKMeans(32, random_state=0).fit(X).inertia_
    monkeypatch.setattr(estimator, "_EXACT_SAMPLES", 0)
    streamed = [BalancedKMeans(32, random_state=seed, device="cpu").fit(X).inertia_ for seed in range(4)]
    assert np.mean(streamed) <= 1.02 * exact  # one start each: some are 2 % off


def test_float16_memory_map_and_tensor_give_what_their_float32_copy_gives(tmp_path):
    X = _features(900).astype(np.float16)
    np.save(tmp_path / "features.npy", X)
    expected = BalancedKMeans(7, random_state=0).fit(X.astype(np.float32))
    for given_as in (np.load(tmp_path / "features.npy", mmap_mode="r"), torch.from_numpy(X), np.asfortranarray(X)):
        assert np.array_equal(BalancedKMeans(7, random_state=0).fit(given_as).labels_, expected.labels_)


def test_init_array_is_where_it_begins():
    X = np.array([[0.0], [1.0], [10.0], [11.0]])
    model = BalancedKMeans(2, init=np.array([[11.0], [0.0]])).fit(X)
    assert model.labels_.tolist() == [1, 1, 0, 0]


def test_predict_takes_the_nearest_centre():
    model = BalancedKMeans(2, random_state=0).fit([[0.0], [1.0], [2.0], [9.0]])
    nearest = np.abs(np.array([[0.0], [9.0]]) - model.cluster_centers_.T).argmin(1)
    assert np.array_equal(model.predict([[0.0], [9.0]]), nearest)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_clusters": 0}, "n_clusters must be an integer of at least 1, not 0"),
        ({"n_clusters": 11}, "n_samples=10 should be >= n_clusters=11"),
        ({"n_clusters": 2, "size_min": 6}, "2 clusters of 6 to 10 samples cannot hold 10 samples"),
        ({"n_clusters": 2, "size_max": 4}, "2 clusters of 0 to 4 samples cannot hold 10 samples"),
        ({"n_clusters": 2, "init": "best"}, "init must be 'k-means\\+\\+', 'random' or an array, not 'best'"),
        ({"n_clusters": 2, "init": np.zeros((3, 1))}, "init has shape \\(3, 1\\)"),
        ({"n_clusters": 2, "tol": -1.0}, "tol must be at least 0, not -1.0"),
    ],
)
def test_bad_parameter_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        BalancedKMeans(**arguments).fit(np.arange(10.0)[:, None])


def test_sample_weight_is_refused():
    with pytest.raises(ValueError, match="sample_weight is not supported"):
        BalancedKMeans(2).fit(np.arange(10.0)[:, None], sample_weight=np.ones(10))


def test_example_of_the_docstring_runs():
    assert doctest.testmod(estimator).failed == 0


def _fit_shares(rank: int, port: int, folder: str) -> None:
    """In groups of 1, 2 and 3 of these processes; one of the three has no samples."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=3)
    groups = {world: dist.new_group(list(range(world))) for world in (1, 2, 3)}
    X = _features(5003)
    for mode in ("exact", "streamed"):
        estimator._EXACT_SAMPLES = 20_000 if mode == "exact" else 0
        descent._LEVELS = (500, 1000)
        for world, ends in ((1, [5003]), (2, [1200, 5003]), (3, [1200, 1200, 5003])):
            if rank < world:
                model = BalancedKMeans(12, random_state=0 if rank == 0 else 99, device="cpu")
                fit_distributed(model, X[ends[rank - 1] if rank else 0 : ends[rank]], groups[world])
                np.savez(Path(folder) / f"{mode}_{world}_{rank}.npz", labels=model.labels_, inertia=model.inertia_)
    with pytest.raises(ValueError, match="NaN"):  # every process hears of the one's
        fit_distributed(BalancedKMeans(12, device="cpu"), X[:99] * np.float32(np.nan if rank == 0 else 1))
    dist.barrier()
    dist.destroy_process_group()


def test_number_of_processes_does_not_change_the_result(tmp_path, monkeypatch):
    X = _features(5003)
    alone = {"exact": BalancedKMeans(12, random_state=0, device="cpu").fit(X)}
    monkeypatch.setattr(estimator, "_EXACT_SAMPLES", 0)
    monkeypatch.setattr(descent, "_LEVELS", (500, 1000))
    alone["streamed"] = BalancedKMeans(12, random_state=0, device="cpu").fit(X)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(_fit_shares, args=(port, str(tmp_path)), nprocs=3)
    for mode, model in alone.items():
        for world in (1, 2, 3):
            parts = [np.load(tmp_path / f"{mode}_{world}_{rank}.npz") for rank in range(world)]
            labels = np.concatenate([part["labels"] for part in parts])
            assert np.array_equal(np.sort(np.bincount(labels, minlength=12)), np.sort(_sizes(model)))
            for part in parts:
                assert float(part["inertia"]) == pytest.approx(model.inertia_, rel=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_what_cpu_gives():
    X = _features(60_000, 64)
    models = [BalancedKMeans(30, random_state=0, device=device).fit(X) for device in ("cpu", "cuda")]
    for model in models:
        _assert_balanced(_sizes(model), len(X))
    assert models[1].inertia_ == pytest.approx(models[0].inertia_, rel=5e-3)
