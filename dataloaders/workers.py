"""The processes that read a loader's samples: what they heed, and what becomes of a run when one of them does not."""

import multiprocessing.util
import os
import resource
import shutil
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from utils.errors import UsageError
from utils.stop import seconds_since_request

_LOOK = 2.0  # seconds between two looks at the processes, while a batch is waited for
_PATIENCE = 20.0  # seconds that a request to stop waits for a batch
_TO_DIE = 0.1  # seconds
_TO_END = 5.0  # seconds that they have at the end of all
_OPEN_FILES, _FEWEST_OPEN_FILES = 4096, 64
_SHARED = "/dev/shm"
_FULL = ("No space left on device", "unable to allocate shared memory")  # PyTorch 2.11 loses the system's own words
_started: "weakref.WeakSet[BaseProcess]" = weakref.WeakSet()


class WatchedLoader(DataLoader):
    """A loader whose processes may be killed or freeze: the user hears of it, and a stop does not wait for ever.

    Parameters
    ----------
    section
        The section of the configuration that it is of, for messages.
    """

    def __init__(self, dataset: Dataset, *, section: str, num_workers: int, **kwargs):
        self.section = section
        if num_workers:
            _allow_open_files()
        watch: dict[str, Any] = {"worker_init_fn": _begin_worker, "timeout": _LOOK} if num_workers else {}
        super().__init__(dataset, num_workers=num_workers, **watch, **kwargs)

    def __iter__(self) -> Iterator:  # type: ignore[override] # PyTorch's names its private iterator
        iterator = super().__iter__()
        return self._watched(iterator) if self.num_workers else iterator

    def _watched(self, iterator) -> Iterator:
        """The batches of ``iterator``.

        Raises
        ------
        UsageError
            A process was killed; it has sent nothing long after a request to stop; it could not pass its batch on; the
            thread that pins its batches has ended.
        """
        _started.update(iterator._workers)
        if threading.current_thread() is threading.main_thread():
            # PyTorch's handler raises wherever the program is, in the middle of a checkpoint, too.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except UsageError:  # else they end when the traceback that holds them does, and take seconds
                iterator._shutdown_workers()
                raise
            except (RuntimeError, OSError, EOFError) as error:
                self._look_after(iterator, str(error))
                if "timed out" not in str(error):
                    raise
            else:
                yield batch

    def _look_after(self, iterator, text: str) -> None:
        if "timed out" not in text:
            for worker in iterator._workers:
                worker.join(_TO_DIE)  # its connection breaks before it is gone
        dead = [(number, worker) for number, worker in enumerate(iterator._workers) if not worker.is_alive()]
        if "Too many open files" in text or "ancdata" in text:
            raise UsageError(
                f"{self.section}: too many open files. Raise the limit (ulimit -n 4096), or set "
                f"{self.section}.num_workers lower."
            )
        full = any(words in text for words in _FULL)
        if full or any(worker.exitcode == -signal.SIGBUS for _, worker in dead):
            _, _, free = shutil.disk_usage(_SHARED)
            raise UsageError(
                f"{_SHARED}: too small for the data-loading processes of {self.section}; {free / 1e6:,.0f} MB are "
                f"free. Make it larger (docker run --shm-size=2g), or set {self.section}.num_workers=0."
            )
        for number, worker in dead:
            how = signal.Signals(-worker.exitcode).name if worker.exitcode < 0 else f"exit code {worker.exitcode}"
            raise UsageError(
                f"{self.section}: its data-loading process {number} ({worker.name}, process {worker.pid}) has ended "
                f"with {how}{' (out of memory?)' if how == 'SIGKILL' else ''}. Give the same command again, a training "
                f"with --resume auto; {self.section}.num_workers lower takes less memory."
            )
        if iterator._pin_memory and not iterator._pin_memory_thread.is_alive():  # PyTorch asks only without a time-out
            raise UsageError(
                f"{self.section}: the thread that makes its batches ready for the GPU has ended; what it failed of "
                "stands above, most often too many open files (ulimit -n 4096 raises the limit). Give the same command "
                "again, a training with --resume auto."
            )
        if seconds_since_request() > _PATIENCE:
            number = iterator._task_info[iterator._rcvd_idx][0]
            worker = iterator._workers[number]
            end_workers(0)
            raise UsageError(
                f"{self.section}: its data-loading process {number} ({worker.name}, process {worker.pid}) has sent "
                f"nothing for {_PATIENCE:.0f} s; it is frozen, or what it reads from is. The run goes on from its last "
                "checkpoint by the same command with --resume auto."
            )


def _allow_open_files() -> None:
    """Raise the limit of open files, of which every batch on its way takes some, as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if allowed < _FEWEST_OPEN_FILES:
        raise UsageError(
            f"only {allowed} files may be open at a time, too few for data-loading processes. Raise the limit "
            "(ulimit -n 4096), or set num_workers of every section to 0."
        )
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def end_workers(seconds: float = _TO_END) -> None:
    """End all data-loading processes of this one, those by force that have not ended in so many seconds."""
    deadline = time.monotonic() + seconds
    for worker in list(_started):
        try:
            worker.join(max(0.0, deadline - time.monotonic()))
            worker.kill()
        except (AssertionError, ValueError):  # of a process that this one was forked from, or closed
            continue


# When this process ends, before Python waits for them without a limit.
multiprocessing.util.Finalize(None, end_workers, exitpriority=100)


def _begin_worker(_: int) -> None:
    # A terminal or a cluster that asks for a stop asks every process: the workers go on until the one that they work
    # for has put its work down. They obey only that one.
    _started.clear()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_when_the_parent_says_so, args=(os.getppid(),), daemon=True).start()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _end_when_the_parent_says_so(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
