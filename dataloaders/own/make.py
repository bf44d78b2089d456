"""From a folder of images and a folder of masks to a described data set (``dataloaders/sets/described.py``)."""

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from dataloaders.check import range_of
from dataloaders.images import ImageLook, look_at_image
from dataloaders.mask_file import IGNORE_INDEX
from dataloaders.own.annotations.read import draw_annotations
from dataloaders.own.classes import ClassProposal, propose_classes
from dataloaders.own.given import given_classes, given_split, written
from dataloaders.own.masks import (
    MaskContents,
    are_read_by_colour,
    check_sizes,
    look_at_mask,
    refuse_unclear,
    statistics_of,
    write_index_mask,
)
from dataloaders.own.pairs import Pairs, find_pairs
from dataloaders.own.split import Split, split_masked
from dataloaders.own.united import unite_masks
from dataloaders.sets.described import DESCRIPTION, MASKS, Description
from utils.cores import cores
from utils.errors import UsageError, some
from utils.folders import replacing
from utils.palette import palette_of
from utils.parallel import for_each

Look = TypeVar("Look")
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
    unclassed
        Pixels of every value, or colour, that is no class, by image id.
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
    unclassed: dict[str, Counter]
    split: Split


def make_own_data(
    root: Path,
    images_folder: Path,
    masks_folder: Path,
    *,
    class_file: Path | None = None,
    ignore: Sequence[int] | None = None,
    snap: bool = False,
    n_labelled: int | None = None,
    n_folds: int | None = None,
    given: Description | None = None,
) -> OwnData:
    """Look at images and masks and write ``root/dataset.json`` and ``root/masks``; the folder appears complete.

    Parameters
    ----------
    root
        Folder to make; one that is there is replaced.
    class_file, ignore, snap
        As in ``propose_classes``.
    n_labelled
        Masks to train with; None takes all that validation leaves.
    n_folds
        As in ``split_masked``.
    given
        An earlier description, perhaps edited: its classes, their values and its lists are taken as they are.

    Raises
    ------
    UsageError
        The data do not make a run: the message says what is wrong and where.
    """
    with tempfile.TemporaryDirectory() as folder:
        workplace = Path(folder)
        make = partial(
            _make, root, images_folder, masks_folder, workplace, n_labelled=n_labelled, n_folds=n_folds, given=given
        )
        drawn = draw_annotations(images_folder, masks_folder, workplace / "drawn")
        if drawn is None:
            pairs = find_pairs(images_folder, masks_folder)
            pairs = replace(pairs, masks=pairs.masks | unite_masks(pairs.series, workplace))
            return make(pairs, class_file, ignore, snap)
        if class_file is not None or ignore is not None or snap:
            raise UsageError(
                f"--classes, --ignore and --snap do not go with {masks_folder}, which names its classes itself."
            )
        try:
            pairs = find_pairs(images_folder, drawn.folder)
            own = make(pairs, drawn.class_file, [IGNORE_INDEX], False)
        except UsageError as error:  # the masks that it names are drawn of these annotations
            raise UsageError(str(error).replace(str(drawn.folder.resolve()), str(masks_folder))) from None
        return replace(own, classes=replace(own.classes, notes=[*drawn.notes, *own.classes.notes]))


def _make(
    root: Path,
    images_folder: Path,
    masks_folder: Path,
    workplace: Path,
    pairs: Pairs,
    class_file: Path | None,
    ignore: Sequence[int] | None,
    snap: bool,
    *,
    n_labelled: int | None,
    n_folds: int | None,
    given: Description | None,
) -> OwnData:
    looks, contents = _look_at_all(list(pairs.images.values()), list(pairs.masks.values()), workplace)
    look_of = dict(zip(pairs.images, looks, strict=True))
    masks = dict(zip(pairs.masks, contents, strict=True))
    check_sizes(masks, look_of)
    if not (snap or (given and given.snap_to)):
        refuse_unclear(contents)

    by_colour = are_read_by_colour(contents)
    statistics = {id_: statistics_of(mask, by_colour) for id_, mask in masks.items()}
    if given is None:
        classes = propose_classes(
            list(statistics.values()),
            by_colour=by_colour,
            colours=_palette_of(contents),
            class_file=class_file,
            ignore=ignore,
            snap=snap,
        )
    else:
        classes = given_classes(given, by_colour, {value for one in statistics.values() for value in one.pixels})
    pixels: dict[str, Counter] = {id_: Counter() for id_ in statistics}
    unclassed: dict[str, Counter] = {id_: Counter() for id_ in statistics}
    for id_, one in statistics.items():
        found = list(one.pixels)
        for value, index in zip(found, classes.indices(np.array(found)).tolist(), strict=True):
            counts, key = (unclassed[id_], value) if index == IGNORE_INDEX else (pixels[id_], index)
            counts[key] += one.pixels[value]
    if given is None:
        split = split_masked({id_: set(counts) for id_, counts in pixels.items()}, n_labelled, n_folds)
    else:
        split = given_split(given, set(pixels))
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
        values=[written(value, by_colour) for value in classes.values],
        aliases=[(written(one, by_colour), written(other, by_colour)) for one, other in classes.aliases.items()],
        snap_to=None if classes.snap_to is None else [written(value, by_colour) for value in classes.snap_to],
        labelled={id_: paths[id_] for id_ in split.labelled},
        validation={id_: paths[id_] for id_ in split.validation},
        unlabelled={id_: paths[id_] for id_ in unlabelled},
        folds=split.folds,
        value_range=given.value_range if given else range_of(look.values for look in looks),
    )
    wanted = {id_: masks[id_] for id_ in (*split.labelled, *split.validation)}
    _write(root, description, wanted, classes, by_colour)
    return OwnData(
        description=description,
        pairs=pairs,
        images=looks,
        mask_modes=[mask.mode for mask in contents],
        classes=classes,
        by_colour=by_colour,
        pixels=pixels,
        unclassed=unclassed,
        split=split,
    )


def _look_at_all(images: list[Path], masks: list[Path], workplace: Path) -> tuple[list[ImageLook], list[MaskContents]]:
    """What is in all files; those that cannot be used are named in one message."""
    looks = for_each(partial(_tried, look_at_image), [(path,) for path in images], workers=cores(), label="images")
    kept = [(path, workplace / f"{number}.npz") for number, path in enumerate(masks)]
    contents = for_each(partial(_tried, look_at_mask), kept, workers=cores(), label="masks")
    bad = [str(one) for one in (*looks, *contents) if isinstance(one, UsageError)]
    if len(bad) == 1:
        raise UsageError(bad[0])
    if bad:
        raise UsageError(f"{len(bad):,} files cannot be used:\n  " + some(bad, 10, "\n  "))
    return (
        [one for one in looks if not isinstance(one, UsageError)],
        [one for one in contents if not isinstance(one, UsageError)],
    )


def _tried(look: Callable[..., Look], arguments: tuple[Path, ...]) -> Look | UsageError:
    try:
        return look(*arguments)
    except UsageError as error:
        return error


def _palette_of(masks: list[MaskContents]) -> dict[int, int]:
    colours: dict[int, int] = {}
    for mask in masks:
        if mask.mode in ("P", "PA"):
            colours |= mask.colours
    return colours


def _write(
    root: Path, description: Description, masks: dict[str, MaskContents], classes: ClassProposal, by_colour: bool
) -> None:
    with replacing(root) as new:
        (new / MASKS).mkdir()
        (new / UNFINISHED).touch()
        write = partial(
            _write_mask, index_of=classes.indices, by_colour=by_colour, palette=palette_of(tuple(classes.colours))
        )
        pairs = [(mask, new / MASKS / f"{id_}.png") for id_, mask in masks.items()]
        for_each(write, pairs, workers=cores(), label="index masks")
        (new / DESCRIPTION).write_text(description.text(), encoding="utf-8")


def _write_mask(pair: tuple[MaskContents, Path], **how) -> None:
    write_index_mask(*pair, **how)
