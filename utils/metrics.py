"""Counts of pixels, and intersection over union from a confusion matrix."""

from dataclasses import dataclass

import torch
from torch import Tensor


class ConfusionMatrix:
    """Counts of (target, prediction) pairs, int64 (C, C), kept on the device of what it is given."""

    def __init__(self, n_classes: int, device: torch.device | str = "cpu"):
        self.n_classes = n_classes
        self.counts = torch.zeros(n_classes, n_classes, dtype=torch.int64, device=device)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add pixels: integer tensors of one shape; targets outside the classes are ignored."""
        target = target.long()
        labelled = (target >= 0) & (target < self.n_classes)
        pairs = torch.where(labelled, target * self.n_classes + prediction.long(), self.n_classes**2)
        # One bin more takes the ignored pixels. Boolean indexing and bincount would make a GPU wait for the host.
        counts = pairs.new_zeros(self.n_classes**2 + 1)
        counts.scatter_add_(0, pairs.flatten(), torch.ones_like(pairs).flatten())
        self.counts += counts[:-1].view_as(self.counts)


class ClassCounts:
    """Pixels of every class, int64 (C,), kept on the device of what it is given."""

    def __init__(self, n_classes: int, device: torch.device | str = "cpu"):
        self.n_classes = n_classes
        self.counts = torch.zeros(n_classes, dtype=torch.int64, device=device)

    def update(self, labels: Tensor) -> None:
        """Add pixels: an int64 tensor; values outside the classes are ignored."""
        labels = labels.flatten()
        inside = (labels >= 0) & (labels < self.n_classes)
        # No bincount, which would make a GPU wait for the host.
        self.counts.scatter_add_(0, labels.clamp(0, self.n_classes - 1), inside.long())

    def shares(self) -> list[float] | None:
        """Every class's share of the pixels; None where there are none."""
        total = int(self.counts.sum())
        return (self.counts / total).tolist() if total else None


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says.

    Attributes
    ----------
    counts
        The confusion matrix, int64 (C, C): rows targets, columns predictions.
    correct, labelled
        Pixels.
    intersection, union
        Pixels of every class, (C,).
    iou
        (C,), NaN for a class that occurs neither in prediction nor in target.
    mean_iou
        Over the classes that occur. NaN where none does.
    """

    counts: Tensor
    correct: int
    labelled: int
    intersection: Tensor
    union: Tensor
    iou: Tensor
    mean_iou: float

    @property
    def pixel_accuracy(self) -> float:
        return self.correct / self.labelled if self.labelled else float("nan")


def scores(counts: Tensor) -> Scores:
    """Scores of a confusion matrix, rows targets, columns predictions, (C, C)."""
    counts = counts.cpu()
    intersection = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - intersection
    iou = torch.where(union > 0, intersection.double() / union, torch.nan)
    return Scores(
        counts=counts,
        correct=int(intersection.sum()),
        labelled=int(counts.sum()),
        intersection=intersection,
        union=union,
        iou=iou,
        mean_iou=float(iou.nanmean()),
    )
