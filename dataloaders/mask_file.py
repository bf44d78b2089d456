"""The one decoder of mask files: what is stored in one, before anybody says which value is which class."""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dataloaders.images import turned
from dataloaders.opening import MAX_PIXELS, content_of, opened, orientation_of
from utils.errors import UsageError

IGNORE_INDEX = 255
"""In mask files, the value of a pixel without a class, unless a configuration names another."""
MAX_CLASSES = 250
MASK_FORMATS = ("PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG")
WANTED = "Save it as a single-channel or palette PNG whose values are the class indices."
_WITH_ALPHA = ("LA", "PA", "RGBA")


@dataclass(frozen=True)
class MaskFile:
    """A decoded mask.

    Attributes
    ----------
    values
        uint8 or uint16 (H, W): the values or palette indices. Of a picture in colours, uint8 (H, W, 3).
    format, mode
        Pillow's names of them.
    palette
        uint8 (256, 3), the colours of a palette picture; else None.
    alpha
        uint8 (H, W); None where all of the mask is opaque.
    is_lossy
        Whether it is compressed as a photo, by a method that changes values.
    """

    values: np.ndarray
    format: str
    mode: str
    palette: np.ndarray | None = None
    alpha: np.ndarray | None = None
    is_lossy: bool = False


def read_mask_file(path: Path) -> MaskFile:
    """Decode a mask file; of one with several pictures, the first.

    Raises
    ------
    UsageError
        It cannot be read, or holds what can be no class: fractions, negative values, values beyond 16 bit.
    """
    content = content_of(path, "a mask")
    plain = _plain_png(content)
    if plain is not None:
        return plain
    with opened(path, content, "a mask", MASK_FORMATS) as image:
        kind, mode = image.format or "", image.mode
        lossy = kind == "JPEG" or image.info.get("compression") == "jpeg" or (kind == "WEBP" and b"VP8 " in content)
        palette = _palette(image.getpalette("RGB") or []) if mode in ("P", "PA") else None
        blue_first = _is_8_bit_colour_png(image, content)
        values = _colours_of_png(content) if blue_first else np.asarray(image)
        if kind != "TIFF":  # which Pillow has turned
            values = turned(values, orientation_of(image))
    if kind == "PNG":
        with opened(path, content, "a mask", MASK_FORMATS) as unread:
            unread.verify()  # the check sums: decoding passes over those at the end
    alpha = None
    if mode in _WITH_ALPHA:
        alpha = cv2.extractChannel(values, values.shape[2] - 1)
        alpha = None if alpha.min() == 255 else alpha
        to_rgb = cv2.COLOR_BGRA2RGB if blue_first else cv2.COLOR_RGBA2RGB
        values = cv2.extractChannel(values, 0) if values.shape[2] == 2 else cv2.cvtColor(values, to_rgb)
    elif blue_first:
        values = cv2.cvtColor(values, cv2.COLOR_BGR2RGB)
    if values.ndim == 3 and mode not in ("RGB", "RGBA"):
        raise UsageError(f"{path}: is a picture of mode {mode}, not a mask. {WANTED}")
    return MaskFile(_as_indices(path, values), kind, mode, palette, alpha, lossy)


def _as_indices(path: Path, values: np.ndarray) -> np.ndarray:
    """The values in 8 or 16 bit without a sign."""
    if values.dtype.itemsize == 1:
        return values.astype(np.uint8, copy=False)
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        raise UsageError(f"{path}: holds fractions, infinite values or NaN, so it is no mask of class ids. {WANTED}")
    if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
        raise UsageError(f"{path}: holds values beyond 16 bit ({values.min()} to {values.max()}). {WANTED}")
    return values.astype(np.uint16)


def _palette(rows: list[int] | bytes) -> np.ndarray:
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(rows) // 3] = np.reshape(np.frombuffer(bytes(rows), np.uint8), (-1, 3))[:256]
    return palette


def _is_8_bit_colour_png(image: Image.Image, content: bytes) -> bool:
    return image.format == "PNG" and content[24:26] in (b"\x08\x02", b"\x08\x06") and "transparency" not in image.info


def _colours_of_png(content: bytes) -> np.ndarray:
    """uint8 (H, W, 3 or 4), blue first: otherwise as Pillow decodes it, in two thirds of the time."""
    values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if values is None:
        raise OSError("it is truncated or damaged")
    return values


def _plain_png(content: bytes) -> MaskFile | None:
    """An 8-bit gray or palette PNG with unfiltered rows, as palette PNGs mostly are.

    It takes a third of Pillow's time. None for any other file, and where a chunk's check sum is wrong: Pillow says
    what that is.
    """
    if content[:16] != b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" or len(content) < 33:
        return None
    width, height, *kind = struct.unpack_from(">IIBBBBB", content, 16)
    if kind not in ([8, 0, 0, 0, 0], [8, 3, 0, 0, 0]) or not 0 < width * height <= MAX_PIXELS:
        return None
    at, name, data, palette = 8, b"", [], None
    while name != b"IEND":
        if at + 12 > len(content):
            return None
        name = content[at + 4 : at + 8]
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        check_sum = int.from_bytes(content[end : end + 4], "big")
        if name in (b"tRNS", b"eXIf") or zlib.crc32(content[at + 4 : end]) != check_sum:
            return None
        if name == b"PLTE":
            palette = content[at + 8 : end]
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
    if rows[:, 0].any():
        return None
    mode = "L" if kind[1] == 0 else "P"
    if mode == "P" and (palette is None or len(palette) % 3 or len(palette) > 768):
        return None
    return MaskFile(rows[:, 1:], "PNG", mode, _palette(palette or b"") if mode == "P" else None)
