"""How many subclasses every class gets, K_c (docs/method.md section 7)."""

import numpy as np

from utils.config import Config
from utils.errors import UsageError

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
        counts = automatic_counts(samples_per_class, config.subclass_quantile, 1.0 if isinstance(rule, str) else rule)
        source = f"the rule {rule}"
    if sum(counts) > MAX_SUBCLASSES:
        raise UsageError(
            f"subclass_counts: {source} gives {sum(counts):,} subclasses; at most {MAX_SUBCLASSES:,} are possible."
        )
    if len(counts) != n_classes:
        raise UsageError(f"subclass_counts: {source} names {len(counts)} counts, but there are {n_classes} classes.")
    return list(counts)


def fillable_counts(wanted: list[int], samples_per_class: np.ndarray) -> list[int]:
    """As many of the subclasses wanted as there are samples to fill, at least one a class.

    Raises
    ------
    UsageError
        They are more than the streams' int16 targets can tell apart.
    """
    counts = np.clip(wanted, 1, np.maximum(1, samples_per_class)).tolist()
    most = np.iinfo(np.int16).max
    if sum(counts) > most:
        raise UsageError(f"subclass_counts: asks for {sum(counts)} subclasses; at most {most} are possible.")
    return counts


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
