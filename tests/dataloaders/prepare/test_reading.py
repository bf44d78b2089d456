"""Pictures and MATLAB files that are damaged, hostile, or not what their names say."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from dataloaders.prepare.matlab import read_sbd_mask
from dataloaders.prepare.pictures import BadFile, check_picture, picture_size, read_ids
from tests.dataloaders.prepare.trees import voc_tree

ANY = np.ones(256, bool)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("read", [picture_size, check_picture, lambda path: read_ids(path, ANY, (1, 1))])
@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_decompression_bomb_is_refused(tmp_path: Path, read, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png_claiming(side, side))
    with pytest.raises(BadFile, match="refused: more than .* pixels"):
        read(tmp_path / "bomb.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_truncated_picture_is_found_at_every_length(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "x", format=kind)
    content = (tmp_path / "x").read_bytes()
    assert check_picture(tmp_path / "x") == (20, 30)
    for length in range(0, len(content) - 12, 37):
        (tmp_path / "x").write_bytes(content[:length])
        with pytest.raises(BadFile):
            check_picture(tmp_path / "x")


def test_a_flipped_bit_in_a_mask_is_found(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 9, (20, 30)).astype(np.uint8)).save(tmp_path / "x.png")
    content = bytearray((tmp_path / "x.png").read_bytes())
    for position in range(41, len(content) - 16, 7):
        content[position] ^= 1
        (tmp_path / "x.png").write_bytes(content)
        with pytest.raises(BadFile):
            read_ids(tmp_path / "x.png", ANY, (20, 30))
        content[position] ^= 1


@pytest.mark.parametrize("kind", ["GIF", "BMP", "EPS", "TIFF"])
def test_other_formats_are_not_even_tried(tmp_path: Path, kind: str) -> None:
    file = io.BytesIO()
    Image.new("L", (4, 4)).save(file, format=kind)
    (tmp_path / "x.png").write_bytes(file.getvalue())
    with pytest.raises(BadFile, match="unreadable"):
        check_picture(tmp_path / "x.png")


def test_a_16_bit_mask_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "x.png")
    with pytest.raises(BadFile, match="mode I;16"):
        read_ids(tmp_path / "x.png", ANY, (4, 4))


def test_sbd_mask_is_read(tmp_path: Path) -> None:
    tree = voc_tree(tmp_path)
    id_ = tree.sbd_only[0]
    path = tmp_path / "benchmark_RELEASE/dataset/cls" / f"{id_}.mat"
    np.testing.assert_array_equal(read_sbd_mask(path), tree.masks[id_])


@pytest.mark.parametrize(
    "content",
    [
        {"other": 1},
        {"GTcls": 1},
        {"GTcls": {"Boundaries": 1}},
        {"GTcls": {"Segmentation": np.zeros((3, 3))}},
        {"GTcls": {"Segmentation": np.zeros((3, 3, 3), np.uint8)}},
    ],
)
def test_a_matlab_file_of_something_else_is_refused(tmp_path: Path, content: dict) -> None:
    savemat(tmp_path / "x.mat", content)
    with pytest.raises(BadFile, match="GTcls.Segmentation"):
        read_sbd_mask(tmp_path / "x.mat")


def test_a_compressed_matlab_bomb_is_refused(tmp_path: Path) -> None:
    bomb = zlib.compress(struct.pack("<II", 14, 1 << 30) + bytes(100 << 20), 9)
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    (tmp_path / "x.mat").write_bytes(header + struct.pack("<II", 15, len(bomb)) + bomb)
    with pytest.raises(BadFile, match="decompression bomb"):
        read_sbd_mask(tmp_path / "x.mat")


def test_a_damaged_matlab_file_never_gives_more_than_a_reason(tmp_path: Path) -> None:
    """Cut at every length, or with any byte changed: a reason, or (where nothing that counts is hit) the mask."""
    tree = voc_tree(tmp_path, size=(9, 9))
    path = tmp_path / "benchmark_RELEASE/dataset/cls" / f"{tree.sbd_only[0]}.mat"
    content = path.read_bytes()
    random = np.random.default_rng(0)
    damaged = [content[:length] for length in range(0, len(content) - 1, 9)]
    for position in range(116, len(content), 2):
        changed = bytearray(content)
        changed[position] ^= int(random.integers(1, 256))
        damaged.append(bytes(changed))
    refused = 0
    for case in damaged:
        path.write_bytes(case)
        try:
            np.testing.assert_array_equal(read_sbd_mask(path), tree.masks[tree.sbd_only[0]])
        except BadFile:
            refused += 1
    assert refused >= 0.9 * len(damaged)
