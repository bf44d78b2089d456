"""Image and mask files as arrays, each checked as it is read (docs/data.md says what is taken and what refused)."""

import struct
import zlib
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from dataloaders.images import turned
from dataloaders.opening import MAX_PIXELS, content_of, opened, orientation_of
from utils.errors import UsageError
from utils.palette import indices_of_colours, voc_palette

IGNORE = -1
"""In memory, the target of a pixel without a class or subclass, whatever value its file has for it."""
MASK_FORMATS = ("PNG", "BMP", "TIFF", "JPEG")  # JPEG only to be refused by its name
_OUTSIDE = -2  # in memory, a value that is no index and is not ignored either
_WANTED = "Save it as a single-channel or palette PNG whose values are the class indices."


def read_mask(path: Path, n_classes: int, ignore_index: int = 255, palette: np.ndarray | None = None) -> np.ndarray:
    """A class mask as int16 (H, W), ``IGNORE`` where its value is ``ignore_index``.

    A mask in colours is converted where every colour is a class's in ``palette``, uint8 (256, 3), VOC's own unless
    given, or the one for pixels without a class.

    Raises
    ------
    UsageError
        It is no mask of class indices or of the classes' colours, or holds ids outside the classes.
    """
    mask = _read_values(path)
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
    indices = _read_values(path)
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


def _read_values(path: Path) -> np.ndarray:
    """Values of a mask file: uint8 or uint16 (H, W), or the colours of an RGB mask, uint8 (H, W, 3)."""
    content = content_of(path, "a mask")
    plain = _plain_png(content)
    if plain is not None:
        return plain
    with opened(path, content, "a mask", MASK_FORMATS) as image:
        kind, values = image.format, np.asarray(image)
        if kind != "TIFF":  # which Pillow has turned
            values = turned(values, orientation_of(image))
    if kind == "PNG":
        with opened(path, content, "a mask", MASK_FORMATS) as unread:
            unread.verify()  # the check sums: decoding passes over those at the end
    if kind == "JPEG":
        raise UsageError(f"{path}: is a JPEG, whose compression changes class indices. Save the mask as a PNG.")
    if values.ndim == 3 and values.shape[2] in (2, 4) and image.mode in ("LA", "PA", "RGBA"):
        if (values[..., -1] != 255).any():
            raise UsageError(f"{path}: is a mask with transparent pixels. Save it as a palette PNG without alpha.")
        values = values[..., 0] if values.shape[2] == 2 else values[..., :3]
    if (values.ndim == 3 and values.shape[2] != 3) or values.dtype.kind == "f":
        raise UsageError(f"{path}: is a picture of mode {image.mode}, not a mask. {_WANTED}")
    if values.dtype.itemsize == 1:
        return values.astype(np.uint8, copy=False)
    if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
        raise UsageError(f"{path}: holds values beyond 16 bit ({values.min()} to {values.max()}). {_WANTED}")
    return values.astype(np.uint16)


def _plain_png(content: bytes) -> np.ndarray | None:
    """Values or palette indices, uint8 (H, W), of an 8-bit PNG with unfiltered rows, as palette PNGs mostly are.

    It takes a third of Pillow's time. None for any other file, and where a chunk's check sum is wrong: Pillow says
    what that is.
    """
    if content[:16] != b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" or len(content) < 33:
        return None
    width, height, *kind = struct.unpack_from(">IIBBBBB", content, 16)
    if kind not in ([8, 0, 0, 0, 0], [8, 3, 0, 0, 0]) or not 0 < width * height <= MAX_PIXELS:
        return None
    at, name, data = 8, b"", []
    while name != b"IEND":
        if at + 12 > len(content):
            return None
        name = content[at + 4 : at + 8]
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        if name in (b"tRNS", b"eXIf") or zlib.crc32(content[at + 4 : end]) != int.from_bytes(
            content[end : end + 4], "big"
        ):
            return None
        if name == b"IDAT":
            data.append(content[at + 8 : end])
        at = end + 4
    # Without zlib's own check sum, which the chunks' has made needless: it takes a third of the time.
    size, inflate = height * (width + 1), zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        rows = inflate.decompress(b"".join(data)[2:], size + 1)
    except zlib.error:
        return None
    if len(rows) != size or not inflate.eof:
        return None
    rows = np.frombuffer(rows, np.uint8).reshape(height, width + 1)
    return None if rows[:, 0].any() else rows[:, 1:]


def _from_colours(
    path: Path, colours: np.ndarray, n_classes: int, ignore_index: int, palette: np.ndarray
) -> np.ndarray:
    indices, unknown = indices_of_colours(colours, palette, n_classes, ignore_index)
    if unknown is None:
        return indices
    if (colours == colours[..., :1]).all():
        way = "Its three channels are the same: save one of them as the mask."
    else:
        way = f"Give the classes their colours (classes.txt: name red green blue), or: {_WANTED}"
    raise UsageError(
        f"{path}: is an RGB image, not a mask of class indices; its colour {unknown} is not that of one class. {way}"
    )
