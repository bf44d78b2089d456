"""What ``--init_data`` found in a user's folders, in words."""

from collections import Counter
from pathlib import Path

from dataloaders.check import note_of_hot_pixels
from dataloaders.own.make import OwnData
from dataloaders.own.masks import shown
from dataloaders.sets.described import DESCRIPTION
from utils.errors import some
from utils.logger import log


def report_findings(own: OwnData, images: Path, masks: Path) -> None:
    """Log what is in the two folders, what was assumed of it, and how the classes are spread over the split."""
    split, pairs = own.split, own.pairs
    sizes, modes = [image.size for image in own.images], [image.mode for image in own.images]
    log.info(f"{images}: {len(pairs.images)} images; {_sizes(sizes)}; modes {_tally(modes)}")
    read_by = "colour" if own.by_colour else "value"
    log.info(f"{masks}: masks of {len(pairs.masks)} images; modes {_tally(own.mask_modes)}; read by {read_by}")
    if pairs.strays:
        names = [path.name for path in pairs.strays]
        log.warning(f"{len(names)} masks have no image and are left out: {some(names)}")
    for note in [*own.classes.notes, *_image_notes(own)]:
        log.info(f"assumed: {note}")
    log.info(
        f"split: {len(split.labelled)} labelled, {len(split.validation)} validation, "
        f"{len(own.description.unlabelled)} unlabelled images"
        + (f", of which {len(split.spare)} have masks that are left out (--labelled)" if split.spare else "")
        + ("; validation is the folder of that name" if split.by_folder else "")
    )

    labelled = _sum(own, split.labelled)
    in_labelled, in_validation = _images_with(own, split.labelled), _images_with(own, split.validation)
    width = max(len("(no class)"), *map(len, own.classes.names))
    heading = "colour" if own.by_colour else "value"
    log.info(f"\nclass  {'name':{width}}  {heading:>11}  labelled pixels  labelled images  validation images")
    for index, (name, value) in enumerate(zip(own.classes.names, own.classes.values, strict=True)):
        text = shown(value, own.by_colour)
        share = 100 * labelled[index] / max(1, labelled.total())
        counted = f"{in_labelled[index]:15}  {in_validation[index]:17}"
        log.info(f"{index:5}  {name:{width}}  {text:>11}  {share:13.2f} %  {counted}")
    log.info(_unclassed_row(own, labelled.total(), width))
    if split.folds:
        log.info(f"folds: {len(split.folds)} of {_sizes_of(split.folds)} images; the table is of the first")
    for what, lost in _lost_classes(own, in_labelled, in_validation).items():
        if lost:
            log.warning(f"{what} the class {some([own.classes.names[index] for index in lost])}")


def _lost_classes(own: OwnData, in_labelled: Counter, in_validation: Counter) -> dict[str, list[int]]:
    """The classes that a part of the data is without, by how it is said; of folds, those that the others lack."""
    classes, in_both = range(len(own.classes.names)), in_labelled + in_validation
    parts = {"no labelled image has": in_labelled, "no validation image has": in_validation}
    if own.split.folds:
        classes = [index for index in classes if in_both[index]]
        parts = {
            f"where fold {number} is for validation, no labelled image has": in_both - _images_with(own, fold)
            for number, fold in enumerate(own.split.folds, 1)
        }
    return {what: [index for index in classes if not counts[index]] for what, counts in parts.items()}


def _unclassed_row(own: OwnData, with_class: int, width: int) -> str:
    """The table's last row: the values that are no class, and their share of all labelled pixels."""
    total = sum((own.unclassed[id_] for id_ in own.split.labelled), Counter())
    text = some([shown(value, own.by_colour) for value, _ in total.most_common()], 3) or "-"
    share = 100 * total.total() / max(1, total.total() + with_class)
    images = (sum(bool(own.unclassed[id_]) for id_ in ids) for ids in (own.split.labelled, own.split.validation))
    labelled, validation = images
    return f"       {'(no class)':{width}}  {text:>11}  {share:13.2f} %  {labelled:15}  {validation:17}"


def _image_notes(own: OwnData) -> list[str]:
    notes = []
    if own.pairs.series:
        id_, masks = next(iter(own.pairs.series.items()))
        notes.append(
            f"{len(own.pairs.series)} images have several masks, which are united, such as "
            f"{some([path.name for path in masks])} for {id_}"
        )
    if own.description.value_range:
        low, high = own.description.value_range
        notes.append(
            f"16-bit values go from {low} (black) to {high} (white), the range of all images; "
            f'"value_range" in {DESCRIPTION}'
        )
    hot = note_of_hot_pixels(own.images)
    notes += [hot] if hot else []
    undecided = sum(image.is_turned and image.size == image.stored_size for image in own.images)
    if undecided:
        notes.append(
            f"{undecided} images have an EXIF orientation that their size does not tell; masks are taken as drawn on "
            "what viewers show"
        )
    return notes


def _sum(own: OwnData, ids: list[str]) -> Counter:
    total: Counter = Counter()
    for id_ in ids:
        total.update(own.pixels[id_])
    return total


def _images_with(own: OwnData, ids: list[str]) -> Counter:
    return Counter(index for id_ in ids for index in own.pixels[id_])


def _sizes(sizes: list[tuple[int, int]]) -> str:
    different = Counter(sizes)
    if len(different) == 1:
        return f"all {sizes[0][1]} x {sizes[0][0]}"
    heights, widths = zip(*sizes, strict=True)
    return f"{len(different)} sizes, {min(widths)} to {max(widths)} wide and {min(heights)} to {max(heights)} high"


def _sizes_of(folds: list[list[str]]) -> str:
    return " or ".join(map(str, sorted({len(fold) for fold in folds})))


def _tally(values: list[str]) -> str:
    return ", ".join(f"{value} {count}" for value, count in Counter(values).most_common())
