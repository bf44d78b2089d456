"""Folders held by one process at a time."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from utils.errors import UsageError

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_held: set[int] = set()  # descriptors of the lock files of this process


@contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Make ``folder`` and hold it against every other process, on this machine or another, until the block ends.

    The system gives the lock back when its process dies, however it dies. On a file system without locks a warning
    says that there is none.

    Raises
    ------
    UsageError
        Another process holds it: the message says which, where and since when. Or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from None
    with held(folder / LOCK, folder):
        yield


@contextmanager
def held(lock: Path, what: Path, *, wait: bool = False) -> Iterator[None]:
    """As ``sole_use``, by a lock file that may stand elsewhere than in ``what``; with ``wait``, when it is free."""
    descriptor = _take(lock, what, wait)
    _held.add(descriptor)
    try:
        # Who it is, for others to read. On a full disk they do without.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            now = datetime.now().isoformat(" ", "seconds")
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {now}".encode())
        yield
    finally:
        lock.unlink(missing_ok=True)
        _held.discard(descriptor)
        os.close(descriptor)


def _take(lock: Path, what: Path, wait: bool) -> int:
    while True:
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise _unusable(what, error) from None
        try:
            if fcntl is None:
                raise OSError(0, "this system has none")
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.read(descriptor, 1000).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise UsageError(
                f"{what}: in use by {holder}. Wait for its end or end it, and give the same command again."
            ) from None
        except OSError as error:
            print(
                f"warning: {what}: a file system without locks ({error.strerror}); see to it yourself that no second "
                "process works here at the same time",
                file=sys.stderr,
            )
            return descriptor
        if _is_at(descriptor, lock):
            return descriptor
        os.close(descriptor)  # the holder of before has removed the file since it was opened


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _let_go() -> None:
    """In a forked child: a data-loading process that outlives this one must not hold its locks on."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _unusable(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"{folder}: cannot be used as a folder ({error.strerror}).")
