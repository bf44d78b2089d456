"""Values that compression and smoothing left: refused, or taken to the nearest that is meant (``--snap``)."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataloaders.mask_file import IGNORE_INDEX
from dataloaders.own.evidence import MaskStatistics, distance, main_values
from dataloaders.own.masks import rgb, shown
from utils.errors import UsageError, some

Rows = list[tuple[str, tuple[int, int, int] | None]]
"""Names and colours of a class file."""
TOPS = (IGNORE_INDEX, 65535)
"""What masks of 8 and 16 bit may hold for no class."""
_NEAR, _MANY, _MUCH = 16, 4, 0.02  # colours this close to listed ones, so many of them, on so many of the pixels
_AREA = 0.002  # of all pixels, from which on an area is worth naming
_TO_SNAP = 32  # values, beyond which none of them stand out if no main ones are found


def total_pixels(masks: Sequence[MaskStatistics]) -> Counter:
    """Pixels of every value over all masks."""
    return sum((Counter(mask.pixels) for mask in masks), Counter())


def meant_values(masks: Sequence[MaskStatistics], by_colour: bool, rows: Rows | None, snap: bool) -> list[int]:
    """The values that are meant: all, or with ``snap`` those that compression and smoothing started from."""
    pixels = total_pixels(masks)
    mains = main_values(masks, by_colour)
    ids = [value for value in pixels if value not in TOPS]
    is_named = rows and (len(pixels) - len(rows) in (0, 1) or max(ids, default=0) < len(rows))
    if mains is None or is_named:
        if snap and len(pixels) > _TO_SNAP:
            way = f"Are these masks? {way_with_classes(masks)}" if by_colour else "Are these masks?"
            raise UsageError(
                f"--snap: the masks hold {len(pixels):,} values, and no few of them hold nearly all pixels. {way}"
            )
        return sorted(pixels)
    if not snap:
        others = sum(count for value, count in pixels.items() if value not in set(mains)) / pixels.total()
        raise UsageError(
            f"the masks hold {listed(mains, by_colour)} and {len(pixels) - len(mains):,} other values, which cover "
            f"{others:.2%} of the pixels and form no areas, as JPEG compression and smoothed edges leave them. --snap "
            "takes them to the nearest of the main values; or export the masks anew without compression and "
            "interpolation. If they are classes, --classes names all of them."
        )
    return mains


def way_with_classes(masks: Sequence[MaskStatistics]) -> str:
    """How to take the pixels of masks in very many colours to those that are meant, whose areas are the largest."""
    solid = sum((Counter(mask.solid) for mask in masks), Counter())
    least = _AREA * total_pixels(masks).total()
    largest: list[int] = []
    for value, count in solid.most_common():
        if count >= least and all(distance(value, one, True) > _NEAR for one in largest):
            largest.append(value)
    seen = f" The largest areas have about {listed(largest, True)}." if largest else ""
    return (
        "List the colours that are meant in a file, a line each (<name> <red> <green> <blue>): --classes FILE --snap "
        f"takes every pixel to the nearest of them.{seen}"
    )


def refuse_near_colours(pixels: Counter, rows: Rows, class_file: Path | None) -> None:
    """Refuse colours that lie close to listed ones without being one: they would be ignored, and are meant."""
    ends = np.array([colour for _, colour in rows if colour is not None]).reshape(-1, 3)
    values = np.array([value for value in pixels if value >= 0])
    if not len(ends) or not len(values):
        return
    colours = np.stack([values >> 16, values >> 8 & 0xFF, values & 0xFF], axis=1)
    away = np.min([np.abs(colours - end).max(1) for end in ends], axis=0)
    near = values[(away > 0) & (away <= _NEAR)].tolist()
    share = sum(pixels[value] for value in near) / pixels.total()
    if len(near) >= _MANY and share > _MUCH:
        raise UsageError(
            f"--classes {class_file}: {share:.1%} of the pixels have {len(near):,} colours that are nearly those of "
            "the file, as compression leaves them. --snap takes them to the nearest; without it they would be no class."
        )


def nearest(found: np.ndarray, targets: Sequence[int], by_colour: bool) -> list[int]:
    """The nearest of ``targets`` for each value: by the difference, of colours by the distance in RGB."""
    ends = np.array([value for value in targets if value >= 0])
    if not by_colour:
        return [int(ends[np.abs(ends - value).argmin()]) for value in found]
    places = np.array([rgb(value) for value in ends.tolist()])
    return [int(ends[((places - rgb(value)) ** 2).sum(1).argmin()]) for value in found.tolist()]


def listed(values: Sequence[int], by_colour: bool = False) -> str:
    """The first dozen of values, or of colours, for a message."""
    return some(
        [f"({shown(value, True).replace(' ', ', ')})" if by_colour else shown(value, False) for value in values], 12
    )
