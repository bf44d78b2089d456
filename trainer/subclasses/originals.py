"""Subclass maps that the original has made: they have no table, and may be another split's than the configuration's."""

import numpy as np

from dataloaders.reading import IGNORE, read_subclass_map
from dataloaders.sets.description import SegmentationData
from dataloaders.streams import subclass_map_path
from trainer.subclasses.counts import PAPER_COUNTS, paper_counts
from utils.config import Config
from utils.errors import UsageError
from utils.logger import log

COMPARED_IMAGES = 32
_LEAST_AGREEMENT = 0.5  # of the pixels; maps are of stride 8 and so differ from their masks along every border


def counts_of_originals(config: Config, data: SegmentationData) -> tuple[int, ...]:
    """K_c of maps without a table, (C,): of the published split by which they say the classes of the masks best.

    Four released configurations name the maps of another split, whose subclasses the counts of their own would give to
    other classes.

    Raises
    ------
    UsageError
        The maps fit the masks by the counts of no published split.
    """
    own = paper_counts(config)
    candidates = [
        *([own] if own is not None else []),
        *(counts for (name, _), counts in PAPER_COUNTS.items() if name == config.dataset),
    ]
    agreeing, compared = np.zeros(len(candidates), np.int64), 0
    for sample in data.labelled[:COMPARED_IMAGES]:
        path = subclass_map_path(config.subclass_dir, sample)
        if not path.is_file():
            continue  # the stream says so
        subclasses, classes = read_subclass_map(path, np.iinfo(np.uint8).max), data.read_mask(sample.mask)
        if subclasses.shape != classes.shape:
            continue
        both = (subclasses != IGNORE) & (classes != IGNORE)
        subclasses, classes = subclasses[both], classes[both]
        compared += len(classes)
        for number, counts in enumerate(candidates):
            parents = np.full(np.iinfo(np.uint8).max, IGNORE)
            parents[: sum(counts)] = np.repeat(np.arange(len(counts)), counts)
            agreeing[number] += (parents[subclasses] == classes).sum()
    best = int(agreeing.argmax())  # the own ones where they are as good
    if agreeing[best] < _LEAST_AGREEMENT * compared:
        raise UsageError(
            f"{config.subclass_dir}: its maps have no subclasses.json and fit the masks by the counts of no published "
            "split. Make them by stage 3, or name others with label_subcls."
        )
    if candidates[best] != own:
        log.warning(
            f"label_subcls: {config.subclass_dir} holds the maps of another published split than that of "
            f"{config.n_labeled_examples} labelled images; its {sum(candidates[best])} subclasses are used"
        )
    return candidates[best]
