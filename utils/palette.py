"""Colours of masks, and masks as palette PNGs."""

import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from utils.files import write_atomically

CITYSCAPES_COLOURS = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
    (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
    (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70),
    (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
)  # fmt: skip


def voc_palette() -> np.ndarray:
    """PASCAL VOC's colour map, uint8 (256, 3): the bits of the index, spread over red, green and blue."""
    index = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return palette


def palette_of(colours: tuple[tuple[int, int, int], ...]) -> np.ndarray:
    """A palette, uint8 (256, 3), whose first entries are ``colours`` and whose others are VOC's; 255 is white."""
    palette = voc_palette()
    palette[: len(colours)] = colours
    palette[255] = 255
    return palette


def indices_of_colours(
    colours: np.ndarray, palette: np.ndarray, n_classes: int, ignore_index: int
) -> tuple[np.ndarray, tuple[int, int, int] | None]:
    """Class indices of a mask in colours.

    Parameters
    ----------
    colours
        uint8 (H, W, 3).
    palette
        uint8 (256, 3), the colour of every index. Its entry 255 and VOC's stand for pixels without a class, where
        they are not a class's.

    Returns
    -------
    indices, unknown
        uint8 (H, W), and None; or, for the indices to be of no use, a colour that is not that of one class.
    """
    index_of: dict[int, int | None] = {-1: 0}  # no colour's code: the table is never empty
    for index, code in enumerate(colour_codes(palette[:n_classes]).tolist()):
        index_of[code] = None if code in index_of else index
    for code in colour_codes(np.stack([palette[255], voc_palette()[255]])).tolist():
        index_of.setdefault(code, ignore_index)
    known = np.array(sorted(code for code, index in index_of.items() if index is not None))
    codes = colour_codes(colours)
    place = np.searchsorted(known, codes).clip(max=len(known) - 1)
    strange = known[place] != codes
    unknown = tuple(colours[strange][0].tolist()) if strange.any() else None
    return np.array([index_of[code] for code in known.tolist()], np.uint8)[place], unknown


def colour_codes(colours: np.ndarray) -> np.ndarray:
    """Colours (…, 3) as one number each, red << 16 | green << 8 | blue: int32 (…)."""
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def mask_image(mask: np.ndarray, palette: np.ndarray) -> Image.Image:
    """An index mask (H, W) as an image with that palette, uint8 (256, 3)."""
    image = Image.fromarray(mask.astype(np.uint8), mode="P")
    image.putpalette(palette.tobytes())
    return image


def save_mask(path: Path, mask: np.ndarray, palette: np.ndarray) -> None:
    """Write an index mask (H, W) as a palette PNG, whole or not at all."""
    image = mask_image(mask, palette)
    # Runs alone: in a third of the time of zlib's usual way; small masks grow by a fifth, large ones shrink.
    write_atomically(path, lambda file: image.save(file, "PNG", compress_type=zlib.Z_RLE), flush=False)
