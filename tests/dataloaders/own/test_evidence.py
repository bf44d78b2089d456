import numpy as np
import pytest

from dataloaders.own.evidence import MaskStatistics, judge, main_values


def masks_of(*pixels: dict[int, int], lines: float = 0.0) -> list[MaskStatistics]:
    """Masks with these pixels; of those of 255, the share ``lines`` lies on lines between others."""
    return [MaskStatistics(one, one, round(lines * one.get(255, 0))) for one in pixels]


BORDERS = {"voc": [0, 5, 15], "cityscapes": range(19), "binary": [0, 1]}


@pytest.mark.parametrize("ids", BORDERS.values(), ids=BORDERS)
def test_lines_between_classes_are_no_class(ids):
    verdict = judge(255, masks_of({**dict.fromkeys(ids, 1000), 255: 60}, lines=0.9))
    assert verdict.what == "ignore"
    assert "90% of its pixels are lines" in verdict.reason


def test_areas_beside_many_ids_without_a_gap_are_no_class():
    verdict = judge(255, masks_of({**dict.fromkeys(range(19), 100), 255: 300}))
    assert (verdict.what, verdict.reason) == ("ignore", "the other values are the ids 0 to 18 without a gap")


@pytest.mark.parametrize("steps", range(2, 17))
@pytest.mark.parametrize("rounded", [round, int])
def test_evenly_spaced_levels_are_classes_however_they_are_rounded(steps, rounded):
    levels = [rounded(255 * step / steps) for step in range(steps + 1)]
    verdict = judge(255, masks_of(dict.fromkeys(levels, 100)))
    assert verdict.what == "class"


@pytest.mark.parametrize("levels", [[0, 50, 100, 255], [0, 100, 255], [0, 64, 128, 192, 255], [0, 76, 149, 255]])
def test_levels_far_apart_are_classes(levels):
    assert judge(255, masks_of(dict.fromkeys(levels, 100))).what == "class"


def test_1_and_255_that_never_share_a_mask_are_one_class():
    verdict = judge(255, masks_of({0: 90, 1: 10}, {0: 90, 255: 10}, {0: 100}))
    assert (verdict.what, verdict.twin) == ("class", 1)


def test_value_beside_one_other_is_a_class():
    assert judge(255, masks_of({0: 99, 255: 1})).what == "class"


def test_id_among_ids_of_16_bit_is_a_class():
    assert judge(255, masks_of(dict.fromkeys(range(300), 10))).what == "class"


@pytest.mark.parametrize(
    "masks",
    [
        masks_of({0: 50, 1: 20, 255: 30}),  # ids, but large
        masks_of({0: 45, 127: 45, 255: 10}, lines=0.9),  # levels, but lines
        masks_of({0: 50, 1: 50}, {0: 50, 2: 50}, {0: 90, 255: 10}),  # ids, but never beside one
        masks_of({0: 50, 20: 49, 255: 1}),  # nothing
    ],
)
def test_mixed_evidence_asks(masks):
    assert judge(255, masks).what == "ask"


def test_verdict_does_not_depend_on_the_order_or_the_number_of_pixels():
    rng = np.random.default_rng(0)
    for _ in range(200):
        values = sorted({0, 255, *rng.integers(0, 255, rng.integers(1, 6)).tolist()})
        pixels = [{value: int(rng.integers(1, 50)) for value in values if rng.random() < 0.7} for _ in range(5)]
        masks = masks_of(*pixels, {0: 1, 255: 1}, lines=float(rng.choice([0.0, 1.0])))
        larger = [
            MaskStatistics({value: 3 * n for value, n in mask.pixels.items()}, mask.solid, 3 * mask.lines)
            for mask in masks
        ]
        verdict = judge(255, masks)
        assert verdict.reason
        assert judge(255, masks[::-1]).what == verdict.what
        assert judge(255, larger).what == verdict.what


def noisy(pixels: dict[int, int], solid: set[int]) -> list[MaskStatistics]:
    return [MaskStatistics(pixels, {value: n if value in solid else 0 for value, n in pixels.items()})]


def test_many_small_values_without_areas_are_noise():
    pixels = {0: 9000, 255: 900} | dict.fromkeys([1, 2, 3, 252, 253, 254], 9)
    assert main_values(noisy(pixels, {0, 255}), False) == [0, 255]


def test_one_value_that_hugs_another_is_noise():
    assert main_values(noisy({0: 9000, 254: 4, 255: 900}, {0, 255}), False) == [0, 255]


@pytest.mark.parametrize("pixels", [{0: 9000, 1: 4}, {0: 9000, 1: 900, 2: 4}, {0: 9000, 15: 900, 7: 4}])
def test_rare_small_class_is_no_noise(pixels):
    assert main_values(noisy(pixels, {0}), False) is None


def test_many_small_classes_that_form_areas_are_no_noise():
    assert main_values(noisy({0: 90000} | dict.fromkeys(range(1, 30), 20), set(range(30))), False) is None


def test_two_values_that_clipping_made_of_one_are_one():
    pixels = {0: 9000, 254: 300, 255: 900} | dict.fromkeys([1, 2, 251, 252], 9)
    assert main_values(noisy(pixels, {0, 254, 255}), False) == [0, 255]
