"""Files that are read: opened where they are plain files of a size that can be, and checked as they are taken in."""

import errno
import os
import stat
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import TypeAdapter, ValidationError

from utils.errors import UsageError

MAX_BYTES = 2**30
"""Of a file that is read as a whole: more is none of a data set's or a run's."""
_TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
Kind = TypeVar("Kind")


def open_plain(path: Path, *, most: int | None = None) -> BinaryIO:
    """``path``, opened for reading. A pipe is not waited for.

    Raises
    ------
    OSError
        It cannot be opened, is no regular file, or has more than ``most`` bytes; ``strerror`` says which.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a name that no file can have
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise OSError(errno.EINVAL, f"it is {what}", str(path))
        if most is not None and status.st_size > most:
            raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes; at most {most:,} are read", str(path))
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_plain(path: Path, *, most: int = MAX_BYTES) -> bytes:
    """The contents of a file, opened as ``open_plain`` does."""
    with open_plain(path, most=most) as file:
        return file.read()


def read_json(path: Path, kind: TypeAdapter[Kind], way_out: str) -> Kind:
    """A JSON file, checked as ``kind``.

    Raises
    ------
    UsageError
        The file cannot be read, is no JSON or holds something else; the message ends with ``way_out``.
    """
    try:
        content = read_plain(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}). {way_out}") from None
    return parse_json(content, kind, f"{path}", way_out)


def parse_json(content: bytes, kind: TypeAdapter[Kind], where: str, way_out: str) -> Kind:
    """JSON text, checked as ``kind``; raises as ``read_json`` does, of ``where``."""
    try:
        return kind.validate_json(content)
    except ValidationError as error:
        raise UsageError(f"{where}: is damaged ({first_problem(error)}). {way_out}") from None


def without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For ``json.loads``: a section of which no key stands twice; of two, the later one would win without a word."""
    values = dict(pairs)
    if len(values) < len(pairs):
        repeated = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"key {repeated!r} stands twice in one section")
    return values


def plain_text(text: str) -> str:
    """``text``, a name that files, logs and pages can hold and show as it is.

    Raises
    ------
    ValueError
        It is empty, or has control characters, marks that turn the direction of writing, or bytes that are no UTF-8.
    """
    if text.isascii() and text.isprintable() and text.strip():
        return text
    if not text.strip():
        raise ValueError("it is empty")
    for letter in text:
        if unicodedata.category(letter) == "Cs":
            raise ValueError("it is not in UTF-8")
        if unicodedata.category(letter) in ("Cc", "Zl", "Zp") or unicodedata.bidirectional(letter) in _TURNING:
            raise ValueError(f"it has the control character U+{ord(letter):04X}")
    return text


def first_problem(error: ValidationError) -> str:
    """What is wrong first, in one line: the key and pydantic's reason."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, problem["loc"]))
    return f"{f'key {place}: ' if place else ''}{problem['msg'].removeprefix('Value error, ')}"
