"""Image files as arrays, each checked as it is read (docs/data.md says what is taken and what refused)."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from dataloaders.opening import content_of, opened, orientation_of, unreadable
from utils.errors import UsageError
from utils.logger import log

ValueRange = tuple[int, int]
"""The darkest and the brightest value of a data set's images of more than 8 bit."""
_EXTRA_SAMPLES, _ALPHA = 338, 2  # TIFF: a band beside the colours, and that it is alpha
_PLANES, _SEPARATE = 284, 2  # TIFF: one band after the other
_FEW = 0.1  # per cent of an image's values that may be of hot and dead pixels
_JPEG_FLAGS = {  # beside a flag that asks for colour, they only ask for the size
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
_warned: list[Path | str] = []
if hasattr(cv2, "setLogLevel"):  # which OpenCV 5 has no more
    cv2.setLogLevel(0)  # the messages say the same with the name of the file


def read_image(
    path: Path,
    *,
    upright: bool = True,
    mask_size: tuple[int, int] | None = None,
    value_range: ValueRange | None = None,
) -> np.ndarray:
    """An image file as RGB, uint8 (H, W, 3): ``read_sized`` without the size."""
    return read_sized(path, upright=upright, mask_size=mask_size, value_range=value_range)[0]


def read_sized(
    path: Path,
    *,
    upright: bool = True,
    mask_size: tuple[int, int] | None = None,
    value_range: ValueRange | None = None,
    least_side: int = 0,
) -> tuple[np.ndarray, tuple[int, int]]:
    """An image file as RGB, uint8 (H, W, 3), and its height and width.

    It is upright as viewers show it: turned as its EXIF orientation says. 16-bit values are brought to 8 bit, gray and
    CMYK to RGB; transparency and other bands beyond the third are dropped.

    Parameters
    ----------
    upright
        False gives the pixels as they are stored.
    mask_size
        Height and width of the image's mask: where only the stored pixels have this size, the mask was drawn on them,
        and they stay as they are.
    value_range
        The values that become 0 and 255, of an image of 16 bit; None takes the whole range of the type.
    least_side
        Where it is not 0, a JPEG may be given at a half, a quarter or an eighth of its size, which takes less time, as
        long as its longer side keeps this many pixels.

    Raises
    ------
    UsageError
        The file is no image, damaged, too large, or holds values of another kind.
    """
    pixels, size, orientation, is_upright = _decode(path, least_side)
    image = as_rgb(pixels, path, value_range)
    turned_size = size[::-1] if orientation >= 5 else size
    shown_size, stored_size = (size, turned_size) if is_upright else (turned_size, size)
    if is_upright == (not upright or mask_size == stored_size != shown_size):
        return turned(image, _INVERSE.get(orientation, orientation) if is_upright else orientation), turned_size
    return image, size


def shrinking(size: tuple[int, ...], least_side: int) -> int:
    """By which of 1, 2, 4 and 8 height and width may be divided so that the longer one keeps ``least_side`` pixels.

    Only a number without remainder: then all places stay where they are. 1 where ``least_side`` is 0.
    """
    factors = (factor for factor in _JPEG_FLAGS if not any(side % factor for side in size))
    return max((factor for factor in factors if max(size) >= factor * least_side > 0), default=1)


@dataclass(frozen=True)
class ImageLook:
    """What the header of an image says.

    Attributes
    ----------
    size, stored_size
        (H, W) as viewers show it, and as it is stored: its EXIF orientation may turn it by 90 degrees.
    mode
        Pillow's.
    is_turned
        Whether it has an EXIF orientation other than the plain one.
    values
        The least and the greatest value of an image of more than 8 bit, but for hot and dead pixels: up to 0.1 % of the
        values, where these lie beyond the others by more than the range of the others. All pixels are read for it.
    extremes
        The least and the greatest value with these.
    """

    size: tuple[int, int]
    stored_size: tuple[int, int]
    mode: str
    is_turned: bool
    values: ValueRange | None = None
    extremes: ValueRange | None = None


def look_at_image(path: Path) -> ImageLook:
    """The header of an image, and the values of a deep one.

    Raises
    ------
    UsageError
        The file is no image that can be read.
    """
    with opened(path, path, "an image") as image:
        size = stored = image.height, image.width
        mode, orientation = image.mode, orientation_of(image)
        if orientation >= 5:
            size, stored = (size, size[::-1]) if image.format == "TIFF" else (size[::-1], size)  # Pillow turns a TIFF
        deep = isinstance(image, TiffImageFile) and max(image.tag_v2.get(258, (1,))) > 8
        if image.format == "PNG" and image.fp is not None:
            image.fp.seek(24)
            deep = image.fp.read(1) == b"\x10"
    values = extremes = None
    if deep:
        pixels, *_ = _decode(path)
        as_rgb(pixels[:1, :1], path)  # refuses what has no range
        least, greatest = extremes = int(pixels.min()), int(pixels.max())
        low, high = map(int, np.percentile(pixels, (_FEW, 100 - _FEW), method="nearest"))
        values = low if least < 2 * low - high else least, high if greatest > 2 * high - low else greatest
    return ImageLook(size, stored, mode, orientation > 1, values, extremes)


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image or mask file, from its header, as viewers show it."""
    with opened(path, path, "an image") as image:
        turn = image.format != "TIFF" and orientation_of(image) >= 5  # a TIFF's size is the turned one's already
        return (image.width, image.height) if turn else (image.height, image.width)


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels (H, W, …) as a viewer shows them that follows the EXIF orientation."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


_INVERSE = {6: 8, 8: 6}  # all other turns undo themselves


def as_rgb(pixels: np.ndarray, path: Path | str, value_range: ValueRange | None = None) -> np.ndarray:
    """Gray (H, W) or colours (H, W, 3) as uint8 (H, W, 3); integers of 16 bit are scaled, any other are refused."""
    if pixels.dtype != np.uint8:
        if pixels.dtype.kind not in "ui" or pixels.dtype.itemsize != 2:
            kind = "floating-point numbers" if pixels.dtype.kind == "f" else "whole numbers"
            raise UsageError(
                f"{path}: holds {8 * pixels.dtype.itemsize}-bit {kind}, whose range of brightness nobody knows. Save "
                "it with 8 or 16 bits."
            )
        if value_range is None:
            _warn_of_unused_range(pixels, path)
        pixels = _eight_bit_table(pixels.dtype.str, value_range)[np.ascontiguousarray(pixels).view(np.uint16)]
    return pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)


def _warn_of_unused_range(pixels: np.ndarray, path: Path | str) -> None:
    """Say once a process that a 16-bit image uses little of its type's range."""
    low, high = int(pixels.min()), int(pixels.max())
    if _warned or high - low >= 2**16 / 4 or pixels.size == 1:
        return
    _warned.append(path)
    log.warning(
        f"{path}: its 16-bit values go from {low} to {high}, less than a quarter of the type's range, and few gray "
        "levels are left of them. `--check_data True` finds and stores the range of a data set's files; "
        "--set data.value_range=[LOW,HIGH] says it."
    )


@cache
def _eight_bit_table(dtype: str, value_range: ValueRange | None) -> np.ndarray:
    """uint8 (65536,): the 8-bit value of all 16-bit values, by their bits as an unsigned number."""
    values = np.arange(2**16, dtype=np.uint16).view(dtype).astype(float)
    low, high = value_range or (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return ((values - low) * (255 / max(1, high - low))).round().clip(0, 255).astype(np.uint8)


def _decode(path: Path, least_side: int = 0) -> tuple[np.ndarray, tuple[int, int], int, bool]:
    """Values as they are stored, gray (H, W) or RGB (H, W, 3); the file's height and width, which may be more than a
    JPEG's values; the orientation; and whether it was followed."""
    content = content_of(path, "an image")
    with opened(path, content, "an image") as header:
        orientation, is_tiff = orientation_of(header), isinstance(header, TiffImageFile)
        if isinstance(header, TiffImageFile):
            bits, extra = header.tag_v2.get(258, (1,)), header.tag_v2.get(_EXTRA_SAMPLES, ())
            if bits[0] == 16 and len(bits) > 1 and header.tag_v2.get(_PLANES) == _SEPARATE:
                raise UsageError(
                    f"{path}: is a TIFF of 16 bit with one band after the other. Save it interleaved (gdal_translate "
                    "-co INTERLEAVE=PIXEL IN OUT)."
                )
            if bits[0] == 8 and (_ALPHA in extra or len(extra) > 1):  # OpenCV multiplies by alpha, or knows no such
                return _with_size(np.asarray(header.convert("RGB")), orientation, True)
        size = header.height, header.width
        factor = shrinking(size, least_side) if isinstance(header, JpegImageFile) else 1
    # OpenCV turns every TIFF, as Pillow does; and reads bands of 16 bit whole only if it may leave them as they are.
    flags = cv2.IMREAD_UNCHANGED if is_tiff else cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH
    flags |= _JPEG_FLAGS.get(factor, 0)
    try:
        # Not imread, which takes a truncated JPEG for whole and some names for missing files.
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise unreadable(path, "an image", "it is truncated or damaged")
    if is_tiff and pixels.ndim == 3:
        pixels = np.ascontiguousarray(pixels[..., 2::-1])
    return (pixels, size, orientation, False) if factor > 1 else _with_size(pixels, orientation, is_tiff)


def _with_size(pixels: np.ndarray, orientation: int, is_upright: bool) -> tuple[np.ndarray, tuple[int, int], int, bool]:
    return pixels, (pixels.shape[0], pixels.shape[1]), orientation, is_upright
