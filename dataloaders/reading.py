"""Image and mask files as arrays, each checked as it is read."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from utils.errors import UsageError

IGNORE = -1
"""In memory, the target of a pixel without a class or subclass, whatever value its file has for it."""


def read_image(path: Path) -> np.ndarray:
    """An image file as RGB, uint8 (H, W, 3)."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise UsageError(f"{path}: cannot be read as an image; it is missing or damaged. Replace it.")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file, from its header."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, UnidentifiedImageError) as error:
        raise UsageError(f"{path}: cannot be read as an image ({error}). Replace it.") from None


def read_mask(path: Path, n_classes: int, ignore_index: int = 255) -> np.ndarray:
    """A class mask as int16 (H, W), ``IGNORE`` where its value is ``ignore_index``.

    Raises
    ------
    UsageError
        It is no single-channel mask, or holds ids outside the classes.
    """
    mask = _read_indices(path)
    outside = (mask >= n_classes) & (mask != ignore_index)
    if outside.any():
        ids = np.unique(mask[outside]).tolist()
        raise UsageError(
            f"{path}: holds the label id{'s' if len(ids) > 1 else ''} {', '.join(map(str, ids[:8]))}, but "
            f"there are {n_classes} classes (0 to {n_classes - 1}) and {ignore_index} for pixels without one. "
            "Mend the mask or the list of classes."
        )
    target = mask.astype(np.int16)
    target[mask == ignore_index] = IGNORE
    return target


def read_subclass_map(path: Path, n_subclasses: int) -> np.ndarray:
    """A subclass map of stage 3 as int16 (H, W); 255 (8 bit) or 65535 (16 bit) becomes ``IGNORE``."""
    if not path.is_file():
        raise UsageError(f"{path}: this subclass map is missing. Run stage 3 again (`--clustering True --force`).")
    indices = _read_indices(path)
    ignored = indices == np.iinfo(indices.dtype).max
    outside = (indices >= n_subclasses) & ~ignored
    if outside.any():
        raise UsageError(
            f"{path}: holds subclass {indices[outside].max()}, but there are {n_subclasses} subclasses; it is not of "
            "this run. Run stage 3 again (`--clustering True --force`)."
        )
    target = indices.astype(np.int16)
    target[ignored] = IGNORE
    return target


def _read_indices(path: Path) -> np.ndarray:
    """Values of a single-channel PNG, uint8 or uint16 (H, W)."""
    try:
        with Image.open(path) as image:
            mode, values = image.mode, np.asarray(image)
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise UsageError(f"{path}: cannot be read as a mask ({error}). Replace it.") from None
    if values.ndim != 2:
        raise UsageError(
            f"{path}: is a colour image ({mode}), not a mask of class indices. Save it as a single-channel or palette "
            "PNG whose values are the class indices."
        )
    return values.astype(np.uint16 if values.dtype.itemsize > 1 else np.uint8, copy=False)
