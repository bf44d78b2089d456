"""Which of a run's two models to use, and how sure that is: a paired bootstrap over the validation images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.evaluation.statistics import FEWEST, draw_images, interval, iou_of, mean_iou_of, resampled_counts
from utils.config import Config

SMALL = 30
"""Validation images, below which each model's score is given with its interval."""
FROM_BASELINE = (
    "37.4 of 100 on 46 labelled photographs of streets, as a baseline that trained for twice as long, after 30.2 from "
    "random weights and 30.7 of the baseline (docs/results.md, camvid_1over8_why)"
)
"""The mean IoU of USRN where it started from its baseline, and what to hold it against: said here alone."""


@dataclass(frozen=True)
class Change:
    """A score of one model less that of another, on the same images.

    Attributes
    ----------
    value
        NaN where the class occurs with neither.
    low, high
        The interval in which 95 % of the resampled differences lie.
    n_images
        Those whose targets have what the score is of.
    """

    value: float
    low: float
    high: float
    n_images: int

    @property
    def is_clear(self) -> bool:
        """Whether it is more than chance."""
        return self.n_images >= FEWEST and (self.low > 0 or self.high < 0)

    def __str__(self) -> str:
        return f"{100 * self.value:+.2f} ({100 * self.low:+.2f} to {100 * self.high:+.2f})"


@dataclass(frozen=True)
class Comparison:
    """A model against its baseline.

    Attributes
    ----------
    mean
        Of the mean IoU.
    classes
        Of the IoU, by class.
    scores
        Mean IoU of baseline and model, each with its interval.
    """

    mean: Change
    classes: dict[str, Change]
    scores: tuple[tuple[float, float, float], tuple[float, float, float]]

    @property
    def is_better(self) -> bool:
        """Whether the model is the one to use; where they are level, the baseline is."""
        return self.mean.value > 0


def compare(baseline: np.ndarray, own: np.ndarray, classes: Sequence[str]) -> Comparison:
    """Compare two models by the pixel counts of the same images, int (N, 3, C) each."""
    weights = draw_images(len(baseline), np.random.default_rng(0))
    before, after = (resampled_counts(counts, weights) for counts in (baseline, own))
    images = (baseline[:, 1] > 0).sum(0)
    values, drawn = iou_of(own.sum(0)) - iou_of(baseline.sum(0)), iou_of(after) - iou_of(before)
    means = [float(mean_iou_of(counts.sum(0))) for counts in (baseline, own)]
    drawn_means = [mean_iou_of(counts) for counts in (before, after)]
    first, second = ((mean, *interval(of_mean)) for mean, of_mean in zip(means, drawn_means, strict=True))
    return Comparison(
        mean=Change(means[1] - means[0], *interval(drawn_means[1] - drawn_means[0]), int(baseline[:, 1].any(1).sum())),
        classes={
            name: Change(float(values[index]), *interval(drawn[:, index]), int(images[index]))
            for index, name in enumerate(classes)
        },
        scores=(first, second),
    )


def recommendation(found: Comparison, config: Config) -> list[str]:
    """What the end of a run says: the model to use, how sure that is, classes, and what to try where it lost."""
    method, n_images = config.name, found.mean.n_images
    sure = "more than chance" if found.mean.is_clear else "no more than chance may give"
    difference = f"mean IoU {found.mean}, 95 % interval over {n_images} validation images: {sure}"
    if found.is_better:
        lines = [f"recommended: {method}. It is above the baseline, {difference}"]
    else:
        lines = [f"recommended: the baseline. It is the better one, {method} is not above it: {difference}"]
    if n_images < SMALL:
        texts = (
            f"{title} {100 * score:.2f} ({100 * low:.2f} to {100 * high:.2f})"
            for title, (score, low, high) in zip(("baseline", method), found.scores, strict=True)
        )
        few = f"; fewer than {FEWEST} cannot tell a difference from chance" * (n_images < FEWEST)
        lines.append(f"only {n_images} validation images{few}: mean IoU and its 95 % interval, {', '.join(texts)}")
        if config.dataset == "custom":
            lines.append("to validate each image with a mask once: --init_data with --folds (docs/own_data.md)")
    clear = sorted((item for item in found.classes.items() if item[1].is_clear), key=lambda item: -item[1].value)
    for what, changes in (
        ("gained", [item for item in clear if item[1].value > 0]),
        ("lost", [item for item in reversed(clear) if item[1].value < 0]),
    ):
        text = ", ".join(f"{name} {change}" for name, change in changes)
        lines.append(f"classes that {what} more than chance: {text or 'none'}")
    rare = [name for name, change in found.classes.items() if 0 < change.n_images < FEWEST]
    if rare:
        lines.append(f"in fewer than {FEWEST} validation images, too few to tell: {', '.join(rare)}")
    if not found.is_better:
        lines += [f"to try: {text}" for text in _advice(config)]
    return lines


def _advice(config: Config) -> list[str]:
    """What is worth a try where the method lost to its baseline; the one place that says so."""
    start = 'start from a file of weights, with "pretrained" (pretrained/README.md)'
    if config.pretrained != "baseline":
        start += (
            ', or with "pretrained": "baseline" from the model that is ahead now, with which USRN reached '
            f"{FROM_BASELINE}"
        )
    if config.trainer.minutes:
        twice = f"--minutes {2 * config.trainer.minutes:g}"
    else:
        twice = f"--set trainer.epochs={2 * config.trainer.epochs}"
        if config.model.epoch_start_unsup:
            twice += f" --set model.epoch_start_unsup={2 * config.model.epoch_start_unsup}"
    longer = (
        f"train longer: {twice} is twice as long, with --force in the place of this run; a method with unlabelled "
        "images needs more iterations than its baseline"
    )
    return [start, longer]
