import numpy as np
from PIL import Image

from dataloaders.own.preview import save_preview
from utils.palette import palette_of


def test_each_scene_is_the_image_and_below_it_the_same_under_half_of_its_classes_colours(tmp_path):
    image = np.full((48, 48, 3), 100, np.uint8)
    mask = np.zeros((48, 48), np.uint8)
    mask[:, 24:] = 1
    palette = palette_of(((200, 0, 0), (0, 200, 0)))
    save_preview(tmp_path / "a.png", [(image, mask), (image, mask * 255)], ("ground", "tree"), palette)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width == 2 * 480
        at = picture.getpixel
        assert at((100, 100)) == at((400, 100)) == at((600, 100)) == (100, 100, 100)
        assert (at((100, 600)), at((400, 600))) == ((150, 50, 50), (50, 150, 50))
        assert at((900, 600)) == (177, 177, 177)  # no class is white
        legend = np.asarray(picture)[960:]
        assert {tuple(pixel) for pixel in legend[:, 8].tolist()} >= {(200, 0, 0), (0, 200, 0), (255, 255, 255)}
