"""Files written whole or not at all."""

import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from utils.errors import NotWrittenError

# Of one length, since the name of what it will be may be as long as a name can be.
_TEMPORARY = re.compile(r"\.(.+\.)?[0-9a-f]{8}\.tmp")


def write_atomically(
    path: Path, write: Callable[[BinaryIO], object], *, keep: Path | None = None, flush: bool = True
) -> None:
    """Call ``write(file)`` on a temporary sibling and rename it to ``path``.

    What stood at ``path`` is replaced, never written into: it may be a hard link to somebody's original.

    Parameters
    ----------
    keep
        The name that what stood at ``path`` gets, instead of being replaced.
    flush
        Flush file and rename to disk, so that they outlast a loss of power. For tens of thousands of small files
        that takes minutes.

    Raises
    ------
    NotWrittenError
        The file cannot be written (disk full, no permission); what stood at ``path`` is still there.
    """
    with _renamed_to(path, _temporary(path), keep=keep, flush=flush) as temporary, open(temporary, "xb") as file:
        write(file)
        if flush:
            file.flush()
            os.fsync(file.fileno())


def write_whole(path: Path, content: bytes | str, *, flush: bool = True) -> None:
    """Write ``content``, text in UTF-8, to ``path`` as ``write_atomically`` does."""
    data = content.encode() if isinstance(content, str) else content
    write_atomically(path, lambda file: file.write(data), flush=flush)


def link_or_copy(source: Path, target: Path) -> str:
    """Bring a file to ``target``: a hard link where the file system can, a copy elsewhere.

    Returns
    -------
    str
        ``"linked"`` or ``"copied"``.
    """
    original = source.resolve(strict=True)  # a hard link to a symbolic link would dangle
    temporary = _temporary(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(original, temporary)
    except OSError:
        write_whole(target, original.read_bytes(), flush=False)
        return "copied"
    with _renamed_to(target, temporary, flush=False):
        return "linked"


def sweep(*folders: Path) -> None:
    """Remove the temporary files that a killed process has left in ``folders`` and below."""
    for folder in folders:
        for leftover in folder.rglob(".*.tmp"):
            if _TEMPORARY.fullmatch(leftover.name):
                leftover.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{secrets.token_hex(4)}.tmp")


@contextmanager
def _renamed_to(path: Path, temporary: Path, *, keep: Path | None = None, flush: bool) -> Iterator[Path]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
        if flush:
            _flush_folder(path.parent)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__  # torch.save says it in its own way
        if not isinstance(cause, OSError):
            raise
        raise NotWrittenError(
            f"{path}: cannot be written ({cause.strerror or cause}); what was there before still is. Make room or "
            "mend the folder's permissions, and give the same command again."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Make a rename outlast a loss of power."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
