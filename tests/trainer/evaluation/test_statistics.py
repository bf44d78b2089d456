import numpy as np
import pytest

from trainer.evaluation.statistics import groups_of, iou_of, mean_iou_of, paired_difference


def counts(rng, n_images=60, quality=0.8):
    """Pixels of three classes, the third rare, of images of 1,000 pixels; ``quality`` of each class are right."""
    target = rng.multinomial(1000, [0.7, 0.28, 0.02], n_images)
    right = rng.binomial(target, quality)
    predicted = right.copy()
    predicted[:, 0] += 1000 - right.sum(1)
    return np.stack([right, target, predicted], axis=1)


def test_iou_and_its_mean_leave_out_classes_that_do_not_occur():
    pixels = np.array([[8, 1, 0], [9, 1, 0], [9, 2, 0]])
    assert iou_of(pixels)[:2] == pytest.approx([0.8, 0.5])
    assert np.isnan(iou_of(pixels)[2])
    assert mean_iou_of(pixels) == pytest.approx(0.65)
    assert mean_iou_of(pixels, [1]) == pytest.approx(0.5)
    assert np.isnan(mean_iou_of(pixels, [2]))
    assert groups_of(counts(np.random.default_rng(0))) == {"rare": [2], "medium": [1], "frequent": [0]}


def test_interval_holds_the_difference_and_excludes_0_where_every_image_got_better():
    rng = np.random.default_rng(0)
    first, other = ([counts(rng, quality=quality) for _ in range(3)] for quality in (0.7, 0.8))
    found = paired_difference(first, other)
    expected = np.mean([mean_iou_of(b.sum(0)) - mean_iou_of(a.sum(0)) for a, b in zip(first, other, strict=True)])
    assert found.mean == pytest.approx(expected)
    assert 0 < found.low < found.mean < found.high
    assert (found.above, found.seeds) == (3, 3)
    rare = paired_difference(first, other, [2])
    assert rare.high - rare.low > found.high - found.low  # 20 pixels an image say less than 1,000 do


def test_interval_holds_0_where_nothing_changed():
    rng = np.random.default_rng(1)
    same = [counts(rng) for _ in range(2)]
    found = paired_difference(same, same)
    assert (found.mean, found.low, found.high, found.above) == (0, 0, 0, 0)
    noise = paired_difference([counts(rng) for _ in range(4)], [counts(rng) for _ in range(4)])
    assert noise.low < 0 < noise.high


def test_interval_covers_the_true_difference_about_as_often_as_it_says():
    """Images and seeds both vary; the truth is the mean over many of both."""
    rng = np.random.default_rng(2)

    def study(n_seeds, n_images):
        gains = rng.normal(0.03, 0.02, n_seeds)  # what a seed is worth
        first = [counts(rng, n_images, 0.7) for _ in gains]
        return first, [counts(rng, n_images, 0.7 + gain) for gain in gains]

    first, other = study(300, 200)
    truth = np.mean([mean_iou_of(b.sum(0)) - mean_iou_of(a.sum(0)) for a, b in zip(first, other, strict=True)])
    found = [paired_difference(*study(8, 40)) for _ in range(30)]
    assert np.mean([difference.low <= truth <= difference.high for difference in found]) >= 0.8
