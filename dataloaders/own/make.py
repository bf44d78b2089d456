"""From a folder of images and a folder of masks to a described data set (``dataloaders/sets/described.py``)."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dataloaders.check import range_of
from dataloaders.images import ImageLook, look_at_image
from dataloaders.own.annotations.drawn import NO_CLASS
from dataloaders.own.annotations.read import draw_annotations
from dataloaders.own.classes import ClassProposal, propose_classes
from dataloaders.own.masks import (
    MaskContents,
    are_read_by_colour,
    check_sizes,
    look_at_mask,
    pixels_of,
    write_index_mask,
)
from dataloaders.own.pairs import Pairs, find_pairs
from dataloaders.own.split import Split, split_masked
from dataloaders.own.united import unite_masks
from dataloaders.sets.described import DESCRIPTION, MASKS, Description
from utils.errors import UsageError, some
from utils.folders import replacing
from utils.palette import palette_of
from utils.parallel import cores, for_each

UNFINISHED = ".unfinished"
"""In a data set's folder until its configurations are there, too."""


@dataclass(frozen=True)
class OwnData:
    """What was found and made.

    Attributes
    ----------
    images
        What the header of every image says.
    pixels
        Pixels of every class index by image id, for the images that have masks.
    by_colour
        Whether the colours of the masks said the class, not their values.
    """

    description: Description
    pairs: Pairs
    images: list[ImageLook]
    mask_modes: list[str]
    classes: ClassProposal
    by_colour: bool
    pixels: dict[str, Counter]
    split: Split


def make_own_data(
    root: Path,
    images_folder: Path,
    masks_folder: Path,
    *,
    class_file: Path | None = None,
    ignore: Sequence[int] | None = None,
    n_labelled: int | None = None,
    given: Description | None = None,
) -> OwnData:
    """Look at images and masks and write ``root/dataset.json`` and ``root/masks``; the folder appears complete.

    Parameters
    ----------
    root
        Folder to make; one that is there is replaced.
    class_file, ignore
        As in ``propose_classes``.
    n_labelled
        Masks to train with; None takes all that validation leaves.
    given
        An earlier description, perhaps edited: its classes, their values and its lists are taken as they are.

    Raises
    ------
    UsageError
        The data do not make a run: the message says what is wrong and where.
    """
    with tempfile.TemporaryDirectory() as workplace:
        drawn = draw_annotations(images_folder, masks_folder, Path(workplace, "drawn"))
        if drawn is None:
            pairs = find_pairs(images_folder, masks_folder)
            pairs = replace(pairs, masks=pairs.masks | unite_masks(pairs.series, Path(workplace)))
            return _make(root, images_folder, masks_folder, pairs, class_file, ignore, n_labelled, given)
        if class_file is not None or ignore is not None:
            raise UsageError(f"--classes and --ignore do not go with {masks_folder}, which names its classes itself.")
        try:
            pairs = find_pairs(images_folder, drawn.folder)
            own = _make(root, images_folder, masks_folder, pairs, drawn.class_file, [NO_CLASS], n_labelled, given)
        except UsageError as error:  # the masks that it names are drawn of these annotations
            raise UsageError(str(error).replace(str(drawn.folder.resolve()), str(masks_folder))) from None
        return replace(own, classes=replace(own.classes, notes=[*drawn.notes, *own.classes.notes]))


def _make(
    root: Path,
    images_folder: Path,
    masks_folder: Path,
    pairs: Pairs,
    class_file: Path | None,
    ignore: Sequence[int] | None,
    n_labelled: int | None,
    given: Description | None,
) -> OwnData:
    looks = for_each(look_at_image, list(pairs.images.values()), workers=cores(), label="images")
    look_of = dict(zip(pairs.images, looks, strict=True))
    contents = for_each(look_at_mask, list(pairs.masks.values()), workers=cores(), label="masks")
    masks = dict(zip(pairs.masks, contents, strict=True))
    check_sizes(masks, look_of)

    by_colour = are_read_by_colour(contents)
    by_value = {id_: pixels_of(mask, by_colour) for id_, mask in masks.items()}
    total: Counter = Counter()
    for values in by_value.values():
        total.update(values)
    if given is None:
        colours = _palette_of(contents)
        classes = propose_classes(total, by_colour=by_colour, colours=colours, class_file=class_file, ignore=ignore)
    else:
        classes = _given_classes(given, by_colour, set(total))
    index_of = {value: index for index, value in enumerate(classes.values)}
    pixels = {
        id_: Counter({index_of[value]: count for value, count in values.items() if value in index_of})
        for id_, values in by_value.items()
    }
    if given is None:
        split = split_masked({id_: set(counts) for id_, counts in pixels.items()}, n_labelled)
    else:
        split = _given_split(given, set(pixels))
    unlabelled = sorted(set(pairs.images) - set(split.labelled) - set(split.validation))
    if not unlabelled:
        raise UsageError(
            f"every image of {images_folder} has a mask: nothing is left for the unlabelled stream. Add images without "
            "masks, or let --labelled N train with N of the masks and take the other images as unlabelled."
        )

    folder = images_folder.resolve()
    paths = {id_: path.relative_to(folder).as_posix() for id_, path in pairs.images.items()}
    description = Description(
        images=str(folder),
        masks=str(masks_folder.resolve()),
        assumed=classes.notes,
        classes=list(classes.names),
        colours=list(classes.colours),
        values=[f"#{value:06x}" if by_colour else value for value in classes.values],
        labelled={id_: paths[id_] for id_ in split.labelled},
        validation={id_: paths[id_] for id_ in split.validation},
        unlabelled={id_: paths[id_] for id_ in unlabelled},
        value_range=given.value_range if given else range_of(look.values for look in looks),
    )
    wanted = {id_: pairs.masks[id_] for id_ in (*split.labelled, *split.validation)}
    _write(root, description, wanted, classes, by_colour)
    return OwnData(
        description=description,
        pairs=pairs,
        images=looks,
        mask_modes=[mask.mode for mask in contents],
        classes=classes,
        by_colour=by_colour,
        pixels=pixels,
        split=split,
    )


def _given_classes(given: Description, by_colour: bool, found: set[int]) -> ClassProposal:
    """The classes of a description that was given again."""
    values = given.values or []
    if len(values) != len(given.classes) or len(set(values)) < len(values):
        raise UsageError(
            f"{DESCRIPTION}: key values: give each of the {len(given.classes)} classes a value of its own."
        )
    if any(isinstance(value, str) != by_colour for value in values):
        kind = "colours (#rrggbb)" if by_colour else "numbers"
        raise UsageError(f"{DESCRIPTION}: key values: the masks are read by {kind}; write these.")
    numbers = tuple(int(value[1:], 16) if isinstance(value, str) else value for value in values)
    others = sorted(found - set(numbers))
    shown = [f"#{value:06x}" if by_colour else str(value) for value in others]
    notes = [f"of the masks' values, {DESCRIPTION} does not list {some(shown)}: no class (ignored)"] if others else []
    return ClassProposal(tuple(given.classes), tuple(given.colours), numbers, notes)


def _given_split(given: Description, masked: set[str]) -> Split:
    """The lists of a description that was given again."""
    missing = sorted({*given.labelled, *given.validation} - masked)
    if missing:
        raise UsageError(f"{DESCRIPTION}: {some(missing)}: labelled or for validation, but without a mask.")
    if not given.labelled or not given.validation:
        raise UsageError(f"{DESCRIPTION}: the lists labelled and validation must not be empty.")
    return Split(sorted(given.labelled), sorted(given.validation), sorted(masked & set(given.unlabelled)), False)


def _palette_of(masks: list[MaskContents]) -> dict[int, int]:
    colours: dict[int, int] = {}
    for mask in masks:
        if mask.mode == "P":
            colours |= mask.colours
    return colours


def _write(root: Path, description: Description, masks: dict[str, Path], classes: ClassProposal, by_colour: bool):
    with replacing(root) as new:
        (new / MASKS).mkdir()
        (new / UNFINISHED).touch()
        write = partial(
            _write_mask, values=classes.values, by_colour=by_colour, palette=palette_of(tuple(classes.colours))
        )
        pairs = [(source, new / MASKS / f"{id_}.png") for id_, source in masks.items()]
        for_each(write, pairs, workers=cores(), label="index masks")
        (new / DESCRIPTION).write_text(description.text(), encoding="utf-8")


def _write_mask(pair: tuple[Path, Path], **how) -> None:
    write_index_mask(*pair, **how)
