import numpy as np
import pytest
from PIL import Image

from dataloaders.own.masks import (
    are_read_by_colour,
    look_at_mask,
    refuse_unclear,
    statistics_of,
    write_index_mask,
)
from dataloaders.own.runs import TRANSPARENT
from tests.dataloaders.own.folders import scene, write_mask
from utils.errors import UsageError
from utils.palette import voc_palette

COLOURS = [(0, 0, 0), (255, 0, 0), (0, 0, 255)]
NUMBERS = [0x000000, 0xFF0000, 0x0000FF]


def written(path, values, by_colour):
    def index_of(found):
        return np.array([values.index(value) if value in values else 255 for value in found.tolist()])

    target, results = path.with_name("out.png"), []
    for keep in (path.with_name("kept.npz"), None):
        write_index_mask(look_at_mask(path, keep), target, index_of, by_colour, voc_palette())
        results.append(np.asarray(Image.open(target)))
    assert (results[0] == results[1]).all(), "what was kept of the first decoding differs from a second one"
    return results[0]


def test_palette_mask_is_read_by_value_and_tells_its_colours(tmp_path):
    write_mask(tmp_path / "a.png", scene(0), COLOURS)
    mask = look_at_mask(tmp_path / "a.png")
    assert (mask.mode, mask.size, mask.pixels) == ("P", (32, 48), {0: 512, 1: 512, 2: 512})
    assert mask.colours == dict(enumerate(NUMBERS))
    assert not are_read_by_colour([mask])
    assert (written(tmp_path / "a.png", [0, 1, 2], False) == scene(0)).all()


def test_rgb_mask_is_read_by_colour(tmp_path):
    write_mask(tmp_path / "a.png", scene(0), COLOURS, rgb=True)
    mask = look_at_mask(tmp_path / "a.png")
    assert are_read_by_colour([mask])
    assert statistics_of(mask, True).pixels == dict.fromkeys(NUMBERS, 512)
    assert (written(tmp_path / "a.png", NUMBERS, True) == scene(0)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_mask_beside_palettes_that_contradict_each_other_is_refused_unless_it_is_empty(tmp_path, dtype):
    write_mask(tmp_path / "a.png", scene(0), COLOURS)
    write_mask(tmp_path / "b.png", scene(0), COLOURS[::-1])
    Image.fromarray(scene(0).astype(dtype)).save(tmp_path / "c.png")
    Image.fromarray(np.zeros((4, 4), dtype)).save(tmp_path / "empty.png")
    a, b, gray, empty = (look_at_mask(tmp_path / f"{name}.png") for name in ("a", "b", "c", "empty"))
    with pytest.raises(UsageError, match="b.png: its palette .*c.png has none"):
        are_read_by_colour([a, b, gray])
    assert are_read_by_colour([a, b, empty])
    assert statistics_of(empty, True).pixels == {0: 16}


def test_palettes_that_contradict_each_other_are_read_by_colour(tmp_path):
    write_mask(tmp_path / "a.png", scene(0), COLOURS)
    write_mask(tmp_path / "b.png", scene(0), COLOURS[::-1])
    masks = [look_at_mask(tmp_path / name) for name in ("a.png", "b.png")]
    assert not are_read_by_colour(masks[:1])
    assert are_read_by_colour(masks)
    assert (written(tmp_path / "b.png", NUMBERS, True) == 2 - scene(0)).all()


def test_two_values_of_one_colour_count_together(tmp_path):
    write_mask(tmp_path / "a.png", scene(0), [(0, 0, 0), (9, 9, 9), (9, 9, 9)])
    assert statistics_of(look_at_mask(tmp_path / "a.png"), True).pixels == {0: 512, 0x090909: 1024}


def test_gray_mask_saved_as_rgb_is_read_by_value(tmp_path):
    write_mask(tmp_path / "a.png", scene(0, 2), [(0, 0, 0), (255, 255, 255)], rgb=True)
    mask = look_at_mask(tmp_path / "a.png")
    assert not are_read_by_colour([mask])
    assert statistics_of(mask, False).pixels == {0: 768, 255: 768}
    assert (written(tmp_path / "a.png", [0, 255], False) == scene(0, 2)).all()


@pytest.mark.parametrize("mode", ["1", "I;16"])
def test_one_bit_and_16_bit_masks_are_read_by_value(tmp_path, mode):
    values = scene(0, 2).astype(bool) if mode == "1" else scene(0, 2).astype(np.uint16) * 3000
    Image.fromarray(values).save(tmp_path / "a.png")
    mask = look_at_mask(tmp_path / "a.png")
    high = 1 if mode == "1" else 3000
    assert (mask.mode, mask.pixels) == (mode, {0: 768, high: 768})
    assert (written(tmp_path / "a.png", [0, high], False) == scene(0, 2)).all()


def test_runs_are_kept_where_they_are_few(tmp_path):
    write_mask(tmp_path / "areas.png", scene(0))
    noise = np.random.default_rng(0).integers(0, 3, (32, 48), np.uint8)
    write_mask(tmp_path / "noise.png", noise)
    assert look_at_mask(tmp_path / "areas.png", tmp_path / "areas.npz").runs == tmp_path / "areas.npz"
    assert look_at_mask(tmp_path / "noise.png", tmp_path / "noise.npz").runs is None
    assert not (tmp_path / "noise.npz").exists()
    assert (written(tmp_path / "noise.png", [0, 1, 2], False) == noise).all()


def test_values_that_are_no_class_become_255(tmp_path):
    write_mask(tmp_path / "a.png", scene(0))
    assert (written(tmp_path / "a.png", [2, 0], False) == np.array([1, 255, 0])[scene(0)]).all()


def test_damaged_file_and_picture_of_inks_are_named(tmp_path):
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    Image.fromarray(scene(0)).convert("CMYK").save(tmp_path / "cmyk.tif")
    for name, message in (
        ("damaged.png", "cannot be read as a mask"),
        ("cmyk.tif", "mode CMYK, not a mask"),
    ):
        with pytest.raises(UsageError, match=f"{name}: .*{message}"):
            look_at_mask(tmp_path / name)


def test_colour_pictures_among_plain_ones_are_named(tmp_path):
    write_mask(tmp_path / "a.png", scene(0), COLOURS, rgb=True)
    write_mask(tmp_path / "b.png", scene(0))
    with pytest.raises(UsageError, match=r"a\.png is a colour picture and .*b\.png is not"):
        are_read_by_colour([look_at_mask(tmp_path / name) for name in ("a.png", "b.png")])


def saved(path, values, **how):
    Image.fromarray(np.asarray(values)).save(path, **how)
    return look_at_mask(path)


def test_empty_gray_mask_beside_colour_pictures_is_black(tmp_path):
    write_mask(tmp_path / "a.png", scene(0), COLOURS, rgb=True)
    masks = [look_at_mask(tmp_path / "a.png"), saved(tmp_path / "b.png", np.zeros((32, 48), np.uint8))]
    assert are_read_by_colour(masks)
    assert statistics_of(masks[1], True).pixels == {0: 32 * 48}


def test_white_under_two_palette_indices_is_one_colour(tmp_path):
    for name, white in (("a.png", 251), ("b.png", 255)):
        colours = [(0, 0, 0)] * 256
        colours[white] = (255, 255, 255)
        write_mask(tmp_path / name, scene(0, 2) * np.uint8(white), colours)
    masks = [look_at_mask(tmp_path / name) for name in ("a.png", "b.png")]
    assert are_read_by_colour(masks)
    assert {value for mask in masks for value in statistics_of(mask, True).pixels} == {0, 0xFFFFFF}


def test_colours_hidden_under_alpha_0_are_one_value(tmp_path):
    values = np.zeros((8, 8, 4), np.uint8)
    values[:4, :4] = (255, 0, 0, 255)
    values[4:, :, 1] = 77
    assert saved(tmp_path / "a.png", values).pixels == {TRANSPARENT: 48, 0xFF0000: 16}


def test_lines_between_classes_are_counted_and_areas_are_not(tmp_path):
    values = np.zeros((60, 60), np.uint8)
    values[20:40, 20:40] = 1
    values[18:20, 18:42] = values[40:42, 18:42] = values[18:42, 18:20] = values[18:42, 40:42] = 255
    mask = saved(tmp_path / "a.png", values)
    assert mask.lines == mask.pixels[255]
    values[values == 255] = 0
    values[45:60, 45:60] = 255
    assert saved(tmp_path / "b.png", values).lines == 0


@pytest.mark.parametrize(("name", "what"), [("a.jpg", "photos"), ("a.png", "half-transparent")])
def test_masks_that_only_snapping_can_take_are_refused_with_that_way(tmp_path, name, what):
    values = np.zeros((8, 8, 3 if name == "a.jpg" else 4), np.uint8)
    values[..., -1] = np.arange(0, 256, 4).reshape(8, 8)
    with pytest.raises(UsageError, match=f"{what}.*--snap"):
        refuse_unclear([saved(tmp_path / name, values)])
