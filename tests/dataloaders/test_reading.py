import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dataloaders import mask_file
from dataloaders.images import image_size, read_image
from dataloaders.prepare.pictures import uncompressed_png
from dataloaders.reading import IGNORE, read_mask, read_subclass_map
from tests.dataloaders.miniature import write_image, write_mask
from utils.errors import UsageError
from utils.palette import palette_of, save_mask, voc_palette

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


def save_colours(path, colours, mode="RGB"):
    Image.fromarray(np.asarray(colours, np.uint8)).convert(mode).save(path)
    return path


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_mask_in_vocs_colours_is_converted(tmp_path, mode):
    path = save_colours(tmp_path / "mask.png", voc_palette()[INDICES], mode)
    assert np.array_equal(read_mask(path, 4), EXPECTED)
    assert np.array_equal(read_mask(path, 4, ignore_index=0), np.where(EXPECTED == 0, IGNORE, EXPECTED))


def test_mask_in_the_data_sets_own_colours_is_converted(tmp_path):
    palette = palette_of(((9, 9, 9), (255, 0, 0), (0, 255, 0), (0, 0, 255)))
    path = save_colours(tmp_path / "mask.png", palette[INDICES])
    assert np.array_equal(read_mask(path, 4, palette=palette), EXPECTED)
    with pytest.raises(UsageError, match=r"mask\.png: is an RGB image"):
        read_mask(path, 4)


def test_colour_of_two_classes_says_nothing(tmp_path):
    palette = palette_of(((1, 1, 1), (5, 5, 5), (5, 5, 5)))
    path = save_colours(tmp_path / "mask.png", [[[1, 1, 1], [5, 5, 5]]])
    with pytest.raises(UsageError, match=r"its colour \(5, 5, 5\) is not that of one class"):
        read_mask(path, 3, palette=palette)


def test_rgb_mask_is_named_for_what_it_is_with_the_way_to_convert_it(tmp_path):
    path = save_colours(tmp_path / "mask.png", [[[0, 0, 0], [7, 8, 9]]])
    with pytest.raises(UsageError, match=r"mask\.png: is an RGB image.*colour \(7, 8, 9\).*classes\.txt.*palette PNG"):
        read_mask(path, 4)
    path = save_colours(tmp_path / "equal.png", [[[0, 0, 0], [1, 1, 1]]])
    with pytest.raises(UsageError, match="three channels are the same: save one of them"):
        read_mask(path, 4)


def test_gray_mask_with_opaque_alpha_is_read_and_a_transparent_one_refused(tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray(np.dstack([INDICES, np.full_like(INDICES, 255)]), "LA").save(path)
    assert np.array_equal(read_mask(path, 4), EXPECTED)
    for mode in ("LA", "RGBA"):
        Image.new(mode, (3, 2)).save(path)
        with pytest.raises(UsageError, match=r"mask\.png: is a mask with transparent pixels"):
            read_mask(path, 4)


def test_one_bit_mask_has_two_classes(tmp_path):
    Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png", 2).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("values", "what"),
    [(np.array([[0, 65536]], np.int32), "beyond 16 bit"), (np.full((2, 2), 0.5, np.float32), "fraction")],
)
def test_values_that_are_no_ids_do_not_wrap_around(tmp_path, values, what):
    Image.fromarray(values).save(tmp_path / "mask.tif")
    with pytest.raises(UsageError, match=rf"mask\.tif: .*{what}"):
        read_mask(tmp_path / "mask.tif", 4)


def test_jpeg_is_refused_as_a_mask(tmp_path):
    Image.fromarray(INDICES).save(tmp_path / "mask.png", "JPEG")
    with pytest.raises(UsageError, match=r"mask\.png: is compressed as a photo \(JPEG\)"):
        read_mask(tmp_path / "mask.png", 4)


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


NOISE = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)


@pytest.mark.parametrize("read", [read_image, lambda path: read_mask(path, 256)])
def test_png_with_one_wrong_bit_in_its_pixels_is_refused(tmp_path, read):
    path = tmp_path / "file.png"
    Image.fromarray(NOISE[..., 0]).save(path)
    whole = path.read_bytes()
    pixels = whole.index(b"IDAT") + 4
    end = len(whole) - 12  # the chunk IEND
    for place in (*range(pixels, end - 30, (end - pixels) // 20), *range(end - 30, end)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(UsageError, match=r"file\.png: cannot be read as"):
            read(path)


def png_header(width, height):
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), b"IDAT" + zlib.compress(bytes(9)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


@pytest.mark.parametrize("read", [read_image, image_size, lambda path: read_mask(path, 4)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9_500, 60_000])
def test_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, read, side):
    (tmp_path / "bomb.png").write_bytes(png_header(side, side))
    with pytest.raises(UsageError, match=r"bomb\.png: refused: more than 89,478,485 pixels"):
        read(tmp_path / "bomb.png")


@pytest.mark.parametrize("read", [read_image, image_size, lambda path: read_mask(path, 4)])
def test_format_whose_decoder_runs_a_program_is_not_tried(tmp_path, read):
    Image.fromarray(NOISE).save(tmp_path / "image.png", "EPS")
    with pytest.raises(UsageError, match=r"image\.png: cannot be read as"):
        read(tmp_path / "image.png")


def test_names_with_spaces_and_letters_of_any_script_are_read(tmp_path):
    folder = tmp_path / "Fotos für später" / "照片"
    image, mask = write_image(folder / "größe 1.png", 7), write_mask(folder / "mască 1.png", 1)
    assert (read_image(image) == 7).all()
    assert (read_mask(mask, 4) == 1).all()


@pytest.mark.parametrize("read", [read_image, image_size, lambda path: read_mask(path, 4)])
def test_what_is_no_file_is_named(tmp_path, read):
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "empty.png").touch()
    for name in ("loop.png", "folder.png", "empty.png"):
        with pytest.raises(UsageError, match=rf"{name}: cannot be read as .* \(.+\)"):
            read(tmp_path / name)


@pytest.mark.parametrize("read", [read_image, image_size])
def test_unreadable_image_is_named(tmp_path, read):
    (tmp_path / "image.jpg").write_bytes(b"no picture")
    for name in ("image.jpg", "gone.jpg"):
        with pytest.raises(UsageError, match=f"{name}: cannot be read as an image"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("how", "quickly"),
    [("palette", 1), ("uncompressed", 1), ("many chunks", 1), ("gray", 0), ("transparent", 0), ("filtered", 0)],
)
def test_mask_is_the_same_however_its_png_is_written(tmp_path, monkeypatch, how, quickly):
    values = np.random.default_rng(0).integers(0, 5, (60, 90)).astype(np.uint8)
    values[0] = 255
    path = tmp_path / "mask.png"
    image = Image.fromarray(values)
    if how in ("palette", "transparent", "many chunks"):
        image.putpalette(voc_palette().tobytes())
    if how == "filtered":
        image = Image.fromarray(np.sort(values))  # neighbours alike: Pillow stores differences
        values = np.sort(values)
    image.save(path, **({"transparency": 255} if how == "transparent" else {}))
    if how == "uncompressed":
        path.write_bytes(uncompressed_png(path))
    if how == "many chunks":
        path.write_bytes(with_small_chunks(path.read_bytes()))
    by_pillow, opened = [], mask_file.opened
    monkeypatch.setattr(mask_file, "opened", lambda *args: by_pillow.append(1) or opened(*args))
    target = read_mask(path, 5)
    assert not by_pillow if quickly else by_pillow
    assert target.dtype == np.int16
    assert np.array_equal(target, np.where(values == 255, IGNORE, values.astype(int)))


def with_small_chunks(png: bytes) -> bytes:
    """The file with its pixels in chunks of ten bytes."""
    at = png.index(b"IDAT") - 4
    size = int.from_bytes(png[at : at + 4], "big")
    data = png[at + 8 : at + 8 + size]
    chunks = [b"IDAT" + data[first : first + 10] for first in range(0, size, 10)]
    parts = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    return png[:at] + b"".join(parts) + png[at + 12 + size :]
