"""Folders that appear whole: whoever makes one may be killed at any place."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from utils.files import sweep, write_whole
from utils.folders import replacing, sole_maker

MAKE = """
import os, sys
from pathlib import Path
from utils import folders
root, kill_at, at = Path(sys.argv[1]), int(sys.argv[2]), 0

def kill(event, arguments):
    global at
    if event in ("open", "os.mkdir", "os.rename", "os.rmdir", "os.remove") and str(root.parent) in str(arguments[0]):
        at += 1
        if at == kill_at:
            os._exit(9)

sys.addaudithook(kill)
with folders.sole_maker(root), folders.replacing(root) as new:
    (new / "part").mkdir()
    (new / "part" / "file").write_text(sys.argv[3])
"""


def make(root, text: str, kill_at: int = 0) -> int:
    """Make the folder in a process of its own, which ends before the change number ``kill_at``; its exit code."""
    return subprocess.run([sys.executable, "-c", MAKE, root, str(kill_at), text], cwd=ROOT, check=False).returncode


def test_folder_is_whole_before_and_after_whatever_the_next_call_finds_and_nothing_lies_beside_it(tmp_path):
    root = tmp_path / "data" / "set"
    for kill_at in range(1, 100):
        make(root, "old")
        killed = make(root, "new", kill_at)
        with sole_maker(root):
            assert (root / "part" / "file").read_text() in ("old", "new")
        assert [path.name for path in root.parent.iterdir()] == ["set"]
        if not killed:
            break
    assert kill_at > 8
    assert (root / "part" / "file").read_text() == "new"


def test_error_in_the_making_leaves_the_folder_as_it_was(tmp_path):
    root = tmp_path / "set"
    make(root, "old")

    def fail() -> None:
        with sole_maker(root), replacing(root) as new:
            (new / "file").write_text("half")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert (root / "part" / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["set"]


def test_interruption_between_the_two_renames_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    root, rename = tmp_path / "set", Path.rename
    make(root, "old")

    def interrupted(path: Path, target: Path) -> Path:
        if path.name == ".set.new":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), sole_maker(root), replacing(root):
        pass
    assert (root / "part" / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["set"]


def test_sweep_removes_what_killed_processes_left_and_nothing_else(tmp_path):
    for name in (".0123abcd.tmp", ".a.png.0123abcd.tmp", "a.tmp", ".mine.tmp", ".0123abcd.tmp.png"):
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".0123abcd.tmp.png", ".mine.tmp", "a.tmp"]


def test_file_whose_name_is_as_long_as_a_name_can_be_is_written(tmp_path):
    path = tmp_path / ("n" * os.pathconf(tmp_path, "PC_NAME_MAX"))
    write_whole(path, "text")
    assert path.read_text() == "text"


def test_second_maker_that_waits_comes_after_the_first(tmp_path):
    root = tmp_path / "set"
    code = (
        "import sys; from pathlib import Path; from utils.folders import sole_maker\n"
        "with sole_maker(Path(sys.argv[1]), wait=True): print(Path(sys.argv[1]).exists())"
    )
    with sole_maker(root):
        second = subprocess.Popen([sys.executable, "-c", code, root], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        time.sleep(0.3)
        root.mkdir()
    assert second.communicate(timeout=30)[0] == "True\n"
