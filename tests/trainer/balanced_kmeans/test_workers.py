import threading

import numpy as np
import pytest
import torch

from trainer.balanced_kmeans import descent, estimator, samples
from trainer.balanced_kmeans.distances import squared_distances
from trainer.balanced_kmeans.estimator import BalancedKMeans
from trainer.balanced_kmeans.workers import blocks, even_blocks, in_order, product, side_by_side, spans, workers


@pytest.fixture
def _threads():
    """Every test sets the threads as it needs them."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("way", ["exact", "streamed", "nothing kept"])
def test_number_of_threads_does_not_change_the_result(way, monkeypatch):
    if way != "exact":
        monkeypatch.setattr(estimator, "_EXACT_SAMPLES", 0)
        monkeypatch.setattr(descent, "_LEVELS", (900,))
    if way == "nothing kept":
        monkeypatch.setattr("trainer.balanced_kmeans.distances._ROOM", 0)
        monkeypatch.setattr(samples, "_ROOM", 0)
    rng = np.random.default_rng(0)
    X = (rng.gamma(0.5, 2.0, (9, 24))[rng.integers(9, size=3003)] + rng.normal(size=(3003, 24))).astype(np.float32)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(BalancedKMeans(50, random_state=0, max_iter=3, device="cpu").fit(X))
        assert torch.get_num_threads() == threads
    for other in found[1:]:
        assert np.array_equal(other.labels_, found[0].labels_)
        assert np.array_equal(other.cluster_centers_, found[0].cluster_centers_)
        assert other.inertia_ == found[0].inertia_


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 30, 1025, 2049, 4097])
def test_distances_are_the_same_on_any_number_of_threads(n, dtype):
    generator = torch.Generator().manual_seed(0)
    x, centers = (torch.randn(rows, 8, generator=generator, dtype=dtype) for rows in (n, 520))
    found = []
    for threads in (1, 2, 3, 16):
        with workers(threads):
            found.append(squared_distances(x, centers))
    assert all(other.equal(found[0]) for other in found[1:])


def test_work_within_work_is_done_by_the_thread_itself():
    def inner(item: int) -> int:
        return threading.get_ident()

    with workers(2):
        for found in in_order(lambda item: {threading.get_ident(), *in_order(inner, [1, 2, 3])}, [1, 2, 3, 4]):
            assert len(found) == 1


@pytest.mark.usefixtures("_threads")
def test_fit_in_inference_mode():
    torch.set_num_threads(2)
    X = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    with torch.inference_mode():
        inside = BalancedKMeans(7, random_state=0, device="cpu").fit(X)
    assert np.array_equal(inside.labels_, BalancedKMeans(7, random_state=0, device="cpu").fit(X).labels_)


def test_results_come_in_the_order_of_the_items():
    with workers(3):
        assert list(in_order(lambda item: item * item, list(range(1000)))) == [item * item for item in range(1000)]


@pytest.mark.usefixtures("_threads")
def test_every_thread_computes_alone_and_an_error_ends_that():
    torch.set_num_threads(2)

    def fail(item: int) -> None:
        assert torch.get_num_threads() == 1
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item"), workers(2):
        side_by_side(fail, [0, 1, 2])
    assert torch.get_num_threads() == 2
    assert list(in_order(lambda _: torch.get_num_threads(), [0, 1])) == [2, 2]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("n", [0, 1, 2, 5003, 100_000])
def test_spans_and_blocks_hold_every_sample_once(n, threads):
    with workers(threads):
        for parts in (spans(n, torch.device("cpu")), blocks(n), even_blocks(n)):
            assert [i for part in parts for i in range(part.start, part.stop)] == list(range(n))


def test_product_is_the_product():
    a, b = torch.rand(7, 50), torch.rand(50, 150)
    with workers(2):
        assert torch.allclose(product(a, b), a @ b)
