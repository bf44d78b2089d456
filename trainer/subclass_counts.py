"""How many subclasses every class gets, K_c (docs/method.md section 7)."""

import numpy as np

from dataloaders.description import SegmentationData
from dataloaders.reading import IGNORE, read_mask
from utils.config import Config
from utils.errors import UsageError
from utils.logger import progress

FEATURE_STRIDE = 8

# The published splits, by data set and number of labelled images.
PAPER_COUNTS: dict[tuple[str, int], tuple[int, ...]] = {
    ("voc", 662): (132, 2, 1, 1, 1, 2, 3, 4, 7, 2, 1, 2, 6, 2, 2, 15, 1, 1, 2, 2, 1),
    ("voc", 331): (121, 2, 1, 1, 1, 1, 3, 3, 6, 3, 1, 2, 6, 2, 2, 15, 1, 1, 2, 2, 1),
    ("voc", 165): (136, 2, 2, 1, 1, 1, 2, 4, 8, 3, 1, 2, 7, 2, 2, 18, 1, 1, 1, 3, 3),
    ("cityscapes", 372): (42, 7, 26, 1, 2, 2, 1, 1, 19, 2, 5, 2, 1, 8, 1, 1, 1, 1, 1),
    ("cityscapes", 186): (45, 7, 28, 1, 2, 2, 1, 1, 20, 2, 5, 2, 1, 8, 1, 1, 1, 1, 1),
    ("cityscapes", 93): (38, 6, 22, 1, 2, 2, 1, 1, 17, 2, 5, 1, 1, 7, 1, 1, 1, 1, 1),
}

MAX_SUBCLASSES = 2**15 - 1  # targets are int16


def subclass_counts(config: Config, samples_per_class: np.ndarray) -> list[int]:
    """K_c of every class by the rule that ``subclass_counts`` of the configuration names.

    Parameters
    ----------
    samples_per_class
        N_c, labelled positions of every class, (C,).
    """
    rule, n_classes = config.subclass_counts, len(samples_per_class)
    if rule is None:
        rule = "auto" if paper_counts(config) is None else "paper"
    if isinstance(rule, list):
        counts, source = rule, "subclass_counts"
    elif rule == "paper":
        counts = paper_counts(config)
        if counts is None:
            raise UsageError(
                f'subclass_counts is "paper", but the paper has no counts for {config.dataset} with '
                f'{config.n_labeled_examples} labelled images; set it to "auto".'
            )
        source = "the paper"
    else:
        counts = automatic_counts(samples_per_class, config.subclass_quantile, 1.0 if rule == "auto" else rule)
        source = f"the rule {rule}"
    if sum(counts) > MAX_SUBCLASSES:
        raise UsageError(
            f"subclass_counts: {source} gives {sum(counts):,} subclasses; at most {MAX_SUBCLASSES:,} are possible."
        )
    if len(counts) != n_classes:
        raise UsageError(f"subclass_counts: {source} names {len(counts)} counts, but there are {n_classes} classes.")
    return list(counts)


def samples_per_class(data: SegmentationData, ignore_index: int) -> np.ndarray:
    """N_c, the labelled positions of every class at stride 8, (C,), from the masks alone."""
    n_classes = len(data.classes)
    total = np.zeros(n_classes, np.int64)
    for sample in progress(data.labelled, desc="labelled masks", unit="mask"):
        mask = read_mask(sample.label, n_classes, ignore_index, data.palette)
        positions = resize_nearest(mask, tuple(-(-side // FEATURE_STRIDE) for side in mask.shape))
        total += np.bincount(positions[positions != IGNORE], minlength=n_classes)
    return total


def resize_nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest neighbour, source index floor(i * old / new), as OpenCV and PyTorch do it. (H, W) → ``size``."""
    rows, columns = (np.arange(new) * old // new for old, new in zip(values.shape, size, strict=True))
    return values[rows[:, None], columns]


def automatic_counts(samples_per_class: np.ndarray, quantile: float = 0.5, factor: float = 1.0) -> list[int]:
    """K_c = ceil(factor N_c / N_ref), at least 1; N_ref is a quantile of N_c over the classes that occur."""
    occurring = samples_per_class[samples_per_class > 0]
    if not len(occurring):
        raise UsageError("the labelled images have no labelled pixel: there is nothing to make subclasses of.")
    reference = np.quantile(occurring, quantile)
    return np.maximum(1, np.ceil(factor * samples_per_class / reference - 1e-9)).astype(int).tolist()


def paper_counts(config: Config) -> tuple[int, ...] | None:
    """The published K_c of this data set and number of labelled images, if it is one of the six splits."""
    return PAPER_COUNTS.get((config.dataset, config.n_labeled_examples))
