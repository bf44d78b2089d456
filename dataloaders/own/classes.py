"""From the values of masks to classes: a proposal that says what it assumed, or the user's own class file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataloaders.own.masks import IGNORE, rgb
from dataloaders.sets.description import read_class_file
from utils.errors import UsageError, some
from utils.palette import colour_codes, voc_palette

Colour = tuple[int, int, int]
MAX_CLASSES = 250
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
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    values: tuple[int, ...]
    notes: list[str] = field(default_factory=list)


def propose_classes(
    pixels: dict[int, int],
    *,
    by_colour: bool,
    colours: dict[int, int],
    class_file: Path | None = None,
    ignore: Sequence[int] | None = None,
) -> ClassProposal:
    """Which mask value is which class.

    Parameters
    ----------
    pixels
        Pixels of every value (or colour, with ``by_colour``) over all masks.
    colours
        Colours of values that the masks' palettes say.
    class_file
        The user's classes (``read_class_file``).
    ignore
        The values that are no class; None leaves it to us.

    Raises
    ------
    UsageError
        There is one class only, or too many, or the class file does not fit the masks.
    """
    rows = None
    if class_file is not None:
        if not class_file.is_file():
            raise UsageError(f"--classes {class_file}: there is no such file.")
        rows = read_class_file(class_file)
    if by_colour:
        if ignore:
            raise UsageError(
                "--ignore takes values, but the masks are in colours: the colours that --classes does not list are "
                "ignored."
            )
        proposal = _by_colour(pixels, rows, class_file, ignored={VOC_BORDER} if ignore is None else set())
    else:
        proposal = _by_value(pixels, colours, rows, class_file, ignore)
    if len(proposal.names) < 2:
        raise UsageError(
            f"the masks hold one class only (values: {_listed(list(pixels), by_colour)}); at least two are needed, of "
            "which one may be the background."
        )
    if len(proposal.names) > MAX_CLASSES:
        raise UsageError(
            f"the masks hold {len(proposal.names)} classes, at most {MAX_CLASSES} are possible. Are these numbers of "
            "objects, or smoothed edges? --classes and --ignore say what is a class."
        )
    return proposal


def _by_value(
    pixels: dict[int, int],
    colours: dict[int, int],
    rows: list[tuple[str, Colour | None]] | None,
    class_file: Path | None,
    ignore: Sequence[int] | None,
) -> ClassProposal:
    found, notes = sorted(pixels), []
    if ignore is None and set(found) == {0, IGNORE}:
        ignore = []
        notes.append("the masks hold 0 and 255 only: taken as two classes, 255 the foreground")
    elif ignore is None:
        ignore = [IGNORE]
        if IGNORE in pixels:
            notes.append(
                "255 is taken as no class (ignored); --ignore none makes it a class, --ignore 0 255 ignores 0 as well"
            )
    values = [value for value in found if value not in set(ignore)]
    if rows is not None and values and len(rows) != len(values) and values[-1] < len(rows):
        values = list(range(len(rows)))  # the file names classes of which no mask has a pixel
    if rows is not None and len(rows) != len(values):
        raise UsageError(
            f"--classes {class_file}: names {len(rows)} classes, but the masks hold the values {_listed(values)}. Name "
            f"{len(values)} classes for these in their order, or every value from 0 to {max(values, default=0)}."
        )
    if values != list(range(len(values))):
        notes.append(
            f"the values {_listed(values)} become the class indices 0 to {len(values) - 1}, in their order; "
            "predictions will hold the indices"
        )
    names = [name for name, _ in rows] if rows else _names_of(values)
    given = [colour for _, colour in rows or [] if colour is not None]
    known = [colours[value] for value in values if value in colours]
    shown: list[Colour]
    if len(given) == len(values):
        shown = given
    elif len(set(known)) == len(values):
        shown = [rgb(colour) for colour in known]
    else:
        shown = [(int(red), int(green), int(blue)) for red, green, blue in voc_palette()[: len(values)]]
    return ClassProposal(tuple(names), tuple(shown), tuple(values), notes)


def _names_of(values: list[int]) -> list[str]:
    if values in ([0, 1], [0, IGNORE]):
        return ["background", "foreground"]
    return [f"class_{value}" for value in values]


def _by_colour(
    pixels: dict[int, int],
    rows: list[tuple[str, Colour | None]] | None,
    class_file: Path | None,
    ignored: set[int],
) -> ClassProposal:
    notes = []
    if rows is None:
        values = sorted(set(pixels) - ignored)
        if ignored & set(pixels):
            notes.append("the colour 224 224 192 is taken as no class (ignored); --ignore none makes it a class")
        notes.append("every colour is taken as a class; --classes names them: a line each, <name> <red> <green> <blue>")
        names = ["colour_{}_{}_{}".format(*rgb(value)) for value in values]
        return ClassProposal(tuple(names), tuple(map(rgb, values)), tuple(values), notes)
    given = [colour for _, colour in rows if colour is not None]
    if len(given) < len(rows):
        raise UsageError(
            f"--classes {class_file}: the masks are in colours, so every line needs one: <name> <red> <green> <blue>. "
            f"The masks hold {_listed(sorted(pixels), by_colour=True)}."
        )
    values = colour_codes(np.array([colour for _, colour in rows])).tolist()
    if len(set(values)) < len(values):
        raise UsageError(f"--classes {class_file}: gives one colour to two classes.")
    if not set(values) & set(pixels):
        raise UsageError(
            f"--classes {class_file}: the masks have none of its colours; they hold "
            f"{_listed(sorted(pixels), by_colour=True)}."
        )
    others = sorted(set(pixels) - set(values))
    if others:
        share = sum(pixels[value] for value in others) / sum(pixels.values())
        notes.append(
            f"colours that {class_file} does not list are ignored: {_listed(others, by_colour=True)}; {share:.1%} of "
            "the pixels"
        )
    return ClassProposal(tuple(name for name, _ in rows), tuple(given), tuple(values), notes)


def _listed(values: list[int], by_colour: bool = False) -> str:
    texts = ["({}, {}, {})".format(*rgb(value)) if by_colour else str(value) for value in values]
    return some(texts, 12)
