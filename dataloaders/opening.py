"""Picture files opened with suspicion: few formats, no decompression bombs, and messages that name the file."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from utils.errors import UsageError
from utils.inputs import open_plain, read_plain

MAX_PIXELS = 89_478_485
"""Pixels of the largest file that is decoded: Pillow's own limit against decompression bombs."""
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")  # nothing else is tried: some of Pillow's decoders run programs
_ORIENTATION = 0x0112
_TIFF_KINDS = {2: "signed whole numbers", 3: "floating-point numbers", 5: "complex numbers", 6: "complex numbers"}

# Whatever this would say without a name, the messages below say with the name of the file.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)


def content_of(path: Path, what: str) -> bytes:
    """The bytes of a file, which messages call ``what``."""
    try:
        return read_plain(path)
    except OSError as error:
        raise unreadable(path, what, error) from None


@contextmanager
def opened(
    path: Path, source: Path | bytes, what: str, formats: tuple[str, ...] = IMAGE_FORMATS
) -> Iterator[Image.Image]:
    """The file opened by Pillow, its size checked and nothing decoded yet; what fails names the file.

    Raises
    ------
    UsageError
        The file is missing, damaged, of none of the ``formats``, or has more than ``MAX_PIXELS`` pixels.
    """
    try:
        with (
            io.BytesIO(source) if isinstance(source, bytes) else open_plain(source) as file,
            Image.open(file, formats=formats) as image,
        ):
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UsageError(f"{path}: refused: more than {MAX_PIXELS:,} pixels (decompression bomb). Cut it up.") from None
    except UsageError:
        raise
    except UnidentifiedImageError:
        bands = _bands_of_tiff(source)
        if bands:
            raise UsageError(f"{path}: {bands}") from None
        raise unreadable(path, what, f"it is damaged, or none of {', '.join(formats)}") from None
    except Exception as error:  # a damaged file makes a decoder raise nearly anything
        raise unreadable(path, what, error) from None


def unreadable(path: Path, what: str, reason: Exception | str) -> UsageError:
    """The error for a file that is no picture, or a damaged one."""
    reason = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return UsageError(f"{path}: cannot be read as {what} ({reason.splitlines()[0]}). Replace it.")


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of an opened picture, 1 to 8; 1 where it has none, or a damaged one."""
    try:
        if isinstance(image, TiffImageFile):
            value = image.tag_v2.get(_ORIENTATION, 1)
        else:
            exif = Image.Exif()
            exif.load(image.info.get("exif") or _exif_of_png(image) or b"")
            value = exif.get(_ORIENTATION, 1)
    except Exception:  # the tags are damaged, which viewers pass over as well
        return 1
    return value if value in range(1, 9) else 1


def _exif_of_png(image: Image.Image) -> bytes | None:
    """The EXIF data that stand behind the pixels, where Pillow would decode all of them to find it."""
    file = image.fp
    if image.format != "PNG" or file is None:
        return None
    at = file.tell()
    try:
        file.seek(8)
        while len(header := file.read(8)) == 8:
            length = int.from_bytes(header[:4], "big")
            if header[4:] == b"eXIf":
                return file.read(length)
            file.seek(length + 4, io.SEEK_CUR)
        return None
    finally:
        file.seek(at)


def _bands_of_tiff(source: Path | bytes) -> str:
    """What a TIFF holds that Pillow does not know, and the way out; empty for any other file."""
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open_plain(source) as file:
            directory = ImageFileDirectory_v2(file.read(8))
            file.seek(directory.next)
            directory.load(file)
        bits, bands, is_gray = directory[258][0], directory.get(277, 1), directory.get(262) in (0, 1)
        kind = _TIFF_KINDS.get(directory.get(339, (1,))[0], "whole numbers")
    except Exception:  # no TIFF, or a damaged one
        return ""
    if is_gray and bands > 2 and kind == "whole numbers" and bits in (8, 16):
        return (
            f"is a TIFF with {bands} bands of {bits}-bit {kind}, and does not say which are red, green and blue. "
            "Choose three (gdal_translate -b 1 -b 2 -b 3 -co PHOTOMETRIC=RGB IN OUT)."
        )
    return (
        f"is a TIFF with {bands} {'band' if bands == 1 else 'bands'} of {bits}-bit {kind}, which are not read. Save it "
        "with 8 or 16 bits, gray or RGB."
    )
