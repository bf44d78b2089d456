"""What a data set is: classes, colours, and which image and mask belong together."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.errors import UsageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Sample:
    """One image. ``label`` is None where it has no mask; ``id`` names its outputs."""

    id: str
    image: Path
    label: Path | None = None


@dataclass(frozen=True)
class SegmentationData:
    """A data set, opened: everything that the streams need to know of it.

    Attributes
    ----------
    classes
        Names in the order of their indices.
    palette
        uint8 (256, 3), the RGB colour of every mask value.
    labelled, unlabelled, validation
        The images of a run. Labelled and validation samples have masks.
    """

    classes: tuple[str, ...]
    palette: np.ndarray
    labelled: tuple[Sample, ...]
    unlabelled: tuple[Sample, ...]
    validation: tuple[Sample, ...]


def find_root(data_dir: str, dataset: str) -> Path:
    """The root of a data set; ``dataset/x`` and ``datasets/x`` both find the one that exists."""
    root = Path(data_dir)
    parts = list(root.parts)
    other = {"dataset": "datasets", "datasets": "dataset"}
    twins = [
        Path(*[other.get(part, part) if i == at else part for i, part in enumerate(parts)])
        for at, name in enumerate(parts)
        if name in other
    ]
    for candidate in [root, *twins]:
        if candidate.is_dir():
            return candidate
    raise UsageError(
        f"data_dir {data_dir}: there is no such folder for the data set {dataset}. "
        'README, section "Data", says what goes where; --set data_dir=<folder> names another place.'
    )


def read_class_file(path: Path) -> list[tuple[str, tuple[int, int, int] | None]]:
    """Names and colours of a class file: a name a line, optionally followed by its red, green and blue."""
    rows = []
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        parts = line.split()
        if len(parts) >= 4 and all(part.isdigit() for part in parts[-3:]):
            red, green, blue = (min(int(part), 255) for part in parts[-3:])
            rows.append((" ".join(parts[:-3]), (red, green, blue)))
        elif parts:
            rows.append((" ".join(parts), None))
    if not rows:
        raise UsageError(f"{path}: names no class; write one a line.")
    return rows
