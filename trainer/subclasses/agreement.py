"""Whether subclass maps are those of the masks and of the table beside them."""

import numpy as np

from dataloaders.reading import IGNORE, read_subclass_map
from dataloaders.sets.description import SegmentationData
from dataloaders.streams import subclass_map_path
from trainer.subclasses.samples import FEATURE_STRIDE, resize_nearest
from trainer.subclasses.table import read_subclass_table
from utils.config import Config
from utils.errors import UsageError

LOOKED_AT = 8
"""Images whose maps are compared, from all over the list."""
LEAST = 0.9
"""The share of a class's pixels that must have one of its subclasses; where all is of one run, all have."""


def check_subclass_maps(config: Config, data: SegmentationData) -> None:
    """Refuse maps whose subclasses belong to other classes than the masks' pixels do.

    A table whose counts are shifted from one class to the next, maps of another run and masks that were changed after
    stage 3 would train the subclass branch on wrong classes without a word. The original's maps, which have no table,
    are compared by ``counts_of_originals``.

    Raises
    ------
    UsageError
        With the class that agrees least.
    """
    table = read_subclass_table(config, data)
    if not table.sizes:
        return
    owners = np.append(table.class_of_subclass.numpy(), IGNORE)  # the last, for IGNORE itself
    right, all_ = np.zeros((2, len(data.classes)), np.int64)
    number = min(LOOKED_AT, len(data.labelled))
    for at in range(number):
        sample = data.labelled[at * len(data.labelled) // number]
        mask = data.read_mask(sample.mask)
        subclasses = read_subclass_map(subclass_map_path(config.subclass_dir, sample), table.n_subclasses)
        if subclasses.shape != mask.shape:
            continue  # the stream says so, with both files
        small = tuple(-(-side // FEATURE_STRIDE) for side in mask.shape)
        expected = resize_nearest(resize_nearest(mask, small), mask.shape)  # as stage 3 makes the map
        there = expected != IGNORE
        agree = expected[owners[subclasses] == expected]
        all_ += np.bincount(expected[there], minlength=len(data.classes))
        right += np.bincount(agree[agree != IGNORE], minlength=len(data.classes))
    share = np.divide(right, all_, out=np.ones(len(data.classes)), where=all_ > 0)
    worst = int(share.argmin())
    if share[worst] < LEAST:
        raise UsageError(
            f"{config.subclass_dir}: {1 - share[worst]:.0%} of the pixels of the class {data.classes[worst]} have a "
            "subclass of another class: the maps, subclasses.json and the masks are not of one run. Run stage 3 again "
            "with --force."
        )
