"""PASCAL VOC 2012 with the augmented training set, and every data set in its layout."""

from pathlib import Path

import numpy as np

from dataloaders.sets.described import DESCRIPTION, open_described
from dataloaders.sets.description import (
    IMAGE_SUFFIXES,
    Sample,
    SegmentationData,
    are_missing,
    find_root,
    read_class_file,
)
from dataloaders.sets.splits import LISTS_DIR, choose_labelled, read_ids, read_list, read_or_choose
from utils.config import Config
from utils.errors import UsageError
from utils.palette import palette_of, voc_palette

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def open_voc(config: Config) -> SegmentationData:
    """PASCAL VOC: masks of ``SegmentationClassAug``, validation on ``ImageSets/Segmentation/val.txt``."""
    root = find_root(config.data_dir, config.dataset) / "VOCdevkit" / "VOC2012"
    lists = LISTS_DIR / f"voc_splits{config.datalist}"
    for folder in ("JPEGImages", "SegmentationClassAug"):
        if not (root / folder).is_dir():
            raise UsageError(
                f'{root / folder}: this folder of PASCAL VOC is missing. README, section "Data", says how to get it; '
                "`python3 -m dataloaders.prepare voc` makes SegmentationClassAug."
            )
    return _open(config, root, lists, "SegmentationClassAug", CLASSES, voc_palette())


def open_custom(config: Config) -> SegmentationData:
    """Any data set in VOC layout, or described by a ``dataset.json`` (``--init_data``).

    VOC layout: ``JPEGImages``, ``SegmentationClass``, ``ImageSets/Segmentation/val.txt``. The root is ``data_dir`` or
    ``data_dir/VOCdevkit/VOC2012``. Classes are those of the configuration or of ``classes.txt`` there (a name a line,
    optionally followed by its red, green and blue).
    """
    root = find_root(config.data_dir, config.dataset)
    if (root / DESCRIPTION).is_file():
        return open_described(root, config)
    if (root / "VOCdevkit" / "VOC2012").is_dir():
        root = root / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass"):
        if not (root / folder).is_dir():
            raise UsageError(f'{root / folder}: this folder is missing. README, section "Data", shows the layout.')
    classes, palette = _read_classes(root / "classes.txt", config.classes)
    lists = root / "ImageSets" / "Segmentation" / f"splits{config.datalist}"
    return _open(config, root, lists, "SegmentationClass", classes, palette)


def _open(
    config: Config, root: Path, lists: Path, mask_folder: str, classes: tuple[str, ...], palette: np.ndarray
) -> SegmentationData:
    files = sorted((root / "JPEGImages").iterdir())  # in order, so that of a.jpg and a.png the same one is taken
    images = {path.stem: path for path in files if path.suffix.lower() in IMAGE_SUFFIXES}
    masks = {path.stem: path for path in (root / mask_folder).iterdir() if path.suffix.lower() == ".png"}
    id_lists = root / "ImageSets" / "Segmentation"

    def samples(ids: list[str], *, labels: bool) -> tuple[Sample, ...]:
        for kind, folder, there in (("image", "JPEGImages", images), ("mask", mask_folder, masks))[: 1 + labels]:
            missing = [id_ for id_ in ids if id_ not in there]
            if missing:
                raise UsageError(f"{root / folder}: {are_missing(kind, missing)}; {id_lists} names what there must be.")
        return tuple(Sample(id_, images[id_], masks[id_] if labels else None) for id_ in ids)

    if (lists / "val.txt").is_file():
        validation = read_list(lists / "val.txt", root, labels=True)
    else:
        validation = samples(read_ids(id_lists / "val.txt", "the list of validation images"), labels=True)

    held_out = {sample.id for sample in validation}
    if mask_folder == "SegmentationClass" and (id_lists / "train.txt").is_file():
        pool = read_ids(id_lists / "train.txt", "the list of training images")
    elif mask_folder == "SegmentationClass":
        pool = sorted(images)
    else:  # the augmented set is whatever has a mask there
        pool = sorted(masks)
    pool = [id_ for id_ in pool if id_ not in held_out]

    labelled, unlabelled = read_or_choose(
        lists,
        root,
        config,
        choose=lambda n, seed: _choose(pool, masks, n, seed),
        samples=samples,
    )
    return SegmentationData(classes, palette, labelled, unlabelled, validation, ignore_index=config.ignore_index)


def _choose(pool: list[str], masks: dict[str, Path], n_labelled: int, seed: int) -> tuple[list[str], list[str]]:
    labelled, rest = choose_labelled([id_ for id_ in pool if id_ in masks], n_labelled, seed)
    return labelled, rest + [id_ for id_ in pool if id_ not in masks]


def _read_classes(path: Path, names: list[str] | None) -> tuple[tuple[str, ...], np.ndarray]:
    if not path.is_file():
        if names is None:
            raise UsageError(f'{path}: is missing; name the classes there, one a line, or in the key "classes".')
        return tuple(names), voc_palette()
    rows = read_class_file(path)
    colours = [colour for _, colour in rows if colour is not None]
    palette = palette_of(tuple(colours)) if len(colours) == len(rows) else voc_palette()
    return tuple(names or (name for name, _ in rows)), palette
