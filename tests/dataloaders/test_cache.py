"""Decoded samples are kept once for all processes, within their limit."""

import mmap
import multiprocessing
import pickle

import numpy as np
import pytest

from dataloaders.cache import SharedCache

SIZE = 5 * 7 * (3 + 2 * 2)  # bytes of the arrays below


def arrays(number: int, size: tuple[int, int] = (5, 7), n_masks: int = 2):
    rng = np.random.default_rng(number)
    masks = [rng.integers(-1, 300, size).astype(np.int16) for _ in range(n_masks)]
    return rng.integers(0, 256, (*size, 3)).astype(np.uint8), masks


def same(one, other) -> bool:
    return np.array_equal(one[0], other[0]) and np.array_equal(np.stack(one[1]), np.stack(other[1]))


def test_what_was_put_is_got_and_nothing_else():
    cache = SharedCache(4, 2, 10_000)
    cache.put(2, *arrays(2))
    cache.put(0, *arrays(0, (3, 9)))
    assert same(cache.get(2), arrays(2))
    assert same(cache.get(0), arrays(0, (3, 9)))
    assert cache.get(1) is None
    assert cache.get(3) is None


def test_images_without_masks_are_kept():
    cache = SharedCache(1, 0, 10_000)
    cache.put(0, *arrays(0, n_masks=0))
    image, masks = cache.get(0)
    assert np.array_equal(image, arrays(0, n_masks=0)[0])
    assert masks == []


def test_what_is_kept_cannot_be_changed_by_who_gets_it():
    cache = SharedCache(1, 2, 10_000)
    cache.put(0, *arrays(0))
    image, masks = cache.get(0)
    for kept in (image, *masks):
        with pytest.raises(ValueError, match="read-only"):
            kept[0, 0] = 1


def test_no_more_is_kept_than_the_limit_allows():
    rounded = -(-SIZE // 64) * 64
    cache = SharedCache(3, 2, 2 * rounded + 10)
    for number in range(3):
        cache.put(number, *arrays(number))
    assert [cache.get(number) is not None for number in range(3)] == [True, True, False]
    assert SharedCache(3, 2, 0).get(0) is None


def test_what_one_process_puts_another_gets():
    cache = SharedCache(2, 2, 10_000)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=cache.put, args=(1, *arrays(1)))
    process.start()
    process.join()
    assert same(cache.get(1), arrays(1))


def test_many_processes_at_once_mix_nothing_up():
    cache = SharedCache(200, 2, 10**6)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=put_all, args=(cache, seed)) for seed in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert all(same(cache.get(number), arrays(number)) for number in range(200))


def put_all(cache: SharedCache, seed: int) -> None:
    for number in np.random.default_rng(seed).permutation(200).tolist():
        cache.put(number, *arrays(number))


def test_process_that_cannot_share_it_has_an_empty_one():
    cache = SharedCache(1, 2, 10_000)
    cache.put(0, *arrays(0))
    other = pickle.loads(pickle.dumps(cache))
    other.put(0, *arrays(0))
    assert other.get(0) is None


def test_run_goes_on_without_where_the_system_has_no_such_memory(monkeypatch, caplog):
    def refuse(*_):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    cache = SharedCache(1, 2, 10**9)
    cache.put(0, *arrays(0))
    assert cache.get(0) is None
    assert "data.cache_gb: no 1 GB can be shared" in caplog.text
