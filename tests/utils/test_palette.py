import numpy as np
import pytest
from PIL import Image

from utils.palette import CITYSCAPES_COLOURS, palette_of, save_mask, voc_palette


@pytest.mark.parametrize(
    ("index", "colour"),
    [(0, (0, 0, 0)), (1, (128, 0, 0)), (2, (0, 128, 0)), (4, (0, 0, 128)), (8, (64, 0, 0)), (15, (192, 128, 128)),
     (20, (0, 64, 128)), (255, (224, 224, 192))],
)  # fmt: skip
def test_voc_palette_has_the_colours_of_pascal_voc(index, colour):
    assert tuple(voc_palette()[index].tolist()) == colour


def test_own_colours_come_first_and_pixels_without_a_class_are_white():
    palette = palette_of(CITYSCAPES_COLOURS)
    assert palette.shape == (256, 3)
    assert tuple(palette[0].tolist()) == (128, 64, 128)
    assert tuple(palette[18].tolist()) == (119, 11, 32)
    assert tuple(palette[19].tolist()) == tuple(voc_palette()[19].tolist())
    assert tuple(palette[255].tolist()) == (255, 255, 255)


def test_every_cityscapes_class_has_a_colour_of_its_own():
    assert len(set(CITYSCAPES_COLOURS)) == 19


def test_saved_mask_keeps_its_indices_and_shows_its_colours(tmp_path):
    mask = np.arange(256, dtype=np.int64).reshape(8, 32)
    save_mask(tmp_path / "mask.png", mask, voc_palette())
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), mask)
        assert np.array_equal(np.asarray(image.convert("RGB")), voc_palette()[mask])
