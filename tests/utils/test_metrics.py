import math

import pytest
import torch

from utils.metrics import ClassCounts, ConfusionMatrix, scores


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
