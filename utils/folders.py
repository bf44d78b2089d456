"""Folders that appear whole, in the place of what was there before."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.lock import held


@contextmanager
def sole_maker(root: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold ``root``, which need not be there, against others that would make it; with ``wait``, after them.

    What another maker has left that was killed is finished or removed first: with no folder at ``root``, it was
    between the two renames of ``replacing``.
    """
    parent_is_new = not root.parent.exists()
    root.parent.mkdir(parents=True, exist_ok=True)
    try:
        with held(_beside(root, "lock"), root, wait=wait):
            new, old = _beside(root, "new"), _beside(root, "old")
            if old.exists() and not root.exists():
                new.rename(root)
            for leftover in (new, old):
                shutil.rmtree(leftover, ignore_errors=True)
            yield
    finally:
        if parent_is_new:
            with suppress(OSError):  # something was made in it
                root.parent.rmdir()


@contextmanager
def replacing(root: Path) -> Iterator[Path]:
    """An empty folder to fill, which at the end of the block becomes ``root``. For its ``sole_maker``."""
    new, old = _beside(root, "new"), _beside(root, "old")
    new.mkdir(parents=True)
    try:
        yield new
        if root.exists():
            root.rename(old)
        new.rename(root)
    finally:
        if old.exists() and not root.exists():  # interrupted between the two renames
            old.rename(root)
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)


def _beside(root: Path, what: str) -> Path:
    return root.with_name(f".{root.name}.{what}")
