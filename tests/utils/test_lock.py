"""Folders that one process holds."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from utils.errors import UsageError
from utils.lock import LOCK, sole_use

HOLD = """
import os, sys, time
from pathlib import Path
from utils.lock import sole_use
with sole_use(Path(sys.argv[1])):
    forked = len(sys.argv) > 2 and os.fork() == 0
    if forked or len(sys.argv) == 2:
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


def hold(folder, *more) -> tuple[subprocess.Popen, int]:
    """Another process that holds the folder; with ``more``, it and the id of a child that it has forked since."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder, *more], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def test_second_process_is_refused_and_told_who_where_and_since_when(tmp_path):
    holder, _ = hold(tmp_path)
    try:
        expected = rf"in use by process {holder.pid} on {socket.gethostname()} since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\."
        with pytest.raises(UsageError, match=expected), sole_use(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()


def test_holder_that_is_killed_leaves_no_lock_though_a_child_that_it_forked_lives_on(tmp_path):
    holder, child = hold(tmp_path, "fork")
    try:
        holder.kill()
        holder.wait()
        assert (tmp_path / LOCK).is_file()
        with sole_use(tmp_path):
            os.kill(child, 0)  # it is there
    finally:
        os.kill(child, signal.SIGKILL)


def test_nothing_is_left_in_the_folder_and_it_can_be_held_again(tmp_path):
    for _ in range(2):
        with sole_use(tmp_path / "new"):
            assert (tmp_path / "new" / LOCK).is_file()
        assert not any((tmp_path / "new").iterdir())


def test_lock_file_that_its_holder_removed_meanwhile_is_not_taken_for_the_lock(tmp_path, monkeypatch):
    flock, removed = fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        if not removed:
            removed.append((tmp_path / LOCK).unlink())
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with sole_use(tmp_path):
        monkeypatch.undo()
        with pytest.raises(UsageError, match="in use by"), sole_use(tmp_path):
            pass


def test_many_at_once_are_never_inside_together(tmp_path):
    code = """
import sys, time
from pathlib import Path
from utils.errors import UsageError
from utils.lock import sole_use
folder, done = Path(sys.argv[1]), 0
while done < 30:
    try:
        with sole_use(folder):
            open(folder / "inside", "x").close()
            (folder / "inside").unlink()
            done += 1
    except UsageError:
        pass
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=ROOT) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]


def test_file_system_without_locks_is_named(tmp_path, monkeypatch, capsys):
    def refuse(*_) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with sole_use(tmp_path):
        pass
    assert f"warning: {tmp_path}: a file system without locks (No locks available)" in capsys.readouterr().err


def test_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file/run: cannot be used as a folder"), sole_use(tmp_path / "file" / "run"):
        pass
