"""Image and mask files as arrays, each checked as it is read (docs/data.md says what is taken and what refused)."""

from functools import cache
from pathlib import Path

import cv2
import numpy as np

from dataloaders.images import read_image as read_image
from dataloaders.mask_file import IGNORE_INDEX, WANTED, read_mask_file
from utils.errors import UsageError
from utils.palette import indices_of_colours, voc_palette

IGNORE = -1
"""In memory, the target of a pixel without a class or subclass, whatever value its file has for it."""
_OUTSIDE = -2  # in memory, a value that is no index and is not ignored either


def read_mask(
    path: Path, n_classes: int, ignore_index: int = IGNORE_INDEX, palette: np.ndarray | None = None
) -> np.ndarray:
    """A class mask as int16 (H, W), ``IGNORE`` where its value is ``ignore_index``.

    A mask in colours is converted where every colour is a class's in ``palette``, uint8 (256, 3), VOC's own unless
    given, or the one for pixels without a class.

    Raises
    ------
    UsageError
        It is no mask of class indices or of the classes' colours, or holds ids outside the classes.
    """
    mask = _values(path)
    if mask.ndim == 3:
        mask = _from_colours(path, mask, n_classes, ignore_index, voc_palette() if palette is None else palette)
    target, outside = _targets(mask, n_classes, ignore_index)
    if outside:
        raise UsageError(
            f"{path}: holds the label id{'s' if len(outside) > 1 else ''} {', '.join(map(str, outside[:8]))}, but "
            f"there are {n_classes} classes (0 to {n_classes - 1}) and {ignore_index} for pixels without one. "
            "Mend the mask or the list of classes."
        )
    return target


def read_subclass_map(path: Path, n_subclasses: int) -> np.ndarray:
    """A subclass map of stage 3 as int16 (H, W); 255 (8 bit) or 65535 (16 bit) becomes ``IGNORE``."""
    if not path.is_file():
        raise UsageError(f"{path}: this subclass map is missing. Run stage 3 again (`--clustering True --force`).")
    indices = _values(path)
    if indices.ndim == 3:
        raise UsageError(
            f"{path}: is a colour image, no subclass map. Run stage 3 again (`--clustering True --force`)."
        )
    target, outside = _targets(indices, n_subclasses, np.iinfo(indices.dtype).max)
    if outside:
        raise UsageError(
            f"{path}: holds subclass {outside[-1]}, but there are {n_subclasses} subclasses; it is not of "
            "this run. Run stage 3 again (`--clustering True --force`)."
        )
    return target


def _targets(values: np.ndarray, count: int, ignored: int) -> tuple[np.ndarray, list[int]]:
    """Values (H, W) as int16, ``IGNORE`` where they are ``ignored``; and, in order, those that are not below count."""
    table = _target_table(np.iinfo(values.dtype).max + 1, count, ignored)
    targets = cv2.LUT(values, table) if values.dtype == np.uint8 else table[values]
    return targets, np.unique(values[targets == _OUTSIDE]).tolist() if targets.min() == _OUTSIDE else []


@cache
def _target_table(size: int, count: int, ignored: int) -> np.ndarray:
    values = np.arange(size)
    table = np.where(values < count, values, _OUTSIDE).astype(np.int16)
    table[values == ignored] = IGNORE
    return table


def _values(path: Path) -> np.ndarray:
    """Values of a mask file, uint8 or uint16 (H, W), or the colours of an RGB mask, uint8 (H, W, 3)."""
    mask = read_mask_file(path)
    if mask.is_lossy:
        raise UsageError(
            f"{path}: is compressed as a photo ({mask.format}), which changes class indices. Save the mask as a PNG."
        )
    if mask.alpha is not None:
        raise UsageError(f"{path}: is a mask with transparent pixels. Save it as a palette PNG without alpha.")
    return mask.values


def _from_colours(
    path: Path, colours: np.ndarray, n_classes: int, ignore_index: int, palette: np.ndarray
) -> np.ndarray:
    indices, unknown = indices_of_colours(colours, palette, n_classes, ignore_index)
    if unknown is None:
        return indices
    if (colours == colours[..., :1]).all():
        way = "Its three channels are the same: save one of them as the mask."
    else:
        way = f"Give the classes their colours (classes.txt: name red green blue), or: {WANTED}"
    raise UsageError(
        f"{path}: is an RGB image, not a mask of class indices; its colour {unknown} is not that of one class. {way}"
    )
