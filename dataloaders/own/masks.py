"""What masks hold: class indices, palette or RGB colours; read, counted and written as index masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dataloaders.images import ImageLook
from dataloaders.opening import opened
from utils.errors import UsageError, some
from utils.palette import save_mask

IGNORE = 255
MASK_FORMATS = ("PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG")  # JPEG only to be refused by its name
MAX_VALUES = 251  # 250 classes and one value for pixels without a class
_COLOUR_MODES = ("RGB", "RGBA")


@dataclass(frozen=True)
class MaskContents:
    """What one mask file holds.

    Attributes
    ----------
    size
        (H, W).
    pixels
        Pixels of every value that occurs. The values are those of the file, or of an RGB picture its colours.
    colours
        The colour of every value, where the file says one (palette, RGB).

    Colours are whole numbers, 0xRRGGBB.
    """

    path: Path
    mode: str
    size: tuple[int, int]
    pixels: dict[int, int]
    colours: dict[int, int]

    @property
    def in_colour(self) -> bool:
        """Whether it is a colour picture, other than a gray one saved as such."""
        return self.mode in _COLOUR_MODES and any(not is_gray(value) for value in self.pixels)


def look_at_mask(path: Path) -> MaskContents:
    """Read and count one mask.

    Raises
    ------
    UsageError
        It cannot be read, or is a photo, or compressed as one.
    """
    with _opened(path) as image:
        if image.format == "JPEG":
            raise UsageError(
                f"{path}: is a JPEG, whose compression mixes the values of neighbouring classes. Save masks as PNG."
            )
        mode, values = image.mode, _values(image, path)
        palette = image.getpalette("RGB") if mode == "P" else None
    found, counts = np.unique(values, return_counts=True)
    if len(found) > MAX_VALUES:
        raise UsageError(
            f"{path}: holds {len(found):,} different values; a mask has one for each of at most 250 classes. Is it a "
            "photo, or a mask with smoothed edges?"
        )
    colours = {}
    if mode in _COLOUR_MODES:
        colours = {int(value): int(value) for value in found}
    elif palette is not None:
        rows = np.zeros((256, 3), np.int64)
        rows[: len(palette) // 3] = np.reshape(palette, (-1, 3))
        colours = {int(value): int(_as_number(rows[value])) for value in found}
    pixels = {int(value): int(count) for value, count in zip(found, counts, strict=True)}
    return MaskContents(path, mode, values.shape, pixels, colours)


def are_read_by_colour(masks: Sequence[MaskContents]) -> bool:
    """Whether the colours of the masks, and not their values, say the class.

    They do in RGB pictures, and in palette pictures whose palettes contradict each other.
    """
    coloured = [mask for mask in masks if mask.in_colour]
    plain = [mask for mask in masks if mask.mode not in ("P", *_COLOUR_MODES)]
    if coloured and plain:
        raise UsageError(
            f"{coloured[0].path} is a colour picture and {plain[0].path} is not: the masks must be all of one kind."
        )
    palettes = [mask for mask in masks if mask.mode == "P"]
    known: dict[int, int] = {}
    return bool(coloured) or any(
        known.setdefault(value, colour) != colour for mask in palettes for value, colour in mask.colours.items()
    )


def pixels_of(mask: MaskContents, by_colour: bool) -> dict[int, int]:
    """Pixels of every value, or of every colour, of a mask."""
    if by_colour:
        found: dict[int, int] = {}
        for value, count in mask.pixels.items():  # two values of a palette may have one colour
            found[mask.colours[value]] = found.get(mask.colours[value], 0) + count
        return found
    if mask.mode in _COLOUR_MODES:
        return {value & 0xFF: count for value, count in mask.pixels.items()}
    return mask.pixels


def write_index_mask(source: Path, target: Path, values: Sequence[int], by_colour: bool, palette: np.ndarray) -> None:
    """Write a mask of class indices: the index of each value in ``values``, 255 for any other."""
    with _opened(source) as image:
        found = _values(image.convert("RGB") if by_colour else image, source)
    if not by_colour and image.mode in _COLOUR_MODES:
        found = found & 0xFF
    order = np.argsort(values)
    ascending = np.asarray(values)[order]
    at = np.searchsorted(ascending, found).clip(max=len(values) - 1)
    save_mask(target, np.where(ascending[at] == found, order[at], IGNORE), palette)


def check_sizes(masks: dict[str, MaskContents], images: dict[str, ImageLook]) -> None:
    """Raise unless every mask has the size of its image, as viewers show it or as it is stored."""
    wrong = [
        f"{mask.path} ({mask.size[1]} x {mask.size[0]}, image {images[id_].size[1]} x {images[id_].size[0]})"
        for id_, mask in masks.items()
        if mask.size not in (images[id_].size, images[id_].stored_size)
    ]
    if wrong:
        raise UsageError(f"{len(wrong)} masks have not the size of their images: {some(wrong)}. Mend or remove them.")


def is_gray(colour: int) -> bool:
    return colour >> 16 == colour >> 8 & 0xFF == colour & 0xFF


def rgb(colour: int) -> tuple[int, int, int]:
    return colour >> 16, colour >> 8 & 0xFF, colour & 0xFF


def _as_number(colours: np.ndarray) -> np.ndarray:
    """(..., 3) red, green, blue → (...) 0xRRGGBB."""
    return (colours.astype(np.int64) << np.array([16, 8, 0])).sum(-1)


def _values(image: Image.Image, path: Path) -> np.ndarray:
    """int64 (H, W): the values of a mask, or the colours of an RGB picture."""
    if image.mode in _COLOUR_MODES:
        return _as_number(np.asarray(image.convert("RGB")))
    values = np.asarray(image)
    if values.ndim != 2 or values.dtype.kind not in "bui":
        raise UsageError(f"{path}: is a picture of mode {image.mode}, not a mask. Save it as an index or RGB PNG.")
    return values.astype(np.int64)


def _opened(path: Path) -> Image.Image:
    """The decoded picture."""
    with opened(path, path, "a mask", MASK_FORMATS) as image:
        image.load()
        return image
