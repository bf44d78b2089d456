import numpy as np
import pytest

from trainer.subclasses.counts import PAPER_COUNTS, automatic_counts, fillable_counts, subclass_counts
from utils.config import Config
from utils.errors import UsageError


def config(**more):
    settings = {"name": "Baseline", "experim_name": "x", "dataset": "voc", "data_dir": "d", "n_labeled_examples": 331}
    return Config.model_validate({**settings, "num_images_all": 400, "trainer": {"epochs": 1}, **more})


def test_automatic_counts_are_pixels_over_the_median_rounded_up():
    assert automatic_counts(np.array([1000, 100, 101, 30, 0])) == [10, 1, 2, 1, 1]  # the median is 100.5


def test_automatic_counts_take_a_factor_and_a_quantile():
    samples = np.array([1000, 100, 10])
    assert automatic_counts(samples, factor=2) == [20, 2, 1]
    assert automatic_counts(samples, quantile=0.0) == [100, 10, 1]


def test_paper_counts_have_the_published_totals():
    totals = {key: (len(counts), sum(counts)) for key, counts in PAPER_COUNTS.items()}
    assert totals["voc", 331] == (21, 177)
    assert all(classes == (21 if name == "voc" else 19) for (name, _), (classes, _) in totals.items())


def test_rule_names_what_it_takes():
    samples = np.full(21, 50)
    assert subclass_counts(config(subclass_counts="paper"), samples)[0] == 121
    assert subclass_counts(config(subclass_counts=[3] * 21), samples) == [3] * 21
    assert subclass_counts(config(subclass_counts=2.0), samples) == [2] * 21
    assert subclass_counts(config(subclass_counts="auto"), samples) == [1] * 21


def test_without_a_rule_a_published_split_has_the_papers_counts_and_any_other_automatic_ones():
    assert subclass_counts(config(), np.full(21, 50)) == list(PAPER_COUNTS["voc", 331])
    assert subclass_counts(config(n_labeled_examples=300), np.full(21, 50)) == [1] * 21
    assert subclass_counts(config(dataset="custom"), np.full(21, 50)) == [1] * 21


def test_no_class_gets_more_subclasses_than_samples_nor_none():
    assert fillable_counts([3, 5, 2, 1], np.array([3, 4, 0, 9])) == [3, 4, 1, 1]


def test_more_subclasses_than_int16_targets_tell_apart_are_refused():
    assert sum(fillable_counts([32_766, 1], np.full(2, 10**6))) == 32_767
    with pytest.raises(UsageError, match="32768 subclasses; at most 32767"):
        fillable_counts([32_767, 1], np.full(2, 10**6))


def test_counts_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="2 counts, but there are 21 classes"):
        subclass_counts(config(subclass_counts=[1, 2]), np.full(21, 50))
    with pytest.raises(UsageError, match='set it to "auto"'):
        subclass_counts(config(subclass_counts="paper", n_labeled_examples=7), np.full(21, 50))


@pytest.mark.parametrize("rule", [[10_000] * 4, 1e6])
def test_more_subclasses_than_a_map_can_hold_are_refused(rule):
    with pytest.raises(UsageError, match="subclasses; at most 32,767"):
        subclass_counts(config(dataset="custom", subclass_counts=rule), np.full(4, 50_000))
