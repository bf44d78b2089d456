"""The same work on many files, on all cores."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import TypeVar

from tqdm import tqdm

from utils.errors import UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")
# Spawned, not forked: nothing of this process (locks, threads, open files) lives on in the workers.
_CONTEXT = multiprocessing.get_context("spawn")
_CHUNK = 8
_WORTH_A_PROCESS = 32  # starting one takes as long as some files do


def for_each(function: Callable[[Item], Result], items: Sequence[Item], *, workers: int, label: str) -> list[Result]:
    """Results of ``function`` on ``items``, in their order, with a progress bar.

    ``function`` and ``items`` must be picklable. One worker means this process. An exception in a worker
    ends the work and is raised here.
    """
    workers = min(workers, len(items) // _WORTH_A_PROCESS)
    bar = {"total": len(items), "desc": label, "unit": " files", "disable": None}
    if workers <= 1:
        return list(tqdm(map(function, items), **bar))
    # Python starts its resource tracker with the first worker, and unblocks SIGINT after that: so it is started before
    # the block below, in which SIGINT stays blocked while the workers start.
    resource_tracker.ensure_running()
    with ProcessPoolExecutor(workers, mp_context=_CONTEXT, initializer=_begin_worker) as pool:
        try:
            with _interrupts_blocked():  # workers inherit this: on Ctrl-C only this process acts, and ends its workers
                results = pool.map(function, items, chunksize=_CHUNK)
            return list(tqdm(results, **bar))
        except BrokenProcessPool:
            raise UsageError(
                f"{label}: a worker process was killed, perhaps for want of memory. "
                "Run the same command again, with fewer processes."
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
