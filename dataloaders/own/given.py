"""A description that was given again, perhaps edited: its classes and its lists are taken as they are."""

from dataloaders.own.classes import ClassProposal
from dataloaders.own.runs import TRANSPARENT
from dataloaders.own.split import Split
from dataloaders.sets.described import DESCRIPTION, Description
from utils.errors import UsageError, some


def written(value: int, by_colour: bool) -> int | str:
    """A value as the description has it."""
    if value == TRANSPARENT:
        return "transparent"
    return f"#{value:06x}" if by_colour else value


def _read(value: int | str) -> int:
    if isinstance(value, int):
        return value
    return TRANSPARENT if value == "transparent" else int(value[1:], 16)


def given_classes(given: Description, by_colour: bool, found: set[int]) -> ClassProposal:
    """The classes of a description that was given again."""
    values = given.values or []
    if len(values) != len(given.classes) or len(set(values)) < len(values):
        raise UsageError(
            f"{DESCRIPTION}: key values: give each of the {len(given.classes)} classes a value of its own."
        )
    aliases = {_read(one): _read(other) for one, other in given.aliases}
    named = [*values, *(given.snap_to or [])]
    if any(isinstance(value, str) != by_colour for value in named if value != "transparent"):
        kind = "colours (#rrggbb)" if by_colour else "numbers"
        raise UsageError(f"{DESCRIPTION}: key values: the masks are read by {kind}; write these.")
    numbers = tuple(map(_read, values))
    snap_to = None if given.snap_to is None else tuple(map(_read, given.snap_to))
    others = [] if snap_to else sorted(found - {*numbers, *aliases})
    shown = [str(written(value, by_colour)) for value in others]
    notes = [f"of the masks' values, {DESCRIPTION} does not list {some(shown)}: no class (ignored)"] if others else []
    return ClassProposal(tuple(given.classes), tuple(given.colours), numbers, notes, aliases, snap_to, by_colour)


def given_split(given: Description, masked: set[str]) -> Split:
    """The lists of a description that was given again."""
    missing = sorted({*given.labelled, *given.validation} - masked)
    if missing:
        raise UsageError(f"{DESCRIPTION}: {some(missing)}: labelled or for validation, but without a mask.")
    if not given.labelled or not given.validation:
        raise UsageError(f"{DESCRIPTION}: the lists labelled and validation must not be empty.")
    return Split(
        sorted(given.labelled), sorted(given.validation), sorted(masked & set(given.unlabelled)), False, given.folds
    )
