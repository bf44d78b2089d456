import math

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, jaccard_score

from utils.metrics import (
    BOUNDARY_RATIO,
    BoundaryCounts,
    Calibration,
    ClassCounts,
    ConfusionMatrix,
    expected_calibration_error,
    frequency_groups,
    scores,
)


def scores_of(prediction, target, n_classes=3):
    confusion = ConfusionMatrix(n_classes)
    confusion.update(torch.tensor(prediction), torch.tensor(target))
    return scores(confusion.counts)


def test_iou_is_intersection_over_union_of_every_class():
    result = scores_of([0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 2, 1])
    assert result.intersection.tolist() == [2, 1, 1]
    assert result.union.tolist() == [3, 3, 2]
    assert result.iou.tolist() == pytest.approx([2 / 3, 1 / 3, 1 / 2])
    assert result.mean_iou == pytest.approx(0.5)
    assert result.pixel_accuracy == pytest.approx(4 / 6)


def test_rows_are_targets_and_columns_predictions():
    confusion = ConfusionMatrix(3)
    confusion.update(torch.tensor([2]), torch.tensor([0]))
    assert confusion.counts[0, 2] == 1


def test_class_that_occurs_nowhere_is_left_out_of_the_mean():
    result = scores_of([0, 1], [0, 1])
    assert math.isnan(result.iou[2])
    assert result.mean_iou == 1


def test_class_that_is_predicted_but_never_there_counts_as_zero():
    result = scores_of([0, 1, 2], [0, 1, 1])
    assert result.iou[2] == 0
    assert result.mean_iou == pytest.approx((1 + 0.5 + 0) / 3)


@pytest.mark.parametrize("ignored", [255, -1, 3])
def test_pixels_without_a_class_count_nowhere(ignored):
    result = scores_of([0, 1, 2, 0], [0, 1, ignored, ignored])
    assert result.labelled == 2
    assert result.mean_iou == 1
    assert math.isnan(result.iou[2])


def test_masks_of_small_integer_types_do_not_overflow():
    confusion = ConfusionMatrix(200)
    confusion.update(torch.full((4,), 199, dtype=torch.uint8), torch.full((4,), 199, dtype=torch.int16))
    assert confusion.counts[199, 199] == 4
    assert confusion.counts.sum() == 4


def test_updates_add_up_to_the_counts_of_all_pixels():
    prediction, target = torch.randint(0, 3, (2, 4, 5, 6), generator=torch.Generator().manual_seed(0))
    whole, parts = ConfusionMatrix(3), ConfusionMatrix(3)
    whole.update(prediction, target)
    for one_prediction, one_target in zip(prediction, target, strict=True):
        parts.update(one_prediction, one_target)
    assert torch.equal(whole.counts, parts.counts)


def test_nothing_labelled_gives_nan_and_no_error():
    result = scores_of([0, 1], [255, 255])
    assert math.isnan(result.mean_iou)
    assert math.isnan(result.pixel_accuracy)


def test_class_counts_add_up_and_leave_out_what_is_no_class():
    counts = ClassCounts(3)
    assert counts.shares() is None
    counts.update(torch.tensor([[0, 0, -1], [2, 3, 255]]))
    counts.update(torch.tensor([0]))
    assert counts.counts.tolist() == [3, 0, 1]
    assert counts.shares() == [0.75, 0, 0.25]


def blocks(seed: int, n_classes: int = 5, side: int = 96, ignored: float = 0.1):
    """A target of blocks, some without a class (-1), and a prediction that moves and mistakes some."""
    rng = np.random.default_rng(seed)
    target = np.kron(rng.integers(0, n_classes, (6, 4)), np.ones((16, 24))).astype(np.int16)[:side, :side]
    prediction = np.roll(target, 3, axis=int(rng.integers(2)))
    prediction[rng.random(prediction.shape) < 0.02] = rng.integers(n_classes)
    target[np.kron(rng.random((6, 4)) < ignored, np.ones((16, 24), bool))[:side, :side]] = -1
    return torch.from_numpy(prediction), torch.from_numpy(target)


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_scikit_learn(seed):
    prediction, target = blocks(seed)
    result = scores_of(prediction.tolist(), target.tolist(), n_classes=5)
    pair = target[target >= 0].numpy(), prediction[target >= 0].numpy()
    assert result.counts.tolist() == confusion_matrix(*pair, labels=range(5)).tolist()
    of_classes = jaccard_score(*pair, labels=range(5), average=None)
    assert result.iou.nan_to_num().tolist() == pytest.approx(of_classes, abs=1e-9)
    assert result.mean_iou == pytest.approx(jaccard_score(*pair, average="macro"), abs=1e-9)
    assert result.frequency_weighted_iou == pytest.approx(jaccard_score(*pair, average="weighted"), abs=1e-9)
    assert result.pixel_accuracy == pytest.approx(accuracy_score(*pair), abs=1e-9)
    assert result.mean_accuracy == pytest.approx(balanced_accuracy_score(*pair), abs=1e-9)


def test_classes_are_grouped_in_thirds_by_their_pixels():
    groups = frequency_groups(torch.tensor([50, 0, 3, 900, 4, 4, 60, 70]))
    assert groups == {"rare": [2, 4, 5], "medium": [0, 6], "frequent": [7, 3]}
    assert frequency_groups(torch.tensor([9, 1])) == {"rare": [1], "medium": [0], "frequent": []}
    result = scores_of([0, 0, 0, 0, 1, 2, 2], [0, 0, 0, 0, 1, 1, 2], n_classes=4)
    assert result.mean_iou_by_frequency == pytest.approx({"rare": 0.5, "medium": 0.5, "frequent": 1}, abs=1e-9)


def _boundary_iou_of_one_class(prediction: np.ndarray, target: np.ndarray) -> tuple[int, int]:
    """Intersection and union as the paper's authors define them: a mask without what erosion leaves of it."""

    def region(mask: np.ndarray) -> np.ndarray:
        distance = max(1, round(BOUNDARY_RATIO * math.hypot(*mask.shape)))
        framed = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        eroded = cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=distance)[1:-1, 1:-1]
        return mask & (eroded == 0)

    predicted, wanted = region(prediction), region(target)
    return int((predicted & wanted).sum()), int((predicted | wanted).sum())


@pytest.mark.parametrize("side", [1, 7, 96])
def test_boundary_iou_is_the_papers(side):
    counted, expected = BoundaryCounts(5), np.zeros((2, 5), int)
    for seed in range(4):
        prediction, target = blocks(seed, side=side)
        counted.update(prediction, target)
        labelled = target.numpy() >= 0
        for class_ in range(5):
            expected[:, class_] += _boundary_iou_of_one_class(
                (prediction.numpy() == class_) & labelled, target.numpy() == class_
            )
    assert counted.counts.tolist() == expected.tolist()
    iou = BoundaryCounts.iou(counted.counts)
    right = (expected[0] / expected[1].clip(1))[expected[1] > 0]
    assert iou[expected[1] > 0].tolist() == pytest.approx(right, abs=1e-9)


def test_boundary_iou_of_a_perfect_prediction_is_1_beside_pixels_without_a_class():
    _, target = blocks(0, ignored=0.4)
    counted = BoundaryCounts(5)
    counted.update(target.clamp(min=0), target)
    assert BoundaryCounts.iou(counted.counts).tolist() == [1] * 5


def test_calibration_error_is_the_mean_gap_of_15_bins():
    rng = np.random.default_rng(0)
    confidence, right, labelled = rng.random((4, 12, 9)), rng.random((4, 12, 9)) < 0.6, rng.random((4, 12, 9)) < 0.9
    calibration = Calibration()
    for image in zip(confidence, right, labelled, strict=True):
        calibration.update(*map(torch.from_numpy, image))
    gaps = 0.0
    for number in range(15):
        inside = labelled & (confidence > number / 15) & (confidence <= (number + 1) / 15)
        gaps += inside.sum() / labelled.sum() * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(calibration.sums) == pytest.approx(gaps, abs=1e-9)


def test_certain_predictions_belong_to_the_last_bin_and_impossible_ones_to_the_first():
    calibration = Calibration()
    calibration.update(
        torch.tensor([0.0, 1.0, 1.0]), torch.tensor([True, True, True]), torch.tensor([True, True, False])
    )
    assert calibration.sums[0].tolist() == [1, *[0] * 13, 1]
    assert math.isnan(expected_calibration_error(Calibration().sums))
