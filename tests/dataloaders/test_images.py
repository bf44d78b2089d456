import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from dataloaders import images
from dataloaders.images import image_size, look_at_image, read_image
from tests.dataloaders.miniature import save_turned, write_image, write_mask
from utils.errors import UsageError

SMOOTH = cv2.resize(np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8), (30, 24))


def write_tiff(path, values, extra=(), planar=1, photometric=None):
    """An uncompressed TIFF of bands (H, W, B), which may be more or deeper than Pillow can write."""
    height, width, bands = values.shape
    bits, kind = 8 * values.dtype.itemsize, {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    entries = {
        256: ("I", [width]), 257: ("I", [height]), 258: ("H", [bits] * bands), 259: ("H", [1]),
        262: ("H", [photometric or (2 if bands > 2 else 1)]), 273: ("I", [0]), 277: ("H", [bands]),
        278: ("I", [height]), 279: ("I", [values.nbytes]), 284: ("H", [planar]),
        338: ("H", list(extra)), 339: ("H", [kind] * bands),
    }  # fmt: skip
    entries = {tag: entry for tag, entry in entries.items() if entry[1]}
    start = 8 + 2 + 12 * len(entries) + 4
    size = sum(struct.calcsize(f"<{len(found)}{code}") for code, found in entries.values()) + start
    entries[273] = ("I", [size])
    directory, blob = struct.pack("<H", len(entries)), b""
    for tag, (code, found) in entries.items():
        raw = struct.pack(f"<{len(found)}{code}", *found)
        place = raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack("<I", start + len(blob))
        directory += struct.pack("<HHI", tag, 3 if code == "H" else 4, len(found)) + place
        blob += raw if len(raw) > 4 else b""
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + blob.ljust(size - start, b"\0")
                     + values.tobytes())  # fmt: skip
    return path


def bands(count, dtype=np.uint8):
    return np.random.default_rng(1).integers(1, 200, (6, 8, count)).astype(dtype)


@pytest.mark.parametrize("extra", [(), (0,), (1,), (2,)], ids=["unsaid", "unspecified", "associated", "alpha"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_fourth_band_of_a_tiff_leaves_the_colours_alone(tmp_path, extra, dtype):
    values = bands(4, dtype)
    values[:3, :, 3] = 0
    found = read_image(write_tiff(tmp_path / "a.tif", values, extra), value_range=(0, 255))
    assert np.array_equal(found, values[..., :3])


def test_further_bands_of_a_tiff_are_dropped(tmp_path):
    values = bands(6)
    assert np.array_equal(read_image(write_tiff(tmp_path / "a.tif", values, (0, 0, 0))), values[..., :3])


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (bands(1, np.float32), "32-bit floating-point numbers"),
        (bands(3, np.float32), "3 bands of 32-bit floating-point numbers"),
        (bands(1, np.float64), "64-bit floating-point numbers"),
        (bands(1, np.int32), "32-bit whole numbers"),
        (bands(13, np.uint16), "13 bands of 16-bit whole numbers"),
    ],
)
def test_image_of_another_kind_is_named_for_what_it_is(tmp_path, values, what):
    path = write_tiff(tmp_path / "a.tif", values, (0,) * max(0, values.shape[2] - 3))
    with pytest.raises(UsageError, match=rf"a\.tif: .*{what}.*Save it with 8 or 16 bits"):
        read_image(path)


def test_bands_of_16_bit_one_after_the_other_are_refused(tmp_path):
    Image.fromarray(SMOOTH).save(tmp_path / "a.tif")
    path = write_tiff(tmp_path / "a.tif", bands(3, np.uint16), planar=2)
    with pytest.raises(UsageError, match=r"a\.tif: .*interleaved"):
        read_image(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("count", [3, 4, 8])
def test_bands_that_are_not_said_to_be_colours_are_refused_with_the_way_to_say_it(tmp_path, dtype, count):
    path = write_tiff(tmp_path / "a.tif", bands(count, dtype), (0,) * (count - 1), photometric=1)
    for read in (read_image, look_at_image):
        with pytest.raises(UsageError, match=rf"a\.tif: .*{count} bands .*-b 3 -co PHOTOMETRIC=RGB"):
            read(path)


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(images, "_warned", [])
    monkeypatch.setattr(images.log, "warning", said.append)
    return said


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_12_bit_image_keeps_its_gray_levels_where_the_range_is_said(tmp_path, suffix, warnings):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(path)
    found = read_image(path, value_range=(0, 4095))
    assert (found.min(), found.max(), len(np.unique(found))) == (0, 255, 256)
    assert (
        read_image(path, value_range=(1000, 2000)).reshape(-1, 3)[[0, 1000, 2000, 4095], 0] == [0, 0, 255, 255]
    ).all()
    assert not warnings
    assert read_image(path).max() == 16
    assert read_image(path).max() == 16
    assert len(warnings) == 1
    assert "from 0 to 4095, less than a quarter" in warnings[0]
    assert look_at_image(path).values == (0, 4095)


@pytest.mark.parametrize(
    ("odd", "expected"), [(65535, (1000, 1500)), (0, (1000, 1500)), (1900, (1000, 1900)), (600, (600, 1500))]
)
def test_hot_and_dead_pixels_do_not_widen_the_range_and_others_do(tmp_path, odd, expected):
    values = np.linspace(1000, 1500, 2400).round().astype(np.uint16).reshape(40, 60)
    values[20, 30] = odd
    Image.fromarray(values).save(tmp_path / "a.png")
    look = look_at_image(tmp_path / "a.png")
    assert look.values == expected
    assert look.extremes == (min(1000, odd), max(1500, odd))


def test_signed_16_bit_values_are_scaled_from_the_darkest(tmp_path):
    path = write_tiff(tmp_path / "a.tif", np.array([[[-1000], [0], [1000]]], np.int16))
    assert read_image(path, value_range=(-1000, 1000))[0, :, 0].tolist() == [0, 128, 255]
    assert look_at_image(path).values == (-1000, 1000)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_image_is_upright_as_viewers_show_it_unless_its_mask_was_drawn_on_the_stored_one(tmp_path, suffix, orientation):
    path, tags = tmp_path / f"a.{suffix}", Image.Exif()
    tags[0x0112] = orientation
    Image.fromarray(SMOOTH).save(path, exif=tags, lossless=True, quality=100)
    with Image.open(path) as image:
        shown = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    upright = read_image(path)
    assert upright.shape == shown.shape
    assert np.abs(upright.astype(int) - shown).mean() < 3
    stored = read_image(path, mask_size=SMOOTH.shape[:2])
    assert np.abs(read_image(path, upright=False).astype(int) - SMOOTH).mean() < 3
    expected = SMOOTH if orientation >= 5 else shown  # where the size does not tell, what viewers show
    assert np.abs(stored.astype(int) - expected).mean() < 3
    assert image_size(path) == shown.shape[:2]
    look = look_at_image(path)
    assert (look.size, look.stored_size) == (shown.shape[:2], SMOOTH.shape[:2])
    assert look.is_turned == (orientation > 1)


def test_orientation_behind_the_pixels_of_a_png_counts(tmp_path):
    path = save_turned(tmp_path / "a.png", (4, 6))
    content = path.read_bytes()
    at = content.index(b"eXIf") - 4
    chunk = content[at : at + 12 + int.from_bytes(content[at : at + 4], "big")]
    end = content.index(b"IEND") - 4
    path.write_bytes(content[:at] + content[at + len(chunk) : end] + chunk + content[end:])
    assert read_image(path).shape == (6, 4, 3)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_orientation_is_none(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(SMOOTH).save(buffer, "JPEG", exif=b"Exif\0\0II*\0damaged")
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    assert read_image(tmp_path / "a.jpg").shape == SMOOTH.shape


def test_image_is_read_as_rgb(tmp_path):
    image = read_image(write_image(tmp_path / "image.png", (10, 20, 30), size=(2, 3)))
    assert image.dtype == np.uint8
    assert image.shape == (2, 3, 3)
    assert image[0, 0].tolist() == [10, 20, 30]


def test_gray_image_becomes_rgb(tmp_path):
    image = read_image(write_mask(tmp_path / "image.png", 7, size=(2, 3)))
    assert image.shape == (2, 3, 3)
    assert (image == 7).all()


NOISE = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "L", "1", "CMYK"])
def test_image_of_any_kind_becomes_rgb(tmp_path, mode):
    name = "image.tif" if mode == "CMYK" else "image.png"
    image = Image.fromarray(NOISE).convert(mode)
    image.save(tmp_path / name)
    assert np.array_equal(read_image(tmp_path / name), np.asarray(image.convert("RGB")))


def test_cmyk_jpeg_has_its_colours(tmp_path):
    smooth = cv2.GaussianBlur(cv2.resize(NOISE, (120, 160)), (31, 31), 0)
    Image.fromarray(smooth).convert("CMYK").save(tmp_path / "image.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "image.jpg").astype(int) - smooth).mean() < 3


@pytest.mark.parametrize("values", [NOISE, NOISE[..., 0]])
def test_16_bit_image_keeps_its_brightness(tmp_path, values):
    cv2.imwrite(str(tmp_path / "image.png"), values.astype(np.uint16) * 257)
    found = read_image(tmp_path / "image.png")
    assert found.dtype == np.uint8
    assert np.array_equal(found[..., ::-1], values if values.ndim == 3 else np.dstack([values] * 3))


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("name", ["image.jpg", "image.png", "image.tif", "image.bmp", "image.webp"])
def test_truncated_image_is_refused_wherever_it_ends(tmp_path, name):
    path = tmp_path / name
    Image.fromarray(NOISE).save(path)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), max(1, len(whole) // 40)), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(UsageError, match=f"{name}: cannot be read as an image"):
            read_image(path)
