"""Cityscapes, 19 classes (trainIds)."""

from functools import cache
from pathlib import Path

from dataloaders.sets.description import LazySamples, Sample, SegmentationData, find_root
from dataloaders.sets.splits import LISTS_DIR, Labels, choose_labelled, read_list, read_or_choose
from utils.config import Config
from utils.errors import UsageError
from utils.palette import CITYSCAPES_COLOURS, palette_of

CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
    "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
_IMAGE, _MASK = "_leftImg8bit", "_gtFine_labelTrainIds"


def open_cityscapes(config: Config) -> SegmentationData:
    """Cityscapes: ``images/train``, ``segmentation/train``, validation from ``leftImg8bit/val``, ``gtFine/val``."""
    root = find_root(config.data_dir, config.dataset)
    lists = LISTS_DIR / f"city_splits{config.datalist}"

    @cache
    def images() -> dict[str, Path]:
        return {path.stem.removesuffix(_IMAGE): path for path in _files(root, "images/train", f"*{_IMAGE}.png")}

    def samples(keys: list[str], *, labels: Labels) -> tuple[Sample, ...]:
        found = []
        for key in keys:
            mask = root / "segmentation" / "train" / f"{key}{_MASK}.png"
            there = bool(labels) and mask.is_file()
            if labels is True and not there:
                raise _missing(mask, "this mask")
            found.append(Sample(images()[key].stem, images()[key], mask if there else None))
        return tuple(found)

    def validation() -> tuple[Sample, ...]:
        if (lists / "val.txt").is_file():
            return read_list(lists / "val.txt", root, labels=True)
        return tuple(_validation_sample(root, path) for path in _files(root, "leftImg8bit/val", f"*/*{_IMAGE}.png"))

    labelled, unlabelled = read_or_choose(
        lists, root, config, choose=lambda n, seed: choose_labelled(images(), n, seed), samples=samples
    )
    palette = palette_of(CITYSCAPES_COLOURS)
    return SegmentationData(
        CLASSES, palette, labelled, unlabelled, LazySamples(validation), ignore_index=config.ignore_index
    )


def _validation_sample(root: Path, image: Path) -> Sample:
    mask = root / "gtFine" / "val" / image.parent.name / (image.stem.removesuffix(_IMAGE) + f"{_MASK}.png")
    if not mask.is_file():
        raise _missing(mask, "this mask")
    return Sample(image.stem, image, mask)


def _files(root: Path, folder: str, pattern: str) -> list[Path]:
    files = sorted((root / folder).glob(pattern))
    if not files:
        raise _missing(root / folder / pattern, "no such image")
    return files


def _missing(path: Path, what: str) -> UsageError:
    return UsageError(
        f'{path}: {what} is there. README, section "Data", says how to get Cityscapes; '
        "`python3 -m dataloaders.prepare cityscapes` lays it out."
        if what.startswith("no")
        else f"{path}: {what} is missing. `python3 -m dataloaders.prepare cityscapes` makes it."
    )
