"""`prepare voc --download` from a server on this machine."""

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dataloaders.prepare.test_command_line import run
from tests.dataloaders.prepare.test_voc import assert_masks
from tests.dataloaders.prepare.trees import (
    SBD_ARCHIVE,
    VOC_ARCHIVE,
    pack_voc,
    snapshot,
    voc_tree,
)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A server of miniature archives in the place of the real ones; their folder."""
    datasets = pytest.importorskip("torchvision.datasets")
    folder = pack_voc(voc_tree(tmp_path / "made"), tmp_path / "published")
    handler = functools.partial(QuietHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    voc = {"url": f"{address}/{VOC_ARCHIVE}", "md5": md5(folder / VOC_ARCHIVE)}
    monkeypatch.setitem(datasets.voc.DATASET_YEAR_DICT, "2012", voc)
    monkeypatch.setattr(datasets.SBDataset, "url", f"{address}/{SBD_ARCHIVE}")
    monkeypatch.setattr(datasets.SBDataset, "md5", md5(folder / SBD_ARCHIVE))
    yield folder
    server.shutdown()
    server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def test_download_fetches_what_is_missing_and_prepares_it(tmp_path: Path, published: Path) -> None:
    root = tmp_path / "root"
    assert run("voc", root, "--download") == 0
    assert_masks(root, voc_tree(tmp_path / "same"))
    for archive in (*published.iterdir(), root / VOC_ARCHIVE, root / SBD_ARCHIVE):
        archive.unlink()
    before = snapshot(root)
    assert run("voc", root, "--download") == 0
    assert snapshot(root) == before


def test_download_of_another_file_than_the_published_one_is_refused(
    tmp_path: Path, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (published / SBD_ARCHIVE).write_bytes(b"not found")
    assert run("voc", tmp_path / "root", "--download") == 2
    assert f"{SBD_ARCHIVE}: cannot be downloaded (File not found or corrupted.)" in capsys.readouterr().err
    assert not (tmp_path / "root" / SBD_ARCHIVE).exists()


def test_download_without_a_network_is_one_message(
    tmp_path: Path, published: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import SBDataset

    monkeypatch.setattr(SBDataset, "url", "http://nowhere.invalid/benchmark.tgz")
    assert run("voc", tmp_path / "root", "--download") == 2
    error = capsys.readouterr().err
    assert "error: http://nowhere.invalid/benchmark.tgz: cannot be downloaded" in error
    assert "Without a network here, download it elsewhere" in error
