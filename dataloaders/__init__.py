"""Data sets and streams: from files to batches. Knows no network and no loss."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from dataloaders.sets import cityscapes, voc
from dataloaders.sets.cityscapes import open_cityscapes
from dataloaders.sets.described import DESCRIPTION
from dataloaders.sets.description import Sample, SegmentationData, find_root
from dataloaders.sets.value_range import stored_value_range
from dataloaders.sets.voc import open_custom, open_voc
from utils.config import Config
from utils.errors import UsageError
from utils.palette import CITYSCAPES_COLOURS, palette_of, voc_palette

__all__ = ["Sample", "SegmentationData", "make_ready", "open_data", "parts_of_training", "published_classes"]


def make_ready(config: Config) -> None:
    """Make what can be made by code: the demo data set, where it is missing. Once, before processes start."""
    if config.dataset == "demo":
        from dataloaders.sets.demo.make import make_demo  # scikit-learn takes seconds to import

        make_demo(Path(config.data_dir))


def open_data(config: Config) -> SegmentationData:
    """The data set and split that a configuration names.

    Raises
    ------
    UsageError
        It cannot be opened. What is wrong with its images is said when they are first used.
    """
    if config.fold is not None and not (find_root(config.data_dir, config.dataset) / DESCRIPTION).is_file():
        raise UsageError(f'key "fold": {config.data_dir} has no {DESCRIPTION}, in which folds are; set it to null.')
    openers = {"voc": open_voc, "cityscapes": open_cityscapes, "custom": open_custom, "demo": open_custom}
    data = openers[config.dataset](config)
    stated = config.data.value_range
    if stated == "auto":
        value_range = stored_value_range(find_root(config.data_dir, config.dataset))
    else:
        value_range = stated[0], stated[1]
    return replace(data, value_range=value_range)


def parts_of_training(config: Config) -> tuple[str, ...]:
    """The parts of its data set that the training of a configuration uses."""
    unlabelled = ("unlabelled",) if config.uses_unlabelled else ()
    return ("labelled", *unlabelled, *(("validation",) if config.trainer.val else ()))


def published_classes(config: Config) -> tuple[tuple[str, ...], np.ndarray] | None:
    """Names and palette of a configuration's classes as far as they are known without the data set, else None."""
    if config.dataset == "voc":
        return voc.CLASSES, voc_palette()
    if config.dataset == "cityscapes":
        return cityscapes.CLASSES, palette_of(CITYSCAPES_COLOURS)
    return (tuple(config.classes), voc_palette()) if config.classes else None
