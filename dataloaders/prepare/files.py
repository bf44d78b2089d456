"""Files written whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UsageError

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None

_PARTIAL = ".prepare-partial"


def write_whole(target: Path, content: bytes) -> None:
    """Write a file under a temporary name beside ``target`` and rename it.

    What stood at ``target`` is replaced, never written into: it may be a hard link to somebody's original.
    Nothing is flushed to disk, which for tens of thousands of small files takes minutes: after a loss of power
    the next run finds what is not whole, masks by reading them, images by their size.

    Raises
    ------
    UsageError
        The file cannot be written (disk full, no permission).
    """
    with _renamed_to(target) as temporary, open(temporary, "xb") as file:
        file.write(content)


def link_or_copy(source: Path, target: Path) -> str:
    """Bring a file to ``target``: a hard link where the file system can, a copy elsewhere.

    Returns
    -------
    str
        ``"linked"`` or ``"copied"``.
    """
    original = source.resolve(strict=True)  # a hard link to a symbolic link would dangle
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(target)
        os.link(original, temporary)
    except OSError:
        write_whole(target, original.read_bytes())
        return "copied"
    with _renamed_to(target, temporary):
        return "linked"


def sweep(*folders: Path) -> None:
    """Remove the temporary files that a killed run has left below ``folders``."""
    for folder in folders:
        for leftover in folder.rglob(f".*{_PARTIAL}"):
            leftover.unlink(missing_ok=True)


@contextmanager
def sole_use(root: Path) -> Iterator[None]:
    """Make ``root`` and hold it against a second preparation at the same time."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root, os.O_RDONLY)
    except OSError as error:
        raise UsageError(f"{root}: cannot be used as a folder ({error.strerror}).") from None
    try:
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(f"{root}: another preparation is at work here; wait for its end.") from None
            except OSError:
                pass  # a file system without locks: two runs would only do the work twice
        yield
    finally:
        os.close(descriptor)


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}{_PARTIAL}")


@contextmanager
def _renamed_to(target: Path, temporary: Path | None = None) -> Iterator[Path]:
    temporary = temporary or _temporary(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written ({error.strerror}).") from None
    finally:
        temporary.unlink(missing_ok=True)
