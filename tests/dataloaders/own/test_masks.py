import numpy as np
import pytest
from PIL import Image

from dataloaders.own.masks import are_read_by_colour, look_at_mask, pixels_of, write_index_mask
from tests.dataloaders.own.folders import scene, write_mask
from utils.errors import UsageError
from utils.palette import voc_palette

COLOURS = [(0, 0, 0), (255, 0, 0), (0, 0, 255)]
NUMBERS = [0x000000, 0xFF0000, 0x0000FF]


def written(path, values, by_colour):
    write_index_mask(path, path.with_name("out.png"), values, by_colour, voc_palette())
    return np.asarray(Image.open(path.with_name("out.png")))


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
    assert pixels_of(mask, True) == dict.fromkeys(NUMBERS, 512)
    assert (written(tmp_path / "a.png", NUMBERS, True) == scene(0)).all()


def test_palettes_that_contradict_each_other_are_read_by_colour(tmp_path):
    write_mask(tmp_path / "a.png", scene(0), COLOURS)
    write_mask(tmp_path / "b.png", scene(0), COLOURS[::-1])
    masks = [look_at_mask(tmp_path / name) for name in ("a.png", "b.png")]
    assert not are_read_by_colour(masks[:1])
    assert are_read_by_colour(masks)
    assert (written(tmp_path / "b.png", NUMBERS, True) == 2 - scene(0)).all()


def test_two_values_of_one_colour_count_together(tmp_path):
    write_mask(tmp_path / "a.png", scene(0), [(0, 0, 0), (9, 9, 9), (9, 9, 9)])
    assert pixels_of(look_at_mask(tmp_path / "a.png"), True) == {0: 512, 0x090909: 1024}


def test_gray_mask_saved_as_rgb_is_read_by_value(tmp_path):
    write_mask(tmp_path / "a.png", scene(0, 2), [(0, 0, 0), (255, 255, 255)], rgb=True)
    mask = look_at_mask(tmp_path / "a.png")
    assert not are_read_by_colour([mask])
    assert pixels_of(mask, False) == {0: 768, 255: 768}
    assert (written(tmp_path / "a.png", [0, 255], False) == scene(0, 2)).all()


@pytest.mark.parametrize("mode", ["1", "I;16"])
def test_one_bit_and_16_bit_masks_are_read_by_value(tmp_path, mode):
    values = scene(0, 2).astype(bool) if mode == "1" else scene(0, 2).astype(np.uint16) * 3000
    Image.fromarray(values).save(tmp_path / "a.png")
    mask = look_at_mask(tmp_path / "a.png")
    high = 1 if mode == "1" else 3000
    assert (mask.mode, mask.pixels) == (mode, {0: 768, high: 768})
    assert (written(tmp_path / "a.png", [0, high], False) == scene(0, 2)).all()


def test_values_that_are_no_class_become_255(tmp_path):
    write_mask(tmp_path / "a.png", scene(0))
    assert (written(tmp_path / "a.png", [2, 0], False) == np.array([1, 255, 0])[scene(0)]).all()


def test_photo_jpeg_and_damaged_file_are_named(tmp_path):
    photo = np.arange(32 * 48, dtype=np.uint16).reshape(32, 48)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    Image.fromarray(scene(0)).save(tmp_path / "mask.jpg")
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    Image.fromarray(scene(0)).convert("CMYK").save(tmp_path / "cmyk.tif")
    for name, message in (
        ("photo.png", "1,536 different values.*photo"),
        ("mask.jpg", "is a JPEG"),
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
