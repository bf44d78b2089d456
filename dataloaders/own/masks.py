"""What masks hold: class indices, palette or RGB colours; read, counted and written as index masks."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataloaders.images import ImageLook
from dataloaders.mask_file import read_mask_file
from dataloaders.own.evidence import MaskStatistics
from dataloaders.own.runs import TRANSPARENT, Runs, is_soft, pixels_on_lines, runs_of, solid_pixels
from utils.errors import UsageError, some
from utils.palette import colour_codes, save_mask

_COLOUR_MODES = ("RGB", "RGBA")
_MOST_VALUES = 4096  # of one mask that are counted: the most frequent ones
_TOPS = (255, 65535, 0xFFFFFF)  # what may stand for no class: the greatest values of 8 and 16 bit, white


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
        The colour of every value, where the file says one (palette, RGB), or as viewers show it (gray).
    solid
        Pixels of every value whose eight neighbours have the same value.
    lines
        Pixels of 255, or of white, on lines between other values.
    is_lossy, is_soft
        Whether it is compressed as a photo, and whether its alpha has many levels.
    runs
        The file that keeps the decoded mask (``Runs.save``); None where decoding it again is as fast.

    Colours are whole numbers, 0xRRGGBB.
    """

    path: Path
    mode: str
    size: tuple[int, int]
    pixels: dict[int, int]
    colours: dict[int, int]
    solid: dict[int, int] = field(default_factory=dict)
    lines: int = 0
    is_lossy: bool = False
    is_soft: bool = False
    runs: Path | None = None

    @property
    def in_colour(self) -> bool:
        """Whether it is a colour picture, other than a gray one saved as such."""
        return self.mode in _COLOUR_MODES and any(not is_gray(value) for value in self.pixels)


def look_at_mask(path: Path, keep: Path | None = None) -> MaskContents:
    """Read and count one mask.

    Parameters
    ----------
    keep
        Where to write what was decoded, for ``write_index_mask``; None keeps nothing.

    Raises
    ------
    UsageError
        It cannot be read as a mask.
    """
    file = read_mask_file(path)
    runs = runs_of(file)
    values, counts = runs.values.tolist(), runs.counts()
    colours: dict[int, int] = {}
    if file.values.ndim == 3:
        colours = {value: value for value in values}
    elif file.palette is not None:
        codes = colour_codes(file.palette)
        colours = {value: int(codes[value]) if value >= 0 else value for value in values}
    elif file.values.dtype == np.uint8:
        white = 255 if file.mode == "1" else 1
        colours = {value: value * white * 0x010101 if value >= 0 else value for value in values}
    solid, lines = np.zeros_like(counts), 0
    if len(values) <= np.iinfo(np.uint16).max:
        drawn = runs.drawn()
        solid = solid_pixels(drawn, counts)
        lines = max((pixels_on_lines(drawn, values.index(top)) for top in _TOPS if top in values), default=0)
    most = np.argsort(-counts, kind="stable")[:_MOST_VALUES].tolist()
    return MaskContents(
        path,
        file.mode,
        runs.size,
        {values[at]: int(counts[at]) for at in sorted(most)},
        colours,
        {values[at]: int(solid[at]) for at in most},
        lines,
        file.is_lossy,
        is_soft(file),
        keep if keep is not None and runs.save(keep) else None,
    )


def refuse_unclear(masks: Sequence[MaskContents]) -> None:
    """Refuse masks whose pixels have to be moved to the nearest class, which ``--snap`` allows."""
    lossy = [mask.path for mask in masks if mask.is_lossy]
    if lossy:
        target = "listed colour (--classes)" if any(mask.in_colour for mask in masks) else "main value"
        raise UsageError(
            f"{some(lossy)}: {len(lossy)} masks are compressed as photos (JPEG), which mixes the values of "
            f"neighbouring classes. Save masks as PNG; or let --snap take each pixel to the nearest {target}."
        )
    soft = [mask.path for mask in masks if mask.is_soft]
    if soft:
        raise UsageError(
            f"{some(soft)}: {len(soft)} masks have smoothed edges of half-transparent pixels. Save them without; or "
            "let --snap take pixels as opaque from half opacity on, and all others as transparent."
        )


def are_read_by_colour(masks: Sequence[MaskContents]) -> bool:
    """Whether the colours of the masks, and not their values, say the class.

    They do in RGB pictures; in palette pictures whose palettes contradict each other; and where two values of one
    colour never share a mask. Empty gray masks, all 0, go with either.
    """
    coloured = [mask for mask in masks if mask.in_colour]
    plain = [mask for mask in masks if mask.mode not in ("P", "PA", *_COLOUR_MODES) and set(mask.pixels) != {0}]
    if coloured and plain:
        raise UsageError(
            f"{coloured[0].path} is a colour picture and {plain[0].path} is not: the masks must be all of one kind."
        )
    if coloured:
        return True
    known: dict[int, int] = {}
    palettes = [mask for mask in masks if mask.mode in ("P", "PA")]
    for mask in palettes:
        if any(known.setdefault(value, colour) != colour for value, colour in mask.colours.items()):
            if plain:
                raise UsageError(
                    f"{mask.path}: its palette gives values other colours than those of other masks, so that colours "
                    f"say the class, and {plain[0].path} has none: the masks must be all of one kind."
                )
            return True
    if not palettes or any(not mask.colours for mask in masks):
        return False
    values_of: dict[int, set[int]] = {}
    for mask in masks:
        for value, colour in mask.colours.items():
            values_of.setdefault(colour, set()).add(value if mask.mode not in _COLOUR_MODES else value & 0xFF)
    doubles = [values for values in values_of.values() if len(values) > 1]
    return bool(doubles) and not any(
        len(set(mask.colours) & values) > 1 for mask in masks for values in doubles if mask.mode not in _COLOUR_MODES
    )


def statistics_of(mask: MaskContents, by_colour: bool) -> MaskStatistics:
    """What is counted of every value, or of every colour, of a mask."""

    def read(counts: dict[int, int]) -> Counter:
        found: Counter = Counter()
        for value, count in counts.items():  # two values of a palette may have one colour
            found[_meaning(mask, by_colour)(value)] += count
        return found

    return MaskStatistics(read(mask.pixels), read(mask.solid), mask.lines)


def _meaning(mask: MaskContents, by_colour: bool) -> Callable[[int], int]:
    if by_colour:
        return lambda value: mask.colours.get(value, value)  # an empty mask of 16 bit has no colours, and 0 is black
    if mask.mode in _COLOUR_MODES:
        return lambda value: value & 0xFF if value >= 0 else value
    return lambda value: value


def write_index_mask(
    mask: MaskContents, target: Path, index_of: Callable[[np.ndarray], np.ndarray], by_colour: bool, palette: np.ndarray
) -> None:
    """Write a mask of class indices; ``index_of`` gives those of values (or of colours), 255 for no class."""
    runs = runs_of(read_mask_file(mask.path)) if mask.runs is None else Runs.load(mask.runs)
    meant = np.array(list(map(_meaning(mask, by_colour), runs.values.tolist())))
    save_mask(target, runs.drawn(index_of(meant).astype(np.uint8)), palette)


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
    return colour < 0 or colour >> 16 == colour >> 8 & 0xFF == colour & 0xFF


def rgb(colour: int) -> tuple[int, int, int]:
    """Red, green and blue of 0xRRGGBB; of a transparent pixel, black."""
    colour = max(0, colour)
    return colour >> 16, colour >> 8 & 0xFF, colour & 0xFF


def shown(value: int, by_colour: bool) -> str:
    """A value, or a colour, for a person."""
    if value == TRANSPARENT:
        return "transparent"
    return " ".join(map(str, rgb(value))) if by_colour else str(value)
