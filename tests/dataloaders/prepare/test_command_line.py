"""The command line: exit codes, ``--check``, interruption, a full disk, downloads."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dataloaders.prepare.__main__ import main
from tests.dataloaders.prepare.test_voc import VOC, assert_masks
from tests.dataloaders.prepare.trees import (
    cityscapes_tree,
    snapshot,
    voc_tree,
)
from utils.lock import sole_use


def run(data_set: str, root: Path, *options: object) -> int:
    return main([data_set, "--root", str(root), "--workers", "1", *map(str, options)])


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "dataloaders.prepare", *map(str, arguments)]


def partial_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.is_file()]


def test_prepare_then_check_both_end_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voc, city = voc_tree(tmp_path / "voc").folder, cityscapes_tree(tmp_path / "city").folder
    for data_set, root, counts in (
        ("voc", voc, (7, "10,582", 2, "1,449")),
        ("cityscapes", city, (3, "2,975", 2, "500")),
    ):
        assert run(data_set, root) == 0
        prepared = capsys.readouterr().out
        before = snapshot(root)
        assert run(data_set, root, "--check") == 0
        assert snapshot(root) == before
        for text in (prepared, capsys.readouterr().out):
            pattern = r"training pool +{} +{}\nvalidation +{} +{}\n".format(*counts)
            assert re.search(pattern, text)
            assert f"warning: training pool: {counts[0]} images, the full data set has {counts[1]}" in text


def test_check_of_an_unprepared_root_lists_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("voc", tmp_path / "none", "--check") == 1
    assert f"{tmp_path / 'none' / VOC / 'SegmentationClassAug'}: missing" in capsys.readouterr().out
    assert run("cityscapes", tmp_path / "none", "--check") == 1
    assert f"{tmp_path / 'none/segmentation/train'}: missing" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_check_of_voc_lists_everything_wrong_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = voc_tree(tmp_path)
    assert run("voc", tmp_path) == 0
    images, masks = tmp_path / VOC / "JPEGImages", tmp_path / VOC / "SegmentationClassAug"
    first, second, third, fourth = tree.pool[:4]
    (images / f"{first}.jpg").write_bytes((images / f"{first}.jpg").read_bytes()[:-150])
    (masks / f"{second}.png").unlink()
    (masks / f"{third}.png").write_bytes(b"")
    Image.new("L", (5, 5)).save(masks / f"{fourth}.png")
    (images / f"{tree.val[0]}.jpg").unlink()
    capsys.readouterr()
    before = snapshot(tmp_path)
    assert run("voc", tmp_path, "--check") == 1
    assert snapshot(tmp_path) == before
    text = capsys.readouterr().out
    assert "missing or unreadable: 5\n" in text
    for path, why in (
        (images / f"{first}.jpg", "unreadable"),
        (masks / f"{second}.png", "missing"),
        (masks / f"{third}.png", "unreadable"),
        (masks / f"{fourth}.png", "has 5 x 5 pixels, its image 40 x 30"),
        (images / f"{tree.val[0]}.jpg", "missing"),
    ):
        assert f"  {path}: {why}" in text


def test_check_of_cityscapes_lists_everything_wrong_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = cityscapes_tree(tmp_path)
    assert run("cityscapes", tmp_path) == 0
    city = tree.val[0].partition("_")[0]
    image = tmp_path / "images/train" / f"{tree.train[0]}_leftImg8bit.png"
    mask = tmp_path / "segmentation/train" / f"{tree.train[1]}_gtFine_labelTrainIds.png"
    val_mask = tmp_path / "gtFine/val" / city / f"{tree.val[0]}_gtFine_labelTrainIds.png"
    cut = tmp_path / "images/train" / f"{tree.train[2]}_leftImg8bit.png"
    cut.write_bytes(cut.read_bytes()[:-200])
    image.unlink()
    Image.fromarray(np.full((24, 48), 33, np.uint8)).save(mask)
    val_mask.write_bytes(val_mask.read_bytes()[:50])
    capsys.readouterr()
    before = snapshot(tmp_path)
    assert run("cityscapes", tmp_path, "--check") == 1
    assert snapshot(tmp_path) == before
    text = capsys.readouterr().out
    assert f"  {image}: missing\n" in text
    assert f"  {mask}: holds the indices 33, which are no class\n" in text
    assert f"  {cut}: unreadable" in text
    assert f"  {val_mask}: unreadable" in text


def test_a_bomb_is_refused_with_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = voc_tree(tmp_path)
    bomb = tmp_path / VOC / "SegmentationClass" / f"{tree.train[0]}.png"
    Image.new("1", (9_500, 9_500)).save(bomb)
    assert run("voc", tmp_path) == 1
    assert f"  {bomb}: refused: more than" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["ade20k"], ["voc", "--workers", "0"], ["cityscapes", "--workers", "x"]])
def test_a_wrong_command_line_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2


def test_bad_input_is_one_line_without_traceback(tmp_path: Path) -> None:
    done = subprocess.run(command("voc", "--root", tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"error: VOC 2012 is not in [^\n]+\n", done.stderr)


def test_a_root_that_is_a_file_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = voc_tree(tmp_path / "voc")
    (tmp_path / "root").write_text("")
    assert run("voc", tmp_path / "root", "--source", tree.folder) == 2
    assert "root: cannot be used as a folder" in capsys.readouterr().err


def test_a_second_preparation_at_the_same_time_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voc_tree(tmp_path)
    with sole_use(tmp_path):
        assert run("voc", tmp_path) == 2
    assert f"{tmp_path}: in use by process {os.getpid()} on " in capsys.readouterr().err
    assert run("voc", tmp_path) == 0


def test_a_full_disk_is_one_message_and_damages_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = voc_tree(tmp_path)
    calls = iter(range(100))

    replace = os.replace

    def full(*paths: Path) -> None:
        if next(calls) >= 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert run("voc", tmp_path) == 2
    assert re.search(r"\.png: cannot be written \(No space left", capsys.readouterr().err)
    assert len(list((tmp_path / VOC / "SegmentationClassAug").iterdir())) == 3
    assert run("voc", tmp_path) == 0
    assert_masks(tmp_path, tree)


@pytest.mark.parametrize("at", [0, 1, 5])
@pytest.mark.parametrize("data_set", ["voc", "cityscapes"])
def test_interrupted_between_writing_and_renaming(
    tmp_path: Path, data_set: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (voc_tree if data_set == "voc" else cityscapes_tree)(tmp_path / "source").folder
    calls = iter(range(100))
    replace = os.replace

    def interrupt(*paths: Path) -> None:
        if next(calls) == at:
            raise KeyboardInterrupt
        replace(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        assert run(data_set, tmp_path / "stopped", "--source", source) == 75
    assert not partial_files(tmp_path / "stopped")
    assert run(data_set, tmp_path / "stopped", "--source", source) == 0
    assert run(data_set, tmp_path / "straight", "--source", source) == 0
    assert contents(tmp_path / "stopped") == contents(tmp_path / "straight")


def contents(folder: Path) -> dict[str, bytes]:
    return {name: content for name, (_, _, content) in snapshot(folder).items()}


def hear_interrupts() -> None:
    """A shell starts what runs in its background deaf to Ctrl-C, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_with_workers_leaves_only_whole_files_and_no_processes(tmp_path: Path, how: int) -> None:
    tree = voc_tree(tmp_path, train=100, val=2, sbd_only=300, size=(8, 8), classes=4)
    target = tmp_path / VOC / "SegmentationClassAug"
    # The work cannot be over before the signal is heard: one file is a pipe, on which a worker waits.
    pipe = sorted(tmp_path.rglob("cls/*.mat"))[200]
    content = pipe.read_bytes()
    pipe.unlink()
    os.mkfifo(pipe)
    process = subprocess.Popen(
        command("voc", "--root", tmp_path, "--workers", 2),
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=hear_interrupts,
    )
    while not (target.is_dir() and len(os.listdir(target)) > 20):
        assert process.poll() is None
        time.sleep(0.002)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as the terminal does
    else:
        process.send_signal(how)
    with open(pipe, "wb", opener=lambda path, flags: os.open(path, os.O_RDWR)) as file:
        time.sleep(0.5)  # for the signal to be heard
        file.write(content)
    pipe.unlink()
    pipe.write_bytes(content)
    error = process.communicate(timeout=60)[1]  # ends only when no process holds the pipe any more
    done = [path for path in target.iterdir() if not path.name.startswith(".")]
    assert 20 < len(done) < len(tree.masks)
    for path in done:
        np.testing.assert_array_equal(np.array(Image.open(path)), tree.masks[path.stem])
    if how == signal.SIGINT:
        assert process.returncode == 75
        assert error == b"stopped; the same command goes on from here\n"
    (target / ".2007_000000.png.0123abcd.tmp").write_bytes(b"half")
    assert run("voc", tmp_path) == 0
    assert not partial_files(tmp_path)
    assert_masks(tmp_path, tree)


@pytest.mark.parametrize(
    ("options", "room", "stored_plainly"),
    [((), True, True), ((), False, False), (("--uncompressed",), False, True), (("--compressed",), True, False)],
)
def test_cityscapes_is_stored_without_compression_where_there_is_room(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options, room, stored_plainly
) -> None:
    tree = cityscapes_tree(tmp_path / "city")
    free = SimpleNamespace(free=10**9 if room else 0)
    monkeypatch.setattr("dataloaders.prepare.cityscapes.shutil.disk_usage", lambda _: free)
    command = ("cityscapes", tmp_path / "root", "--source", tree.folder)
    assert run(*command, *options) == 0
    for image in (tmp_path / "root/images/train").iterdir():
        assert (image.stat().st_size > np.array(Image.open(image)).nbytes) is stored_plainly
    assert ("stay compressed" in capsys.readouterr().out) is (not options and not room)

    free.free = 0  # what is stored already needs no more room
    assert run(*command) == 0
    assert ("stay compressed" in capsys.readouterr().out) is (not stored_plainly)
