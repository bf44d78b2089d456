"""Pictures and masks, read with suspicion: whole, of the right kind, and no larger than they may be."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from utils.errors import first_line

_FORMATS = ("JPEG", "PNG")  # nothing else is tried: some decoders run programs
_MASK_MODES = ("L", "P")


class BadFile(Exception):
    """A file that cannot be used. The message says why, without the file's name."""


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width from the header of a JPEG or PNG file."""
    with _opened(path) as image:
        return image.height, image.width


def check_picture(path: Path) -> tuple[int, int]:
    """Decode a whole JPEG or PNG file; its height and width.

    Raises
    ------
    BadFile
        The file is missing, truncated, damaged, of another format, or a decompression bomb.
    """
    with _opened(path) as image:
        size = image.height, image.width
        image.load()
    _check_sums(path)
    return size


def is_in_order(target: Path, size: int) -> bool:
    """Whether a file need not be brought again from an original of ``size`` bytes.

    It has that size (files here only ever appear whole), or is the user's own: a picture that can be read, a
    list.
    """
    if not target.is_file():
        return False
    if target.stat().st_size == size or target.suffix == ".txt":
        return True
    try:
        check_picture(target)
    except BadFile:
        return False
    return True


def read_ids(path: Path, allowed: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Class indices of a mask file, uint8 (H, W).

    Parameters
    ----------
    path
        A single-channel or palette PNG.
    allowed
        bool (256,), true for every index that may occur.
    size
        Height and width of the image that the mask belongs to.

    Raises
    ------
    BadFile
        As in ``check_picture``, and for colours, another size, or indices that are no class.
    """
    with _opened(path) as image:
        if image.mode not in _MASK_MODES:
            raise BadFile(f"is a picture of mode {image.mode}, not a mask of class indices")
        ids = np.array(image)
    _check_sums(path)
    check_ids(ids, allowed, size)
    return ids


def check_ids(ids: np.ndarray, allowed: np.ndarray, size: tuple[int, int]) -> None:
    """Raise ``BadFile`` unless ``ids``, uint8 (H, W), has the size and holds allowed indices only."""
    if ids.shape != size:
        raise BadFile(f"has {_by(ids.shape)} pixels, its image {_by(size)}")
    wrong = np.flatnonzero(np.bincount(ids.ravel(), minlength=256)[:256] * ~allowed)
    if len(wrong):
        raise BadFile(f"holds the indices {', '.join(map(str, wrong[:5]))}, which are no class")


def mask_png(ids: np.ndarray) -> bytes:
    """A mask, uint8 (H, W), as the bytes of a single-channel PNG."""
    file = io.BytesIO()
    Image.fromarray(ids).save(file, format="PNG")
    return file.getvalue()


def uncompressed_png(path: Path) -> bytes | None:
    """The same pixels as a PNG without compression, which is read several times faster.

    None if the file is one already, or is of another kind than RGB, single channel and palette PNG. A palette is
    left out: its indices are the values.

    Raises
    ------
    BadFile
        As in ``check_picture``.
    """
    with _opened(path) as image:
        size = image.width * image.height * len(image.getbands())
        if image.format != "PNG" or image.mode not in ("RGB", *_MASK_MODES) or path.stat().st_size > size:
            return None
        pixels = np.asarray(image)
    if pixels.ndim == 3:
        pixels = pixels[..., ::-1]  # OpenCV's order
    plain = [cv2.IMWRITE_PNG_COMPRESSION, 0, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
    return cv2.imencode(".png", pixels, plain)[1].tobytes()


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                yield image
    except BadFile:
        raise
    except FileNotFoundError:
        raise BadFile("missing") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadFile(f"refused: more than {Image.MAX_IMAGE_PIXELS:,} pixels (decompression bomb)") from None
    except Exception as error:  # a damaged file makes a decoder raise nearly anything
        raise BadFile(f"unreadable ({first_line(error)[:120]})") from None


def _check_sums(path: Path) -> None:
    """The check sums of a PNG file, which decoding alone does not look at."""
    with _opened(path) as image:
        if image.format == "PNG":
            image.verify()


def _by(size: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in reversed(size))
