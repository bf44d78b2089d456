"""PASCAL VOC 2012 with the augmented training set, and every data set in its layout."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from dataloaders.sets.class_file import read_class_file
from dataloaders.sets.described import DESCRIPTION, open_described
from dataloaders.sets.description import (
    IMAGE_SUFFIXES,
    LazySamples,
    Sample,
    SegmentationData,
    are_missing,
    find_root,
)
from dataloaders.sets.splits import LISTS_DIR, Labels, choose_labelled, listed_ids, read_ids, read_list, read_or_choose
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
    advice = (
        'this folder of PASCAL VOC is missing. README, section "Data", says how to get it; '
        "`python3 -m dataloaders.prepare voc` makes SegmentationClassAug."
    )
    tree = _Tree(root, "SegmentationClassAug", advice)
    return _open(config, tree, LISTS_DIR / f"voc_splits{config.datalist}", CLASSES, voc_palette())


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
    classes, palette = _read_classes(root / "classes.txt", config.classes)
    tree = _Tree(root, "SegmentationClass", 'this folder is missing. README, section "Data", shows the layout.')
    return _open(config, tree, tree.id_lists / f"splits{config.datalist}", classes, palette)


@dataclass(frozen=True)
class _Tree:
    """A folder in VOC's layout. Images and masks are listed, by id, when they are first needed."""

    root: Path
    mask_folder: str
    advice: str

    @property
    def id_lists(self) -> Path:
        return self.root / "ImageSets" / "Segmentation"

    @cached_property
    def images(self) -> dict[str, list[Path]]:
        return self._files("JPEGImages", IMAGE_SUFFIXES)

    @cached_property
    def masks(self) -> dict[str, list[Path]]:
        return self._files(self.mask_folder, (".png",))

    def _files(self, folder: str, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
        if not (self.root / folder).is_dir():
            raise UsageError(f"{self.root / folder}: {self.advice}")
        found: dict[str, list[Path]] = {}
        for path in sorted((self.root / folder).iterdir()):
            if path.suffix.lower() in suffixes:
                found.setdefault(path.stem, []).append(path)
        return found

    def samples(self, ids: list[str], *, labels: Labels) -> tuple[Sample, ...]:
        kinds = [("image", "JPEGImages", self.images)]
        if labels is True:
            kinds.append(("mask", self.mask_folder, self.masks))
        for kind, folder, there in kinds:
            missing = [id_ for id_ in ids if id_ not in there]
            if missing:
                raise UsageError(
                    f"{self.root / folder}: {are_missing(kind, missing)}; {self.id_lists} names what there must be."
                )
            twice = next((id_ for id_ in ids if len(there[id_]) > 1), None)
            if twice is not None:
                raise UsageError(f"{' and '.join(map(str, there[twice]))}: both are the {kind} {twice}. Remove one.")
        masks = self.masks if labels else {}
        return tuple(Sample(id_, self.images[id_][0], next(iter(masks.get(id_, [])), None)) for id_ in ids)

    def validation_ids(self) -> list[str]:
        return read_ids(self.id_lists / "val.txt", "the list of validation images")

    def pool(self) -> list[str]:
        """The ids that are not held out for validation are chosen from these."""
        if self.mask_folder != "SegmentationClass":  # the augmented set is whatever has a mask there
            return sorted(self.masks)
        if (self.id_lists / "train.txt").is_file():
            return read_ids(self.id_lists / "train.txt", "the list of training images")
        return sorted(self.images)


def _open(config: Config, tree: _Tree, lists: Path, classes: tuple[str, ...], palette: np.ndarray) -> SegmentationData:
    listed = lists / "val.txt"

    def validation() -> tuple[Sample, ...]:
        if listed.is_file():
            return read_list(listed, tree.root, labels=True)
        return tree.samples(tree.validation_ids(), labels=True)

    def choose(n_labelled: int, seed: int) -> tuple[list[str], list[str]]:
        held_out = listed_ids(listed, tree.root) if listed.is_file() else set(tree.validation_ids())
        pool = [id_ for id_ in tree.pool() if id_ not in held_out]
        labelled, rest = choose_labelled([id_ for id_ in pool if id_ in tree.masks], n_labelled, seed)
        return labelled, rest + [id_ for id_ in pool if id_ not in tree.masks]

    labelled, unlabelled = read_or_choose(lists, tree.root, config, choose=choose, samples=tree.samples)
    return SegmentationData(
        classes, palette, labelled, unlabelled, LazySamples(validation), ignore_index=config.ignore_index
    )


def _read_classes(path: Path, names: list[str] | None) -> tuple[tuple[str, ...], np.ndarray]:
    if not path.is_file():
        if names is None:
            raise UsageError(f'{path}: is missing; name the classes there, one a line, or in the key "classes".')
        return tuple(names), voc_palette()
    rows = read_class_file(path)
    colours = [colour for _, colour in rows if colour is not None]
    palette = palette_of(tuple(colours)) if len(colours) == len(rows) else voc_palette()
    return tuple(names or (name for name, _ in rows)), palette
