"""Blocks of samples side by side: a pool of threads, each of which computes its block alone.

Torch's own threads share out every single operation, which for many of them takes longer than the operation, and add up
in another order. Here a block is the work of one thread, and what the blocks give comes back in their order: the number
of threads changes nothing but the time. Torch's operations and NumPy's release the interpreter's lock.

A sum or a product is therefore made of the same blocks on any number of threads (:func:`blocks`, :func:`even_blocks`,
:func:`product`): MKL computes the rows of a product of few rows in another order. What is found element by element may
be shared out by the number of threads (:func:`spans`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")

BLOCK = 2048  # samples that are added up before they are added to the rest; the cache of one core holds them
_SPAN = 8192  # samples at most that one of several threads takes at a time: few, and it would wait for the lock
_COLUMNS = 64  # of a product that one thread makes
_EVEN = 1024  # samples of one of several products, at most; never so few that MKL takes another way
_AHEAD = 8  # results per thread that may wait to be taken

_workers: ContextVar[tuple[ThreadPoolExecutor, int] | None] = ContextVar("workers", default=None)


@contextmanager
def workers(threads: int) -> Iterator[None]:
    """Inside, :func:`in_order` has so many threads, and torch has one in each of them and here.

    So has it in any other thread of the program that first uses it meanwhile.
    """
    if threads == 1:
        yield
        return
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with ThreadPoolExecutor(threads - 1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            token = _workers.set((pool, threads))
            try:
                yield
            finally:
                _workers.reset(token)
    finally:  # after the pool's last thread has begun
        torch.set_num_threads(before)


def in_order(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """``work`` of every item, in the order of the items.

    One after the other outside of :func:`workers`, and within the work of one of several items.
    """
    found = _workers.get()
    if found is None or len(items) == 1:
        yield from map(work, items)
        return
    pool, threads = found
    for start in range(0, len(items), _AHEAD * threads):
        some = items[start : start + _AHEAD * threads]
        left, results = deque(enumerate(some)), dict[int, Result]()

        def take(left: deque[tuple[int, Item]] = left, results: dict[int, Result] = results) -> None:
            try:
                while True:
                    try:
                        number, item = left.popleft()
                    except IndexError:  # none left
                        return
                    results[number] = work(item)
            finally:  # an error ends all
                left.clear()

        others = [pool.submit(take) for _ in range(min(threads, len(some)) - 1)]
        token = _workers.set(None)
        try:
            take()
        finally:
            _workers.reset(token)
        for other in others:
            if not other.cancel():  # it has begun
                other.result()
        yield from (results.pop(number) for number in range(len(some)))


def side_by_side(work: Callable[[Item], object], items: Sequence[Item]) -> None:
    """``work`` of every item, for what it writes."""
    deque(in_order(work, items), maxlen=0)


def blocks(n: int, rows: int = BLOCK) -> list[slice]:
    """Positions of n samples, ``rows`` at a time, for what is added up: the same blocks whatever the threads are."""
    return [slice(start, min(start + rows, n)) for start in range(0, n, rows)]


def even_blocks(n: int) -> list[slice]:
    """Positions of n samples in blocks of about one size, for products: the same blocks whatever the threads are."""
    return blocks(n, max(1, -(-n // max(1, -(-n // _EVEN)))))


def spans(n: int, device: torch.device) -> list[slice]:
    """Positions of n samples in memory, for what is found element by element: as many to every thread, in few turns."""
    found = _workers.get()
    if found is None:
        return blocks(n, BLOCK if device.type == "cpu" else max(1, n))
    turns = found[1] * max(1, -(-n // (found[1] * _SPAN)))
    return blocks(n, max(1, -(-n // turns)))


def product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b``; on the CPU some columns to a thread."""
    if a.is_cuda:
        return a @ b
    out = a.new_empty(len(a), b.shape[1])
    side_by_side(lambda part: torch.mm(a, b[:, part], out=out[:, part]), blocks(b.shape[1], _COLUMNS))
    return out
