import numpy as np
import pytest
from PIL import Image

from dataloaders.mask_file import read_mask_file
from utils.errors import UsageError

RNG = np.random.default_rng(0)
INDICES = RNG.integers(0, 4, (20, 30), np.uint8)
COLOURS = RNG.integers(0, 256, (4, 3), np.uint8)[INDICES]


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "gif"])
def test_palette_mask_of_any_format_keeps_its_indices_and_colours(tmp_path, suffix):
    image = Image.fromarray(INDICES)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / f"a.{suffix}")
    mask = read_mask_file(tmp_path / f"a.{suffix}")
    assert np.array_equal(mask.palette[mask.values][..., 0] == 255, INDICES == 1)
    assert np.array_equal(mask.values, INDICES)
    assert mask.format == {"tif": "TIFF"}.get(suffix, suffix.upper())


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_colour_mask_keeps_its_colours(tmp_path, mode, suffix):
    Image.fromarray(COLOURS).convert(mode).save(tmp_path / f"a.{suffix}", lossless=True)
    mask = read_mask_file(tmp_path / f"a.{suffix}")
    assert np.array_equal(mask.values, COLOURS)
    assert mask.alpha is None
    assert not mask.is_lossy


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_stands_apart_from_the_values_it_hides(tmp_path, mode):
    image = Image.fromarray(COLOURS).convert(mode)
    alpha = Image.fromarray(np.where(INDICES == 2, 0, 255).astype(np.uint8))
    image.putalpha(alpha)
    image.save(tmp_path / "a.png")
    mask = read_mask_file(tmp_path / "a.png")
    assert np.array_equal(mask.alpha, np.asarray(alpha))
    assert np.array_equal(mask.values, np.asarray(image.convert("RGB" if mode == "RGBA" else "L")))


@pytest.mark.parametrize(
    ("name", "how"), [("a.jpg", {}), ("a.png", {"format": "JPEG"}), ("a.tif", {"compression": "jpeg"}), ("a.webp", {})]
)
def test_mask_compressed_as_a_photo_is_known_for_one_whatever_its_name(tmp_path, name, how):
    Image.fromarray(COLOURS).save(tmp_path / name, **how)
    assert read_mask_file(tmp_path / name).is_lossy


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_whole_numbers_of_any_type_are_values(tmp_path, kind):
    Image.fromarray(INDICES.astype(kind) * 300).save(tmp_path / "a.tif")
    mask = read_mask_file(tmp_path / "a.tif")
    assert mask.values.dtype == np.uint16
    assert np.array_equal(mask.values, INDICES.astype(np.uint16) * 300)


@pytest.mark.parametrize("bad", [0.5, np.nan, np.inf, -1, 65536])
def test_number_that_is_no_class_id_is_refused(tmp_path, bad):
    Image.fromarray(np.array([[0, bad]], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UsageError, match=r"a\.tif: holds (fractions|values beyond 16 bit)"):
        read_mask_file(tmp_path / "a.tif")


def test_picture_of_inks_is_no_mask(tmp_path):
    Image.fromarray(COLOURS).convert("CMYK").save(tmp_path / "a.tif")
    with pytest.raises(UsageError, match="mode CMYK, not a mask"):
        read_mask_file(tmp_path / "a.tif")
