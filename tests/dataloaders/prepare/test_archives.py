"""Archives: only what is wanted is written, only where it belongs, and hostile ones are refused."""

import gzip
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from dataloaders.prepare import archives
from dataloaders.prepare.archives import unpack
from dataloaders.prepare.cityscapes import prepare_cityscapes
from dataloaders.prepare.voc import prepare_voc
from tests.dataloaders.prepare.trees import CITYSCAPES_ARCHIVES, SBD_ARCHIVE, pack_voc, snapshot, voc_tree
from utils.errors import UsageError

OUTSIDE = ["../escaped.png", "a/../../escaped.png", "/tmp/escaped.png", "..\\escaped.png", "C:\\escaped.png"]


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    return tmp_path / "inside"


def tar(path: Path, *members: tuple[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def zipped(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def unpack_all(archive: Path, folder: Path) -> int:
    return unpack(archive, lambda name: folder / name)


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("make", [tar, zipped])
def test_a_member_outside_condemns_the_archive(tmp_path: Path, inside: Path, make, name: str) -> None:
    archive = make(tmp_path / ("a.zip" if make is zipped else "a.tar"), (name, b"x"), ("good.png", b"y"))
    with pytest.raises(UsageError, match=r"a\.(zip|tar): refused: its member .* points out of the folder"):
        unpack_all(archive, inside)
    assert [path.name for path in tmp_path.iterdir()] == [archive.name]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_never_made(tmp_path: Path, inside: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("link.png")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(UsageError, match=r"'link.png' is a link or a device"):
        unpack_all(tmp_path / "a.tar", inside)
    assert not inside.exists()


def test_links_in_a_zip_are_never_made(tmp_path: Path, inside: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("link.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UsageError, match=r"'link.png' is a link"):
        unpack_all(tmp_path / "a.zip", inside)
    assert not inside.exists()


def test_hostile_downloads_write_nothing_outside_the_root(tmp_path: Path) -> None:
    tree = voc_tree(tmp_path / "voc")
    downloads = pack_voc(tree, tmp_path / "downloads")
    tar(downloads / SBD_ARCHIVE, ("benchmark_RELEASE/dataset/cls/../../../../../x.mat", b"x"), mode="w:gz")
    zipped(downloads / CITYSCAPES_ARCHIVES[0], ("leftImg8bit/train/../../../x_leftImg8bit.png", b"x"))
    before = snapshot(tmp_path)
    for prepare in (prepare_voc, prepare_cityscapes):
        with pytest.raises(UsageError, match="points out of the folder"):
            prepare(tmp_path / "root", [downloads])
    new = snapshot(tmp_path).keys() - before.keys()
    assert all(name.startswith("root/") for name in new)


@pytest.mark.parametrize("make", [tar, zipped])
def test_a_member_too_large_is_refused(tmp_path: Path, inside: Path, make, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make(tmp_path / ("a.zip" if make is zipped else "a.tar"), ("big.png", bytes(2000)))
    monkeypatch.setattr(archives, "MAX_MEMBER", 1999)
    with pytest.raises(UsageError, match=r"big.png is larger than .*decompression bomb"):
        unpack_all(archive, inside)
    assert not inside.exists()


@pytest.mark.parametrize("make", [tar, zipped])
def test_an_archive_too_large_is_refused(tmp_path: Path, inside: Path, make, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [(f"{i}.png", bytes(1000)) for i in range(9)]
    archive = make(tmp_path / ("a.zip" if make is zipped else "a.tar"), *files)
    monkeypatch.setattr(archives, "MAX_UNPACKED", 5000)
    with pytest.raises(UsageError, match="the archive is larger than .*decompression bomb"):
        unpack_all(archive, inside)


def test_a_header_that_unpacks_to_gigabytes_is_refused(tmp_path: Path, inside: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 8 << 30
    with gzip.open(tmp_path / "a.tgz", "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.write(bytes(1 << 20))
    with pytest.raises(UsageError, match="a header is larger than .*decompression bomb"):
        unpack_all(tmp_path / "a.tgz", inside)


def test_a_zip_entry_that_lies_about_its_size_is_refused(tmp_path: Path, inside: Path) -> None:
    archive = zipped(tmp_path / "a.zip", ("x.png", bytes(5000)))
    content = archive.read_bytes().replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little"))
    archive.write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.zip: cannot be unpacked"):
        unpack_all(archive, inside)
    assert not list(inside.rglob("*"))


@pytest.mark.parametrize("kind", ["a.tar", "a.tgz", "a.zip"])
def test_a_truncated_archive_is_one_message_at_every_length(tmp_path: Path, kind: str) -> None:
    files = [(f"{i}.png", bytes([i]) * 700) for i in range(3)]
    path = tmp_path / kind
    whole = zipped(path, *files) if kind == "a.zip" else tar(path, *files, mode="w:gz" if "g" in kind else "w")
    content = whole.read_bytes()
    # A tar is filled up with zeros, and gzip ends in a check sum: cuts in these lose nothing.
    end = 3 * 1536 + 512 if kind == "a.tar" else len(content) - 30
    for number, length in enumerate(range(0, end, max(end // 60, 1))):
        whole.write_bytes(content[:length])
        folder = tmp_path / f"inside{number}"
        with pytest.raises(UsageError, match="cannot be unpacked .* Download it again"):
            unpack_all(whole, folder)
        for written in folder.rglob("*"):
            assert (written.name, written.read_bytes()) in files


def test_a_damaged_byte_in_a_zip_is_found(tmp_path: Path, inside: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        file.writestr("x.png", b"picture")
    archive.write_bytes(archive.read_bytes().replace(b"picture", b"pictuse"))
    with pytest.raises(UsageError, match="CRC"):
        unpack_all(archive, inside)
    assert not list(inside.rglob("*"))
