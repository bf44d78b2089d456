"""Paired differences of two variants or models: mean, interval and how many seeds agree."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from utils.metrics import frequency_groups

RESAMPLES = 2000
LEVEL = 0.95
FEWEST = 6
"""Images, or seeds, that tell a difference from chance: where all of five agree, chance does that in 1 of 16 cases
(sign test)."""


@dataclass(frozen=True)
class Difference:
    """A variant's mean IoU less another's.

    Attributes
    ----------
    mean
        Over the seeds.
    low, high
        The interval in which 95 % of the resampled differences lie.
    above, seeds
        With how many of the seeds the variant is above.
    images
        Those whose targets have the classes; of fewer than ``FEWEST`` the interval tells nothing.
    """

    mean: float
    low: float
    high: float
    above: int
    seeds: int
    images: int


def iou_of(counts: np.ndarray) -> np.ndarray:
    """IoU from pixels that are right, in the target and predicted, (..., 3, C) → (..., C); NaN for absent classes."""
    right, target, predicted = np.moveaxis(np.asarray(counts, float), -2, 0)
    union = target + predicted - right
    return np.divide(right, union, out=np.full_like(right, np.nan), where=union > 0)


def mean_iou_of(counts: np.ndarray, classes: Sequence[int] | None = None) -> np.ndarray:
    """Mean IoU over the classes that occur, (..., 3, C) → (...), or over those of ``classes``."""
    iou = iou_of(counts) if classes is None else iou_of(counts)[..., list(classes)]
    there = ~np.isnan(iou)
    total = np.where(there, iou, 0).sum(-1)
    return np.divide(total, there.sum(-1), out=np.full_like(total, np.nan), where=there.any(-1))


def groups_of(counts: np.ndarray) -> dict[str, list[int]]:
    """Rare, medium and frequent classes by the targets' pixels of ``counts`` (N, 3, C)."""
    return frequency_groups(torch.from_numpy(counts[:, 1].sum(0)))


def paired_difference(
    first: Sequence[np.ndarray], other: Sequence[np.ndarray], classes: Sequence[int] | None = None
) -> Difference:
    """How much ``other`` is above ``first`` in mean IoU, by a paired bootstrap over images and seeds.

    A resample draws images, the same for both and for all seeds, and seeds, each with replacement, and recomputes the
    difference from the pixels of the drawn images (percentile interval; Efron and Tibshirani, 1993, chapter 13).

    Parameters
    ----------
    first, other
        Pixel counts of every seed, in the same order: int (N, 3, C).
    classes
        Indices of the classes whose mean it is; None for all.
    """
    pairs = [np.stack(pair) for pair in zip(first, other, strict=True)]  # a seed: (2, N, 3, C)
    observed = np.array([np.subtract(*mean_iou_of(pair.sum(1), classes)[::-1]) for pair in pairs])
    rng = np.random.default_rng(0)
    weights = draw_images(pairs[0].shape[1], rng)
    resampled = []
    for pair in pairs:
        before, after = (mean_iou_of(resampled_counts(counts, weights), classes) for counts in pair)
        resampled.append(after - before)
    drawn = rng.integers(len(pairs), size=(RESAMPLES, len(pairs)))
    low, high = interval(np.stack(resampled)[drawn, np.arange(RESAMPLES)[:, None]].mean(1))
    targets = pairs[0][0, :, 1]
    n_images = int((targets if classes is None else targets[:, list(classes)]).any(1).sum())
    return Difference(float(observed.mean()), low, high, int((observed > 0).sum()), len(observed), n_images)


def draw_images(n_images: int, rng: np.random.Generator) -> np.ndarray:
    """How often each image is in each resample, float (RESAMPLES, N)."""
    return rng.multinomial(n_images, np.full(n_images, 1 / n_images), RESAMPLES).astype(float)


def resampled_counts(counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pixels of the images of every resample, (N, 3, C) → (RESAMPLES, 3, C)."""
    return (weights @ counts.reshape(len(counts), -1)).reshape(len(weights), *counts.shape[1:])


def interval(values: np.ndarray) -> tuple[float, float]:
    """In which 95 % of the resampled values lie that are numbers; NaN where none is."""
    numbers = values[~np.isnan(values)]
    if not len(numbers):
        return float("nan"), float("nan")
    low, high = np.quantile(numbers, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
