"""From the values of masks to classes: a proposal that says what it assumed, or the user's own class file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dataloaders.mask_file import IGNORE_INDEX, MAX_CLASSES
from dataloaders.own.evidence import MaskStatistics, judge
from dataloaders.own.masks import rgb
from dataloaders.own.runs import TRANSPARENT
from dataloaders.own.snapping import (
    TOPS,
    Rows,
    listed,
    meant_values,
    nearest,
    refuse_near_colours,
    total_pixels,
    way_with_classes,
)
from dataloaders.sets.class_file import read_class_file
from utils.errors import UsageError
from utils.palette import colour_codes, voc_palette

Colour = tuple[int, int, int]
VOC_BORDER = 0xE0E0C0  # the colour of PASCAL VOC's pixels without a class


@dataclass(frozen=True)
class ClassProposal:
    """Classes in the order of their indices.

    Attributes
    ----------
    values
        The mask value, or colour, of every class.
    notes
        What was assumed and how to say otherwise, a sentence each.
    aliases
        Other values that mean a class, and the value of that class.
    snap_to
        The values to the nearest of which all others are taken; None takes no value for another.
    by_colour
        Whether values are colours, 0xRRGGBB.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    values: tuple[int, ...]
    notes: list[str] = field(default_factory=list)
    aliases: Mapping[int, int] = field(default_factory=dict)
    snap_to: tuple[int, ...] | None = None
    by_colour: bool = False

    def indices(self, found: np.ndarray) -> np.ndarray:
        """Class indices of mask values, int (n,), 255 for those that are no class."""
        table = {value: index for index, value in enumerate(self.values)}
        table |= {alias: table[value] for alias, value in self.aliases.items() if value in table}
        targets = found.tolist()
        if self.snap_to is not None:
            known = {*self.snap_to, *self.aliases, TRANSPARENT}
            away = [at for at, value in enumerate(targets) if value not in known]
            for at, value in zip(away, nearest(found[away], self.snap_to, self.by_colour), strict=True):
                targets[at] = value
        return np.array([table.get(value, IGNORE_INDEX) for value in targets], np.int64)


def propose_classes(
    masks: Sequence[MaskStatistics],
    *,
    by_colour: bool,
    colours: dict[int, int],
    class_file: Path | None = None,
    ignore: Sequence[int] | None = None,
    snap: bool = False,
) -> ClassProposal:
    """Which mask value is which class.

    Parameters
    ----------
    masks
        What is counted of every value (or colour, with ``by_colour``) of every mask.
    colours
        Colours of values that the masks' palettes say.
    class_file
        The user's classes (``read_class_file``).
    ignore
        The values that are no class; None leaves it to the evidence (``judge``).
    snap
        Take the values of compression and smoothing for the nearest main value, or listed colour.

    Raises
    ------
    UsageError
        There is one class only, or too many; the class file does not fit the masks; the evidence is mixed; or values
        come of compression or smoothing, without ``snap``.
    """
    rows = None
    if class_file is not None:
        if not class_file.is_file():
            raise UsageError(f"--classes {class_file}: there is no such file.")
        rows = read_class_file(class_file)
    if by_colour and ignore:
        raise UsageError(
            "--ignore takes values, but the masks are in colours: the colours that --classes does not list are ignored."
        )
    masks, aliases = _transparent_as_background(masks)
    pixels = total_pixels(masks)
    mains = sorted(pixels)
    if not (by_colour and rows):
        mains = meant_values(masks, by_colour, rows, snap)
        if len(mains) < len(pixels):  # between these values and others lie lines of what is left out
            masks = [MaskStatistics({v: n for v, n in mask.pixels.items() if v in set(mains)}) for mask in masks]
    total = total_pixels(masks)
    if by_colour:
        if rows and not snap:
            refuse_near_colours(pixels, rows, class_file)
        proposal = _by_colour(total, rows, class_file, ignored={VOC_BORDER} if ignore is None else set(), snap=snap)
    else:
        proposal = _by_value(masks, total, colours, rows, class_file, ignore)
    proposal = replace(proposal, aliases={**aliases, **proposal.aliases}, by_colour=by_colour)
    if len(proposal.names) < 2:
        raise UsageError(
            f"the masks hold one class only (values: {listed(mains, by_colour)}); at least two are needed, of "
            "which one may be the background."
        )
    if len(proposal.names) > MAX_CLASSES:
        raise UsageError(
            f"the masks hold {len(proposal.names):,} classes, at most {MAX_CLASSES} are possible. Are these photos, "
            "numbers of objects, or smoothed edges? "
            + (
                way_with_classes(masks)
                if by_colour
                else "--classes and --ignore say what is a class, --snap takes smoothed edges to the nearest."
            )
        )
    if snap:
        targets = proposal.values if by_colour and rows else tuple(mains)
        moved = sum(count for value, count in pixels.items() if value not in {*targets, *proposal.aliases})
        note = f"--snap takes {moved / pixels.total():.2%} of the pixels to the nearest of {listed(targets, by_colour)}"
        proposal = replace(proposal, snap_to=targets, notes=[note, *proposal.notes])
    return proposal


def _transparent_as_background(masks: Sequence[MaskStatistics]) -> tuple[Sequence[MaskStatistics], dict[int, int]]:
    """Transparent pixels counted as 0 (black), where both occur and never in one mask."""
    there = [set(mask.pixels) & {0, TRANSPARENT} for mask in masks]
    if {0, TRANSPARENT} in there or set().union(*there) != {0, TRANSPARENT}:
        return masks, {}

    def merged(counts: Mapping[int, int]) -> dict[int, int]:
        return {0 if value == TRANSPARENT else value: count for value, count in counts.items()}

    return [replace(mask, pixels=merged(mask.pixels), solid=merged(mask.solid)) for mask in masks], {TRANSPARENT: 0}


def _no_class(
    masks: Sequence[MaskStatistics], found: list[int], rows: Rows | None
) -> tuple[list[int], dict[int, int], list[str]]:
    """The values that are no class, other ways to write one, and notes on both, by the evidence."""
    ignored, aliases, notes = [], {}, []
    for top in TOPS:
        if top not in found:
            continue
        verdict = judge(top, masks)
        what, reason = verdict.what, verdict.reason
        others = [value for value in found if value != top]
        if rows and verdict.twin is None and others:
            with_it, without = len(rows) == len(found), len(rows) == len(others) or others[-1] < len(rows)
            if with_it != without:
                what, reason = ("class" if with_it else "ignore"), f"--classes names {len(rows)} classes"
        if what == "ask":
            raise UsageError(
                f"is {top} a class of the masks, or does it stand for no class? The evidence is mixed: {reason}. Say "
                f"which: --ignore {top} (no class), or --ignore none (a class)."
            )
        if what == "ignore":
            ignored.append(top)
            notes.append(f"{top} is no class (ignored): {reason}; --ignore none makes it a class")
        elif found == [0, top]:
            notes.append(f"{reason}: taken as two classes, {top} the foreground")
        else:
            notes.append(f"{top} is a class: {reason}; --ignore {top} makes it no class")
        if verdict.twin is not None:
            aliases[top] = verdict.twin
    return ignored, aliases, notes


def _by_value(
    masks: Sequence[MaskStatistics],
    pixels: Counter,
    colours: dict[int, int],
    rows: Rows | None,
    class_file: Path | None,
    ignore: Sequence[int] | None,
) -> ClassProposal:
    found = sorted(pixels)
    aliases: dict[int, int] = {}
    notes: list[str] = []
    if ignore is None:
        ignore, aliases, notes = _no_class(masks, found, rows)
    values = [value for value in found if value not in {*ignore, *aliases}]
    if rows is not None and values and len(rows) != len(values) and values[-1] < len(rows):
        values = list(range(len(rows)))  # the file names classes of which no mask has a pixel
    if rows is not None and len(rows) != len(values):
        raise UsageError(
            f"--classes {class_file}: names {len(rows)} classes, but the masks hold the values {listed(values)}. Name "
            f"{len(values)} classes for these in their order, or every value from 0 to {max(values, default=0)}."
        )
    if values != list(range(len(values))):
        notes.append(
            f"the values {listed(values)} become the class indices 0 to {len(values) - 1}, in their order; "
            "predictions will hold the indices"
        )
    names = [name for name, _ in rows] if rows else _names_of(values)
    given = [colour for _, colour in rows or [] if colour is not None]
    known = [colours[value] for value in values if value in colours]
    drawn: list[Colour]
    if len(given) == len(values):
        drawn = given
    elif len(set(known)) == len(values):
        drawn = [rgb(colour) for colour in known]
    else:
        drawn = [(int(red), int(green), int(blue)) for red, green, blue in voc_palette()[: len(values)]]
    return ClassProposal(tuple(names), tuple(drawn), tuple(values), notes, aliases)


def _names_of(values: list[int]) -> list[str]:
    if values in ([0, 1], [0, IGNORE_INDEX]) or (len(values) == 2 and values[0] == TRANSPARENT):
        return ["background", "foreground"]
    return ["background" if value == TRANSPARENT else f"class_{value}" for value in values]


def _by_colour(
    pixels: Counter,
    rows: Rows | None,
    class_file: Path | None,
    ignored: set[int],
    snap: bool,
) -> ClassProposal:
    notes = []
    if rows is None:
        values = sorted(set(pixels) - ignored)
        if ignored & set(pixels):
            notes.append("the colour 224 224 192 is taken as no class (ignored); --ignore none makes it a class")
        notes.append("every colour is taken as a class; --classes names them: a line each, <name> <red> <green> <blue>")
        names = ["background" if value < 0 else "colour_{}_{}_{}".format(*rgb(value)) for value in values]
        if values == [0, 0xFFFFFF]:
            names = ["background", "foreground"]
        drawn = [rgb(value) for value in values]
        if {0, TRANSPARENT} <= set(values):  # two classes of one colour cannot be told apart in a picture
            drawn[0] = next(
                colour for colour in map(rgb, colour_codes(voc_palette()[1:]).tolist()) if colour not in drawn
            )
        return ClassProposal(tuple(names), tuple(drawn), tuple(values), notes)
    given = [colour for _, colour in rows if colour is not None]
    if len(given) < len(rows):
        raise UsageError(
            f"--classes {class_file}: the masks are in colours, so every line needs one: <name> <red> <green> <blue>. "
            f"The masks hold {listed(sorted(pixels), by_colour=True)}."
        )
    values = colour_codes(np.array([colour for _, colour in rows])).tolist()
    if len(set(values)) < len(values):
        raise UsageError(f"--classes {class_file}: gives one colour to two classes.")
    if not set(values) & set(pixels):
        raise UsageError(
            f"--classes {class_file}: the masks have none of its colours; they hold "
            f"{listed(sorted(pixels), by_colour=True)}."
        )
    aliases = {TRANSPARENT: 0} if TRANSPARENT in pixels and 0 in values and 0 not in pixels else {}
    others = sorted(set(pixels) - {*values, *aliases})
    if others and not snap:
        share = sum(pixels[value] for value in others) / sum(pixels.values())
        notes.append(
            f"colours that {class_file} does not list are ignored, unless --snap takes them to the nearest: "
            f"{listed(others, by_colour=True)}; {share:.1%} of the pixels"
        )
    return ClassProposal(tuple(name for name, _ in rows), tuple(given), tuple(values), notes, aliases)
