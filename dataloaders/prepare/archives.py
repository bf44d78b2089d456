"""Chosen members of tar and zip archives, unpacked with suspicion.

Nothing is written but the members that the caller chooses, at the places that the caller names; links are never
made. A member whose path points out of the archive's folder condemns the archive.
"""

import gzip
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

from tqdm import tqdm

from dataloaders.prepare.pictures import is_in_order
from utils.errors import UsageError
from utils.files import write_whole

MAX_MEMBER = 64 << 20
"""Bytes of the largest member that is unpacked; the largest picture of these data sets has 4 MB."""
MAX_UNPACKED = 64 << 30
"""Bytes of the largest archive, unpacked; the largest of these data sets has 12 GB."""

Place = Callable[[str], Path | None]
"""Where a member goes, by its name in the archive; None for what is not needed."""
Member = tuple[str, int, Callable[[], bytes]]
"""Name, size in bytes, and a function that reads it."""


def unpack(archive: Path, place: Place) -> int:
    """Write the members that ``place`` wants, those left out that are there already.

    Parameters
    ----------
    archive
        A ``.tar``, ``.tgz`` or ``.zip`` file.
    place
        Gives the target of every member.

    Returns
    -------
    int
        How many members were written.

    Raises
    ------
    UsageError
        The archive is truncated or damaged, a decompression bomb, or would write elsewhere.
    """
    members = _zip_members if archive.suffix == ".zip" else _tar_members
    written = 0
    try:
        with tqdm(desc=f"unpacking {archive.name}", unit=" files", disable=None) as bar:
            for name, size, read in members(archive, place):
                bar.update()
                target = place(name)
                if target is None or is_in_order(target, size):
                    continue
                write_whole(target, read(), flush=False)
                written += 1
    except UsageError:
        raise
    except Exception as error:  # a damaged archive makes these modules raise nearly anything
        reason = str(error) or type(error).__name__
        raise UsageError(
            f"{archive}: cannot be unpacked ({reason}); it is truncated or damaged. Download it again."
        ) from None
    return written


def check_name(archive: Path, name: str) -> None:
    """Refuse an archive with a member whose path is absolute or leads upwards."""
    parts = re.split(r"[/\\]", name)
    if not parts[0] or re.match("[A-Za-z]:", name) or ".." in parts:
        raise UsageError(
            f"{archive}: refused: its member {name!r} points out of the folder that it is unpacked in. "
            "This is not the published archive."
        )


def _zip_members(archive: Path, place: Place) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            check_name(archive, info.filename)
        wanted = [info for info in file.infolist() if not info.is_dir() and place(info.filename) is not None]
        if sum(info.file_size for info in wanted) > MAX_UNPACKED:
            raise _bomb(archive, "the archive")
        for info in wanted:
            if stat.S_ISLNK(info.external_attr >> 16):
                raise _link(archive, info.filename)
            if info.file_size > MAX_MEMBER:
                raise _bomb(archive, info.filename)
            yield info.filename, info.file_size, partial(_read_zipped, file, info)


def _read_zipped(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with file.open(info) as member:
        return member.read(info.file_size + 1)  # a size bounds the memory; one more byte, and the sum is checked


def _read_tarred(file: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    member = file.extractfile(info)
    return member.read() if member is not None else b""


def _tar_members(archive: Path, place: Place) -> Iterator[Member]:
    with open(archive, "rb") as raw:
        gzipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream = _Bounded(archive, gzip.GzipFile(fileobj=raw) if gzipped else raw)
        with tarfile.open(fileobj=stream, mode="r:") as file:  # type: ignore[call-overload] # it only reads and seeks
            while (info := file.next()) is not None:
                file.members.clear()  # tarfile would keep them all
                check_name(archive, info.name)
                if info.isdir() or place(info.name) is None:
                    continue
                if not info.isreg():
                    raise _link(archive, info.name)
                if info.size > MAX_MEMBER:
                    raise _bomb(archive, info.name)
                yield info.name, info.size, partial(_read_tarred, file, info)
        # tarfile takes a damaged header for the end; the true end is a block of zeros.
        if stream.last != bytes(tarfile.BLOCKSIZE):
            raise ValueError("the end of the archive is missing")


class _Bounded:
    """A file that refuses to give more at once, or altogether, than an honest archive holds."""

    def __init__(self, archive: Path, file: IO[bytes] | gzip.GzipFile):
        self._archive = archive
        self._file = file
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_MEMBER:
            raise _bomb(self._archive, "a header")
        self.last = self._file.read(size)
        return self.last

    def seek(self, position: int, whence: int = 0) -> int:
        if whence or position > MAX_UNPACKED:
            raise _bomb(self._archive, "the archive")
        return self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()


def _bomb(archive: Path, what: str) -> UsageError:
    return UsageError(
        f"{archive}: refused: {what} is larger than anything in the data set (decompression bomb). "
        "This is not the published archive."
    )


def _link(archive: Path, name: str) -> UsageError:
    return UsageError(f"{archive}: refused: its member {name!r} is a link or a device, not a file.")
