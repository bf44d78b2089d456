"""Annotations drawn as masks: from there on they are masks like any other."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataloaders.mask_file import MAX_CLASSES
from utils.errors import UsageError
from utils.palette import save_mask, voc_palette

BACKGROUND = "background"


@dataclass(frozen=True)
class Drawn:
    """Masks that were drawn.

    Attributes
    ----------
    folder
        The masks, named after their images; 255 is no class.
    class_file
        The names of the classes, the background first.
    notes
        What was assumed, a sentence each.
    """

    folder: Path
    class_file: Path
    notes: list[str] = field(default_factory=list)


def write_drawn_mask(path: Path, mask: np.ndarray) -> None:
    """Write class indices, uint8 (H, W), at a path whose folders need not be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_mask(path, mask, voc_palette())


def write_class_names(path: Path, names: Sequence[str], source: Path) -> Path:
    """Write the names of the classes, one a line.

    Raises
    ------
    UsageError
        There are none or too many, or two of one name.
    """
    if not names:
        raise UsageError(f"{source}: no object in it has a class. Annotate some, or name another file.")
    if len(names) >= MAX_CLASSES:
        raise UsageError(f"{source}: names {len(names)} classes, at most {MAX_CLASSES - 1} are possible. Join some.")
    for name in names:
        if names.count(name) > 1 or name.lower() == BACKGROUND:
            raise UsageError(f"{source}: has two classes of the name {name!r}. Give every class a name of its own.")
    path.write_text("\n".join([BACKGROUND, *(" ".join(name.split()) for name in names)]) + "\n", encoding="utf-8")
    return path
