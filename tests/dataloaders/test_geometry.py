import cv2
import numpy as np
import pytest
from PIL import Image

from dataloaders.geometry import LABELLED_SCALES, MEAN_COLOUR, UNLABELLED_SCALES, Geometry, resize_image
from dataloaders.photometry import MEAN
from dataloaders.reading import IGNORE
from utils.config_sections import StreamConfig

LEVELS = 3  # an image's red is LEVELS times the column, its green LEVELS times the row
BLUE = 77  # marks the image's own pixels: no mean colour has it


def positions(height, width):
    """An image whose colours and two masks whose values say where a pixel was."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([LEVELS * columns, LEVELS * rows, np.full_like(rows, BLUE)], axis=2).astype(np.uint8)
    return image, [rows.astype(np.int16), columns.astype(np.int16)]


def geometry(crop_size=32, base_size=60, scales=None, flip=False, rotate=False, blur=False):
    return Geometry(crop_size, base_size, scales, flip, rotate, blur)


def distances(image, rows, columns):
    """By how many source pixels masks and image differ, down and to the right, where both have something."""
    inside = rows != IGNORE
    down = rows[inside] - image[..., 1][inside] / LEVELS
    right = columns[inside] - image[..., 0][inside] / LEVELS
    return down, right


@pytest.mark.parametrize("settings", [
    {"scales": LABELLED_SCALES}, {"flip": True}, {"scales": UNLABELLED_SCALES, "flip": True}, {"rotate": True},
    {"crop_size": 100}, {"crop_size": 100, "scales": LABELLED_SCALES, "flip": True, "rotate": True},
])  # fmt: skip
@pytest.mark.parametrize("size", [(50, 80), (80, 50)])
def test_masks_move_together_with_the_image(settings, size):
    for seed in range(20):
        image, (rows, columns) = geometry(**settings)(*positions(*size), np.random.default_rng(seed))
        # Away from the border of the scene, where interpolation mixes in the padding.
        inside = (rows > 3) & (rows < size[0] - 4) & (columns > 3) & (columns < size[1] - 4)
        down, right = distances(image, np.where(inside, rows, IGNORE), columns)
        assert inside.sum() > 50
        assert np.abs(down).max() < 1.5
        assert np.abs(right).max() < 1.5


@pytest.mark.parametrize("base_size", [70, 90, 101, 133])
def test_scaling_does_not_shift_masks_against_the_image(base_size):
    only = geometry(base_size=base_size, crop_size=16, scales=(1.0, 1.0))
    shifts = []
    for seed in range(60):
        image, (rows, columns) = only(*positions(80, 80), np.random.default_rng(seed))
        inside = (rows > 3) & (rows < 76) & (columns > 3) & (columns < 76)
        shifts.append([d.mean() for d in distances(image, np.where(inside, rows, IGNORE), columns)])
    shift = np.mean(shifts, axis=0)
    assert np.abs(shift).max() < 0.2, f"masks lie {shift} pixels (down, right) of the image"


def test_masks_get_no_values_between_those_of_their_classes():
    everything = geometry(scales=LABELLED_SCALES, flip=True, rotate=True, crop_size=64)
    mask = np.random.default_rng(0).choice([0, 200], (50, 80)).astype(np.int16)
    for seed in range(10):
        _, (result,) = everything(positions(50, 80)[0], [mask], np.random.default_rng(seed))
        assert set(np.unique(result)) <= {0, 200, IGNORE}


@pytest.mark.parametrize("size", [(50, 80), (10, 12), (1, 90), (90, 1), (1, 1), (32, 32), (33, 31)])
@pytest.mark.parametrize("everything", [True, False])
def test_result_always_has_the_crops_size(size, everything):
    on = {"scales": LABELLED_SCALES, "flip": True, "rotate": True, "blur": True} if everything else {}
    for seed in range(30):
        image, masks = geometry(**on)(*positions(*size), np.random.default_rng(seed))
        assert image.shape == (32, 32, 3)
        assert image.dtype == np.uint8
        assert [mask.shape for mask in masks] == [(32, 32)] * 2
        assert all(mask.dtype == np.int16 for mask in masks)


def test_small_image_is_padded_at_the_bottom_and_the_right_with_mean_colour_and_ignored_pixels():
    image, (rows, columns) = geometry()(*positions(20, 10), np.random.default_rng(0))
    assert np.array_equal(rows[:20, :10], np.mgrid[:20, :10][0])
    assert np.array_equal(image[:20, :10], positions(20, 10)[0])
    outside = np.ones((32, 32), bool)
    outside[:20, :10] = False
    assert (rows[outside] == IGNORE).all()
    assert (columns[outside] == IGNORE).all()
    assert (image[outside] == MEAN_COLOUR).all()


def test_mean_colour_is_the_normalisations():
    assert tuple(round(255 * value) for value in MEAN) == MEAN_COLOUR


@pytest.mark.parametrize("size", [(50, 80), (80, 50)])
@pytest.mark.parametrize("scales", [LABELLED_SCALES, UNLABELLED_SCALES])
def test_long_side_takes_every_whole_number_of_its_range_and_keeps_the_aspect(size, scales):
    base = 20
    scaled = geometry(base_size=base, crop_size=60, scales=scales)
    found = set()
    for seed in range(800):
        _, (rows, _) = scaled(*positions(*size), np.random.default_rng(seed))
        inside = rows != IGNORE
        height, width = int(inside.any(1).sum()), int(inside.any(0).sum())
        long_side = max(height, width)
        assert (height > width) == (size[0] > size[1])
        assert min(height, width) == pytest.approx(long_side * 50 / 80, abs=0.51)
        found.add(long_side)
    assert found == set(range(int(scales[0] * base), int(scales[1] * base) + 1))


def test_scales_are_those_of_the_method():
    assert LABELLED_SCALES == (0.5, 2.0)
    assert UNLABELLED_SCALES == (0.8, 2.0)


def test_every_window_of_the_image_can_be_the_crop():
    corners = set()
    for seed in range(300):
        _, (rows, columns) = geometry(crop_size=8)(*positions(10, 11), np.random.default_rng(seed))
        corners.add((int(rows[0, 0]), int(columns[0, 0])))
        assert np.array_equal(rows[:, 0] - rows[0, 0], np.arange(8))
    assert corners == {(top, left) for top in range(3) for left in range(4)}


def test_half_of_the_images_are_flipped_from_left_to_right():
    source, masks = positions(32, 32)
    flipped = 0
    for seed in range(400):
        image, (rows, columns) = geometry(flip=True)(source, masks, np.random.default_rng(seed))
        if columns[0, 0] != 0:
            flipped += 1
            assert np.array_equal(image, source[:, ::-1])
            assert np.array_equal(columns, masks[1][:, ::-1])
            assert np.array_equal(rows, masks[0])
        else:
            assert np.array_equal(image, source)
    assert 160 < flipped < 240


def test_rotation_turns_by_whole_degrees_up_to_ten_around_the_middle():
    rows, columns = np.mgrid[:150, :150].astype(np.int16)
    image, angles = np.zeros((150, 150, 3), np.uint8), []
    for seed in range(150):
        _, (down, right) = geometry(crop_size=150, rotate=True)(image, [rows, columns], np.random.default_rng(seed))
        assert abs(down[75, 75] - 75) <= 1
        assert abs(right[75, 75] - 75) <= 1
        angles.append(np.degrees(np.arctan2(down[75, 145] - down[75, 5], right[75, 145] - right[75, 5])))
    assert np.abs(np.array(angles) - np.round(angles)).max() < 0.45
    assert set(np.round(angles)) == set(range(-10, 11))


def test_rotation_brings_in_ignored_pixels_and_mean_colour():
    for seed in range(10):
        image, (rows, columns) = geometry(crop_size=80, rotate=True)(*positions(80, 80), np.random.default_rng(seed))
        corner = slice(0, 2), slice(0, 1)
        if (rows[corner] == IGNORE).all():
            assert (columns[corner] == IGNORE).all()
            assert np.abs(image[corner].astype(int) - MEAN_COLOUR).max() < 60
            return
    pytest.fail("no rotation moved the corner away")


def test_blur_smooths_the_image_and_leaves_masks_alone():
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    masks = positions(32, 32)[1]
    roughness = []
    for seed in range(40):
        image, blurred_masks = geometry(blur=True)(noise, masks, np.random.default_rng(seed))
        assert all(np.array_equal(one, other) for one, other in zip(masks, blurred_masks, strict=True))
        roughness.append(image.std() / noise.std())
    assert min(roughness) < 0.4  # sigma up to 1.5
    assert max(roughness) > 0.9  # and down to none


def test_rotation_and_blur_are_off_unless_the_configuration_says_so():
    plain = Geometry.from_config(StreamConfig(), LABELLED_SCALES)
    assert plain == Geometry(320, 400, LABELLED_SCALES, flip=True, rotate=False, blur=False)
    both = Geometry.from_config(StreamConfig(rotate=True, blur=True, flip=False, scale=False), LABELLED_SCALES)
    assert both == Geometry(320, 400, None, flip=False, rotate=True, blur=True)


def test_augment_false_leaves_only_the_crop():
    stream = StreamConfig(augment=False, rotate=True, blur=True, crop_size=16)
    image, masks = positions(16, 16)
    result, result_masks = Geometry.from_config(stream, LABELLED_SCALES)(image, masks, np.random.default_rng(0))
    assert np.array_equal(result, image)
    assert np.array_equal(result_masks, masks)


def test_same_draw_gives_the_same_crop_and_another_draw_another():
    scaled = geometry(scales=LABELLED_SCALES, flip=True)
    image, masks = positions(50, 80)
    first, again, other = (scaled(image, masks, np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_unlabelled_images_go_without_masks_through_the_same_geometry():
    scaled = geometry(scales=LABELLED_SCALES, flip=True)
    image, masks = positions(50, 80)
    alone, none = scaled(image, [], np.random.default_rng(1))
    assert none == []
    assert np.array_equal(alone, scaled(image, masks, np.random.default_rng(1))[0])


def check_against_pillow(pairs):
    """Pairs of an image and what Pillow makes of it: at most 2 levels apart, and 99 % of all values equal."""
    differences = [np.abs(ours.astype(int) - pillows) for ours, pillows in pairs]
    assert max(difference.max() for difference in differences) <= 2
    assert np.concatenate([difference.ravel() == 0 for difference in differences]).mean() >= 0.99


def by_pillow(image, size):
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


@pytest.mark.parametrize("kind", ["noise", "black and white", "smooth"])
def test_images_are_scaled_as_pillow_does_it(kind):
    rng, pairs = np.random.default_rng(0), []
    sides = [(1, 1), (1, 90), (90, 1), (2, 3), (95, 131), (64, 96), (180, 133)]
    for height, width in sides:
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        if kind == "black and white":
            image = np.where(image < 128, 0, 255).astype(np.uint8)
        if kind == "smooth":
            image = cv2.GaussianBlur(image, (0, 0), 2)
        for scale in (*np.linspace(0.3, 2.2, 30), (height + 1) / height, (width - 1) / width):
            size = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
            pairs.append((resize_image(image, size), by_pillow(image, size)))
    check_against_pillow(pairs)


@pytest.mark.parametrize("size", [(2, 90), (200, 90), (90, 91), (89, 90), (41, 203)])
def test_a_side_keeps_its_pixels_only_where_its_length_stays(size):
    image = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
    check_against_pillow([(resize_image(image, size), by_pillow(image, size))])
    assert np.array_equal(resize_image(image, (90, 90)), image)


@pytest.mark.parametrize("crop_size", [20, 90, 200])
@pytest.mark.parametrize("scales", [LABELLED_SCALES, UNLABELLED_SCALES, (0.98, 1.02)])
def test_crop_of_a_scaled_image_is_the_same_as_scaling_all_of_it_and_cropping_then(crop_size, scales):
    rng, pairs = np.random.default_rng(crop_size), []
    for seed in range(60):
        height, width = (int(side) for side in rng.integers(1, 260, 2))
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        mask = rng.integers(0, 20, (height, width)).astype(np.int16)
        base_size = max(height, width)
        fast = geometry(base_size=base_size, crop_size=crop_size, scales=scales, flip=True)
        result, (result_mask,) = fast(image, [mask], np.random.default_rng(seed))

        draws = np.random.default_rng(seed)
        long_side = int(draws.integers(int(base_size * scales[0]), int(base_size * scales[1]) + 1))
        size = [max(1, int(long_side * side / base_size + 0.5)) for side in (height, width)]
        image = by_pillow(image, size)
        mask = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        padding = 0, max(0, crop_size - size[0]), 0, max(0, crop_size - size[1])
        image = cv2.copyMakeBorder(image, *padding, cv2.BORDER_CONSTANT, value=MEAN_COLOUR)
        mask = cv2.copyMakeBorder(mask, *padding, cv2.BORDER_CONSTANT, value=IGNORE)
        top, left = (int(draws.integers(0, side - crop_size + 1)) for side in mask.shape)
        columns = slice(None, None, -1 if draws.random() < 0.5 else 1)
        window = slice(top, top + crop_size), slice(left, left + crop_size)
        assert np.array_equal(result_mask, mask[window][:, columns])
        pairs.append((result, image[window][:, columns]))
    check_against_pillow(pairs)


@pytest.mark.parametrize(("long_side", "expected"), [(100, (100, 51)), (99, (99, 50)), (101, (101, 51))])
def test_short_side_is_rounded_half_up(long_side, expected):
    only = geometry(base_size=long_side, crop_size=128, scales=(1.0, 1.0))
    _, (rows, _) = only(*positions(200, 101), np.random.default_rng(0))  # 50.5, 49.995, 51.005
    inside = rows != IGNORE
    assert (int(inside.any(1).sum()), int(inside.any(0).sum())) == expected
