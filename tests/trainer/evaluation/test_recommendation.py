import numpy as np
import pytest

from tests.trainer.evaluation.test_statistics import counts
from trainer.evaluation.recommendation import Change, compare, recommendation
from trainer.evaluation.statistics import mean_iou_of
from utils.config_file import load_config

CLASSES = ("sky", "road", "sign")


def found(first=0.7, other=0.8, n_images=60):
    rng = np.random.default_rng(0)
    return compare(counts(rng, n_images, first), counts(rng, n_images, other), CLASSES)


@pytest.fixture
def says(tiny_configs):
    config = load_config(tiny_configs[1])
    return lambda comparison: "\n".join(recommendation(comparison, config))


def test_difference_and_scores_are_those_of_all_images_and_lie_in_their_intervals():
    rng = np.random.default_rng(3)
    first, other = counts(rng, 60, 0.7), counts(rng, 60, 0.8)
    comparison = compare(first, other, CLASSES)
    expected = [float(mean_iou_of(of_one.sum(0))) for of_one in (first, other)]
    assert comparison.mean.value == pytest.approx(expected[1] - expected[0])
    assert comparison.mean.low < comparison.mean.value < comparison.mean.high
    for (score, low, high), value in zip(comparison.scores, expected, strict=True):
        assert low < score == value < high


def test_better_method_is_recommended_with_the_classes_that_gained(says):
    text = says(found())
    assert text.startswith("recommended: USRN.")
    assert "more than chance\n" in text
    assert "gained more than chance: " in text
    assert "lost more than chance: none" in text
    assert "to try" not in text


def test_where_the_method_lost_the_baseline_is_called_the_better_one_and_two_settings_are_named(says):
    text = says(found(0.8, 0.7))
    assert text.startswith("recommended: the baseline. It is the better one")
    assert "gained more than chance: none" in text
    assert text.count("to try: ") == 2
    assert "trainer.epochs=4" in text  # twice the 2 of the configuration
    assert '"pretrained": "baseline"' in text


@pytest.mark.parametrize(
    ("set_too", "twice"),
    [([], "epochs=10 --set model.epoch_start_unsup=6 is twice"), (["trainer.minutes=30"], "--minutes 60 is twice")],
)
def test_longer_training_that_is_advised_is_twice_as_long_in_all_its_parts(tiny_configs, set_too, twice):
    config = load_config(tiny_configs[1], ["trainer.epochs=5", "model.epoch_start_unsup=3", *set_too])
    assert twice in "\n".join(recommendation(found(0.8, 0.7), config))


def test_starting_from_the_baseline_is_no_advice_where_that_was_done(tiny_configs):
    config = load_config(tiny_configs[1], ['pretrained="baseline"'])
    text = "\n".join(recommendation(found(0.8, 0.7), config))
    assert text.count("to try: ") == 2
    assert '"baseline"' not in text


def test_level_models_are_the_baseline_and_no_more_than_chance(says):
    same = counts(np.random.default_rng(0))
    text = says(compare(same, same, CLASSES))
    assert text.startswith("recommended: the baseline.")
    assert "no more than chance" in text


def test_few_validation_images_show_the_intervals_of_the_scores(says):
    assert "only 29 validation images: mean IoU and its 95 % interval, baseline " in says(found(n_images=29))
    assert "--init_data with --folds" in says(found(n_images=29))
    assert "only" not in says(found(n_images=30))


def test_fewer_than_six_images_claim_nothing_whatever_their_interval(says):
    comparison = found(0.2, 0.9, n_images=5)
    assert comparison.mean.low > 0
    text = says(comparison)
    assert "no more than chance" in text
    assert "gained more than chance: none" in text
    assert "too few to tell: sky, road, sign" in text


def test_class_that_never_occurs_is_neither_gained_nor_lost(says):
    rng = np.random.default_rng(0)
    with_none = [np.concatenate([counts(rng), np.zeros((60, 3, 1), int)], axis=2) for _ in range(2)]
    comparison = compare(*with_none, (*CLASSES, "boat"))
    assert np.isnan(comparison.classes["boat"].value)
    assert "boat" not in says(comparison)


def test_change_is_written_in_points_with_its_interval():
    assert str(Change(0.0162, -0.003, 0.029, 60)) == "+1.62 (-0.30 to +2.90)"
