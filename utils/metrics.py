"""Counts of pixels, and what they say: scores from a confusion matrix, boundary IoU, calibration."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
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
    accuracy
        (C,), the share of each class's pixels that is predicted as it; NaN for a class without a pixel in the targets.
    mean_iou
        Over the classes that occur. NaN where none does.
    """

    counts: Tensor
    correct: int
    labelled: int
    intersection: Tensor
    union: Tensor
    iou: Tensor
    accuracy: Tensor
    mean_iou: float

    @property
    def pixel_accuracy(self) -> float:
        return self.correct / self.labelled if self.labelled else float("nan")

    @property
    def mean_accuracy(self) -> float:
        """Mean accuracy over the classes that the targets have."""
        return float(self.accuracy.nanmean())

    @property
    def frequency_weighted_iou(self) -> float:
        """IoU weighted by each class's share of the targets' pixels."""
        return (
            float((self.counts.sum(1) * self.iou.nan_to_num()).sum() / self.labelled) if self.labelled else float("nan")
        )

    @property
    def mean_iou_by_frequency(self) -> dict[str, float]:
        """Mean IoU of the rare, the medium and the frequent classes; NaN for a group without a class."""
        groups = frequency_groups(self.counts.sum(1))
        return {name: float(self.iou[indices].nanmean()) for name, indices in groups.items()}


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
        accuracy=torch.where(counts.sum(1) > 0, intersection.double() / counts.sum(1), torch.nan),
        mean_iou=float(iou.nanmean()),
    )


def frequency_groups(pixels: Tensor) -> dict[str, list[int]]:
    """The classes that occur, in thirds by their pixels (C,): indices of "rare", "medium" and "frequent" ones.

    Where three does not divide their number, the rarer groups have one more.
    """
    order = pixels.argsort(stable=True)
    occurring = order[pixels[order] > 0].tolist()
    first, second = -(-len(occurring) // 3), -(-2 * len(occurring) // 3)
    return {"rare": occurring[:first], "medium": occurring[first:second], "frequent": occurring[second:]}


BOUNDARY_RATIO = 0.02
"""Width of a boundary region as a part of the image's diagonal (Cheng et al., CVPR 2021)."""


class BoundaryCounts:
    """Intersection and union of the boundary regions of targets and predictions, int64 (C,) each, over all images.

    The boundary region of a class in a mask is its pixels within ``BOUNDARY_RATIO`` of the image's diagonal of another
    class, of a pixel without a class or of the image's edge (Cheng et al., "Boundary IoU", CVPR 2021, section 4; the
    distance is the chessboard's, as in its authors' code). Pixels without a class are without one in the prediction,
    too, so that a prediction that is right everywhere has boundary IoU 1.
    """

    def __init__(self, n_classes: int):
        self.n_classes = n_classes
        self.counts = torch.zeros(2, n_classes, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add an image: integers (H, W), on any device; targets outside the classes are without a class."""
        target_labels = target.cpu().numpy().astype(np.int16)
        labelled = (target_labels >= 0) & (target_labels < self.n_classes)
        target_labels = np.where(labelled, target_labels, -1)
        predicted = np.where(labelled, prediction.cpu().numpy().astype(np.int16), -1)
        near_target, near_predicted = boundary(target_labels) & labelled, boundary(predicted) & labelled
        both = near_target & near_predicted & (target_labels == predicted)
        found, of_target, of_predicted = (
            np.bincount(labels[where], minlength=self.n_classes)
            for labels, where in ((predicted, both), (target_labels, near_target), (predicted, near_predicted))
        )
        self.counts += torch.from_numpy(np.stack([found, of_target + of_predicted - found]))

    @staticmethod
    def iou(counts: Tensor) -> Tensor:
        """Boundary IoU of every class (C,) of (summed) counts (2, C); NaN where no mask has a boundary of it."""
        intersection, union = counts.cpu()
        return torch.where(union > 0, intersection.double() / union, torch.nan)


def boundary(labels: np.ndarray) -> np.ndarray:
    """Where a label map, int16 (H, W), has another label, or its edge, within the boundary's width: bool (H, W)."""
    distance = max(1, round(BOUNDARY_RATIO * math.hypot(*labels.shape)))
    # A square window around such a pixel holds two labels: all classes by one minimum and one maximum.
    framed = cv2.copyMakeBorder(labels, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=-2)
    window = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    return (cv2.erode(framed, window) != cv2.dilate(framed, window))[1:-1, 1:-1]


CALIBRATION_BINS = 15


class Calibration:
    """How sure predictions are and how often they are right, by equal bins of confidence.

    ``sums`` is float64 (3, bins), on the device of what it is given: pixels, right ones, sum of confidences.
    """

    def __init__(self, device: torch.device | str = "cpu"):
        self.sums = torch.zeros(3, CALIBRATION_BINS, dtype=torch.float64, device=device)

    def update(self, confidence: Tensor, right: Tensor, labelled: Tensor) -> None:
        """Add pixels: confidences in [0, 1], and where predictions are right and targets have a class, bool."""
        bins = (confidence * CALIBRATION_BINS).ceil().long().clamp(1, CALIBRATION_BINS) - 1
        weight = labelled.double()
        values = torch.stack([weight, weight * right, weight * confidence.double()])
        self.sums.scatter_add_(1, bins.flatten().expand(3, -1), values.flatten(1))


def expected_calibration_error(sums: Tensor) -> float:
    """Mean distance of accuracy and confidence over the bins of ``Calibration.sums``, weighted by pixels; NaN without.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, with 15 bins.
    """
    pixels, right, confidence = sums
    return float((right - confidence).abs().sum() / pixels.sum())
