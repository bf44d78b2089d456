import cv2
import numpy as np
import pytest
from PIL import Image

from dataloaders.reading import IGNORE, image_size, read_image, read_mask, read_subclass_map
from tests.dataloaders.miniature import write_image, write_mask
from utils.errors import UsageError
from utils.palette import save_mask, voc_palette

INDICES = np.array([[0, 1, 2], [3, 255, 0]], np.uint8)
EXPECTED = np.array([[0, 1, 2], [3, IGNORE, 0]])


def save_palette(path):
    save_mask(path, INDICES, voc_palette())


def save_gray(path):
    write_mask(path, INDICES)


def save_16_bit(path):
    write_mask(path, INDICES.astype(np.uint16))


@pytest.mark.parametrize("save", [save_palette, save_gray, save_16_bit])
def test_mask_of_any_single_channel_kind_is_read_by_its_indices(tmp_path, save):
    save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png", 4)
    assert mask.dtype == np.int16
    assert np.array_equal(mask, EXPECTED)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colour_image_is_refused_as_a_mask(tmp_path, mode):
    Image.new(mode, (3, 2)).save(tmp_path / "mask.png")
    with pytest.raises(UsageError) as error:
        read_mask(tmp_path / "mask.png", 4)
    assert str(error.value).startswith(f"{tmp_path / 'mask.png'}: is a colour image ({mode})")


def test_ids_outside_the_classes_are_named_with_their_file(tmp_path):
    write_mask(tmp_path / "mask.png", INDICES)
    with pytest.raises(UsageError) as error:
        read_mask(tmp_path / "mask.png", 2)
    assert str(error.value).startswith(f"{tmp_path / 'mask.png'}: holds the label ids 2, 3, but there are 2 classes")


def test_id_beyond_8_bits_is_named_and_does_not_wrap_around(tmp_path):
    write_mask(tmp_path / "mask.png", np.array([[0, 256, 65535]], np.uint16))
    with pytest.raises(UsageError, match="label ids 256, 65535"):
        read_mask(tmp_path / "mask.png", 4)


def test_ignore_index_is_the_configurations(tmp_path):
    write_mask(tmp_path / "mask.png", INDICES)
    with pytest.raises(UsageError, match="label id 255, .* 7 for pixels without one"):
        read_mask(tmp_path / "mask.png", 4, ignore_index=7)
    write_mask(tmp_path / "other.png", np.where(INDICES == 255, 7, INDICES).astype(np.uint8))
    assert np.array_equal(read_mask(tmp_path / "other.png", 4, ignore_index=7), EXPECTED)


def test_class_may_be_the_one_to_ignore(tmp_path):
    write_mask(tmp_path / "mask.png", np.array([[0, 1, 2]], np.uint8))
    assert read_mask(tmp_path / "mask.png", 3, ignore_index=0).tolist() == [[IGNORE, 1, 2]]


@pytest.mark.parametrize("read", [lambda path: read_mask(path, 4), lambda path: read_subclass_map(path, 4)])
def test_damaged_mask_is_named(tmp_path, read):
    path = write_mask(tmp_path / "mask.png", np.random.default_rng(0).integers(0, 4, (40, 40), np.uint8))
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(UsageError, match=r"mask\.png: cannot be read as a mask"):
        read(path)
    path.write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"mask\.png: cannot be read as a mask"):
        read(path)


def test_missing_mask_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.png: cannot be read as a mask"):
        read_mask(tmp_path / "gone.png", 4)


@pytest.mark.parametrize(("dtype", "ignored", "n"), [(np.uint8, 255, 255), (np.uint16, 65535, 400)])
def test_subclass_map_of_8_and_16_bit_is_read_with_its_own_ignore_value(tmp_path, dtype, ignored, n):
    path = write_mask(tmp_path / "map.png", np.array([[0, n - 1, ignored]], dtype))
    subclasses = read_subclass_map(path, n)
    assert subclasses.dtype == np.int16
    assert subclasses.tolist() == [[0, n - 1, IGNORE]]


def test_255_is_a_subclass_in_a_map_of_16_bit(tmp_path):
    assert read_subclass_map(write_mask(tmp_path / "map.png", np.array([[255]], np.uint16)), 400).tolist() == [[255]]


def test_map_of_another_run_is_refused_with_its_subclass(tmp_path):
    path = write_mask(tmp_path / "map.png", np.array([[0, 5, 255]], np.uint8))
    with pytest.raises(UsageError, match=r"map\.png: holds subclass 5, but there are 5 subclasses"):
        read_subclass_map(path, 5)


def test_map_without_any_subclass_is_read(tmp_path):
    path = write_mask(tmp_path / "map.png", np.full((2, 2), 255, np.uint8))
    assert (read_subclass_map(path, 3) == IGNORE).all()


def test_missing_map_names_the_stage_to_run(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.png.*--clustering True"):
        read_subclass_map(tmp_path / "gone.png", 5)


def test_image_is_read_as_rgb(tmp_path):
    image = read_image(write_image(tmp_path / "image.png", (10, 20, 30), size=(2, 3)))
    assert image.dtype == np.uint8
    assert image.shape == (2, 3, 3)
    assert image[0, 0].tolist() == [10, 20, 30]


def test_gray_image_becomes_rgb(tmp_path):
    image = read_image(write_mask(tmp_path / "image.png", 7, size=(2, 3)))
    assert image.shape == (2, 3, 3)
    assert (image == 7).all()


def test_image_is_not_turned_by_its_orientation_tag_as_its_mask_is_not(tmp_path):
    image = Image.fromarray(np.zeros((4, 6, 3), np.uint8))
    tags = Image.Exif()
    tags[0x0112] = 6  # rotate by 90 degrees
    image.save(tmp_path / "image.jpg", exif=tags)
    assert cv2.imread(str(tmp_path / "image.jpg")).shape == (6, 4, 3)
    assert read_image(tmp_path / "image.jpg").shape == (4, 6, 3)
    assert image_size(tmp_path / "image.jpg") == (4, 6)


@pytest.mark.parametrize("read", [read_image, image_size])
def test_unreadable_image_is_named(tmp_path, read):
    (tmp_path / "image.jpg").write_bytes(b"no picture")
    for name in ("image.jpg", "gone.jpg"):
        with pytest.raises(UsageError, match=f"{name}: cannot be read as an image"):
            read(tmp_path / name)
