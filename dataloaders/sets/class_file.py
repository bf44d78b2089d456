"""Files that name classes and their colours: our own, and those of the usual labelling tools."""

import re
from collections import Counter
from pathlib import Path

from dataloaders.sets.description import read_text
from utils.errors import UsageError

Row = tuple[str, tuple[int, int, int] | None]
_FORMAT = (
    "Write a class a line: <name>, or <name> <red> <green> <blue>; or a table name,r,g,b, or CVAT's labelmap.txt "
    "(name:r,g,b::)."
)
_NO_CLASS = "__ignore__"  # labelme's word for what is none
_HEADINGS = {"r", "g", "b", "red", "green", "blue"}
_CVAT = re.compile(r"(?P<name>[^:]+):(?P<colour>\d+,\d+,\d+)?:[^:]*:[^:]*")


def read_class_file(path: Path) -> list[Row]:
    """Names and colours of a class file, in its order.

    A line has a name, and perhaps red, green and blue behind or before it. Columns are separated by white space,
    commas, semicolons or tabs. Read as well: tables with a heading (``name,r,g,b``) and a column of numbers in front;
    CVAT's ``labelmap.txt``; labelme's ``labels.txt``, whose ``__ignore__`` is no class.

    Raises
    ------
    UsageError
        It names no class, or two of one name; or it is written in another way, JSON for one.
    """
    lines = [line.strip(" \t") for line in read_text(path, "the list of classes").split("\n")]
    lines = [line for line in lines if line and not _is_comment(line)]
    if lines and lines[0][0] in "{[<":
        raise UsageError(f"{path}: is no list of classes, but a file of another kind. {_FORMAT}")
    by_cvat = bool(lines) and all(_CVAT.fullmatch(line) for line in lines)
    if not by_cvat and lines and _HEADINGS & {part.lower() for part in _columns(lines[0])}:
        lines = lines[1:]
    rows = [_cvat_row(path, line) if by_cvat else _row(path, line) for line in lines if line != _NO_CLASS]
    if not rows:
        raise UsageError(f"{path}: names no class. {_FORMAT}")
    for name, count in Counter(name for name, _ in rows).items():
        if count > 1:
            raise UsageError(f"{path}: {count} classes are called {name!r}; give every class a name of its own.")
    return rows


def _is_comment(line: str) -> bool:
    return line.startswith("#") and (":" in line or line.startswith("# "))


def _columns(line: str) -> list[str]:
    separator = next((one for one in "\t;," if one in line), None)
    if separator is None:
        return [part for part in re.split(r"[ \t]", line) if part]  # other white space is refused as part of the name
    parts = [part.strip(" \t").strip('"') for part in line.split(separator)]
    return [one for part in parts for one in (part.split() if re.fullmatch(r"\d+ +\d+ +\d+", part) else [part])]


def _cvat_row(path: Path, line: str) -> Row:
    found = _CVAT.fullmatch(line)
    assert found is not None
    colour = found["colour"]
    return found["name"].strip(), _colour(path, line, colour.split(",")) if colour else None


def _row(path: Path, line: str) -> Row:
    columns = _columns(line)
    is_table = any(one in line for one in "\t;,")
    for first in range(len(columns) - 3, -1, -1):
        numbers, others = columns[first : first + 3], columns[:first] + columns[first + 3 :]
        if not all(part.isdecimal() for part in numbers) or not others:
            continue
        if is_table and len(others) > 1 and others[0].isdecimal():
            others = others[1:]  # a column that counts the classes
        name = " ".join(part for part in others if part)
        if name and (first + 3 == len(columns) or not name.isdecimal()):
            return name, _colour(path, line, numbers)
    if is_table and any(part.isdecimal() for part in columns):
        raise UsageError(f"{path}: the line {line!r} is not understood. {_FORMAT}")
    return " ".join(columns) if not is_table else line, None


def _colour(path: Path, line: str, parts: list[str]) -> tuple[int, int, int]:
    red, green, blue = map(int, parts)
    if max(red, green, blue) > 255:
        raise UsageError(f"{path}: the line {line!r} has a colour beyond 255. {_FORMAT}")
    return red, green, blue
