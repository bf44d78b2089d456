import numpy as np
import pytest
from PIL import Image

from dataloaders.own.united import unite_masks
from utils.errors import UsageError

LEFT = np.array([[1, 0, 0, 0]], np.uint8)
RIGHT = np.array([[0, 0, 0, 1]], np.uint8)


def united(tmp_path, *masks):
    """The union of pictures, as a picture."""
    paths = []
    for number, mask in enumerate(masks):
        paths.append(tmp_path / f"a_mask_{number}.png")
        (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(paths[-1])
    (tmp_path / "out").mkdir()
    return Image.open(unite_masks({"a": paths}, tmp_path / "out")["a"])


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "LA", "I;16"])
def test_binary_masks_are_united_in_their_own_mode(tmp_path, mode):
    def picture(values):
        if mode == "I;16":
            return values.astype(np.uint16) * 3000
        image = Image.fromarray(values * 255)
        if mode == "P":
            image.putpalette([0, 0, 0] * 255 + [9, 8, 7])
        return image if mode == "P" else image.convert(mode)

    found = united(tmp_path, picture(LEFT), picture(RIGHT), picture(LEFT * 0))
    assert found.mode == {"RGBA": "RGB", "LA": "L"}.get(mode, mode)
    marked = np.asarray(found).reshape(4, -1)[:, 0] > 0
    assert marked.tolist() == [True, False, False, True]
    if mode == "P":
        assert found.convert("RGB").getpixel((3, 0)) == (9, 8, 7)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (RIGHT * 2, "mark different values"),
        (np.array([[0, 1, 2, 0]], np.uint8), "holds 2 values beside 0. Only binary masks are united"),
        (np.zeros((2, 2), np.uint8), "differ in size or mode"),
        (np.zeros((1, 4, 4), np.uint8), "not opaque"),
    ],
)
def test_masks_that_are_not_binary_or_contradict_each_other_are_refused(tmp_path, other, message):
    with pytest.raises(UsageError, match=rf"a_mask_1\.png: .*{message}"):
        united(tmp_path, LEFT, other)


def test_masks_of_one_value_in_two_colours_are_refused(tmp_path):
    masks = [Image.fromarray(values) for values in (LEFT, RIGHT)]
    for mask, colour in zip(masks, ([255, 0, 0], [0, 255, 0]), strict=True):
        mask.putpalette([0, 0, 0, *colour])
    with pytest.raises(UsageError, match=r"\(1, the colour 255 0 0 and 1, the colour 0 255 0\)"):
        united(tmp_path, *masks)


def test_union_has_the_palette_of_the_mask_that_marks_something(tmp_path):
    empty, mask = Image.fromarray(LEFT * 0), Image.fromarray(RIGHT)
    empty.putpalette([0, 0, 0])
    mask.putpalette([0, 0, 0, 9, 8, 7])
    assert united(tmp_path, empty, mask).convert("RGB").getpixel((3, 0)) == (9, 8, 7)


def test_turned_masks_are_united_as_viewers_show_them(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    for name, values in (("a_1.png", LEFT), ("a_2.png", RIGHT)):
        Image.fromarray(values).save(tmp_path / name, exif=exif)
    (tmp_path / "out").mkdir()
    found = unite_masks({"a": [tmp_path / "a_1.png", tmp_path / "a_2.png"]}, tmp_path / "out")["a"]
    assert np.asarray(Image.open(found)).tolist() == [[1], [0], [0], [1]]


def test_masks_whose_background_is_marked_are_refused(tmp_path):
    with pytest.raises(UsageError, match="mark all of it together, as they do where 0 is the object and"):
        united(tmp_path, (1 - LEFT) * 255, (1 - RIGHT) * 255)
