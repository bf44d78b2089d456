"""Every command killed before every change of a file, then given again: all ends as if nothing had been."""

import io
import os
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot  # noqa: F401 - imported here once, not by each of the forked children
import numpy as np
import pytest
from PIL import Image

import main as command_line
import trainer.stages
import trainer.subclasses.make  # noqa: F401
from dataloaders.prepare.__main__ import main as prepare
from tests.conftest import ROOT, write_tiny_configs
from tests.contents import contents
from tests.dataloaders.prepare.trees import voc_tree

pytestmark = pytest.mark.slow

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def run(command: Callable[[], int], watched: Path, kill_at: int = 0) -> tuple[int, list[str], str]:
    """Run a command in a forked child: its exit code or signal, its changes of files below ``watched``, its output.

    Before the change number ``kill_at`` it is killed.
    """
    reader, writer = os.pipe()
    output = watched.parent / "output.txt"
    child = os.fork()
    if child == 0:
        code = 99
        try:
            _redirect(output)
            _watch(watched, writer, kill_at)
            code = command()
        except SystemExit as stopped:
            code = stopped.code
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader) as changes:
        seen = changes.read().splitlines()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, seen, output.read_text()


def _redirect(output: Path) -> None:
    import sys

    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(file, number)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", 0), write_through=True, encoding="utf-8")
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", 0), write_through=True, encoding="utf-8")


def _watch(watched: Path, writer: int, kill_at: int) -> None:
    import sys

    count = 0

    def see(event: str, arguments: tuple) -> None:
        nonlocal count
        if event == "open":
            path, flags = arguments[0], arguments[2]
            if not isinstance(path, str | bytes) or not isinstance(flags, int) or not flags & WRITING:
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        name = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else "?"
        # Names relative to an open folder come from rmtree alone, whose folders are all watched.
        if not os.path.abspath(name).startswith(f"{watched}/") and (event == "open" or os.path.isabs(name)):
            return
        count += 1
        os.write(writer, f"{event} {name}\n".encode())
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(see)


def try_all(command: Callable[[], int], watched: Path, before: Path) -> tuple[dict[str, str], list[str]]:
    """Kill the command before each of its changes and give it again: the contents it ends with, and what went wrong.

    ``before`` is how ``watched`` looks when the command is first given.
    """

    def begin() -> None:
        shutil.rmtree(watched, ignore_errors=True)
        shutil.copytree(before, watched, symlinks=True)

    begin()
    code, changes, output = run(command, watched)
    assert code == 0, output
    expected, wrong = contents(watched), []
    for kill_at, change in enumerate(changes, 1):
        begin()
        killed, _, _ = run(command, watched, kill_at)
        again, _, output = run(command, watched)
        found = contents(watched)
        if "there already, perhaps with changes of yours" in output:
            again = 0  # --init_data was done, but for its lock
        unlike = sorted(name for name in {**expected, **found} if expected.get(name) != found.get(name))
        if killed != -signal.SIGKILL or again != 0 or unlike:
            last = output.strip().splitlines()[-1:] if again else ""
            wrong.append(f"killed before {change}: {killed}, then {again} {last}; unlike: {unlike[:5]}")
    assert len(changes) > 3
    return expected, wrong


@pytest.fixture(scope="module")
def stages(demo_set, tmp_path_factory) -> Iterator[tuple[Path, dict[str, list[str]], dict[str, Path]]]:
    """The folder of the runs, the command of every stage, and how the folder looks before each."""
    folder = tmp_path_factory.mktemp("killed")
    baseline, usrn = (str(path) for path in write_tiny_configs(demo_set, folder, num_workers=0))
    commands = {
        "stage 1": ["-c", baseline, "--resume", "auto"],
        "stage 2": ["-c", baseline, "--save_feature"],
        "stage 3": ["-c", baseline, "--clustering"],
        "stage 4": ["-c", usrn, "--resume", "auto"],
        "--test of the baseline": ["-c", baseline, "--test"],
        "--test of USRN": ["-c", usrn, "--test"],
        "--summary": ["-c", usrn, "--summary"],
    }
    few = ["--set", "trainer.epochs=1", "--set", "trainer.tensorboardX=false"]
    commands = {name: arguments + few for name, arguments in commands.items()}
    saved, before = folder / "saved", {}
    saved.mkdir()
    for name, arguments in commands.items():
        before[name] = folder / "before" / name
        shutil.copytree(saved, before[name])
        code, _, output = run(lambda arguments=arguments: command_line.main(arguments), saved)
        assert code == 0, output
    return saved, commands, before


@pytest.mark.parametrize(
    "name",
    ["stage 1", "stage 2", "stage 3", "stage 4", "--test of the baseline", "--test of USRN", "--summary"],
)
def test_stage_that_was_killed_anywhere_ends_as_one_that_never_was(stages, name):
    saved, commands, before = stages
    _, wrong = try_all(lambda: command_line.main(commands[name]), saved, before[name])
    assert wrong == []


def test_preparation_that_was_killed_anywhere_ends_as_one_that_never_was(tmp_path):
    source = voc_tree(tmp_path / "source").folder
    (tmp_path / "before").mkdir()
    arguments = ["voc", "--root", str(tmp_path / "root"), "--source", str(source), "--workers", "1"]
    _, wrong = try_all(lambda: prepare(arguments), tmp_path / "root", tmp_path / "before")
    assert wrong == []


@pytest.mark.parametrize("force", [[], ["--force"]], ids=["new", "over an earlier one"])
def test_own_data_that_were_killed_anywhere_end_as_if_they_never_were(tmp_path, monkeypatch, force):
    rng = np.random.default_rng(0)
    for number in range(12):
        pixels = rng.integers(0, 256, (32, 40, 3), np.uint8)
        mask = np.repeat([0, 1, 2, 3], 8)[:, None].repeat(40, 1).astype(np.uint8)
        for folder, picture in (("images", pixels), ("masks", mask)):
            if folder == "images" or number < 8:
                (tmp_path / folder).mkdir(exist_ok=True)
                Image.fromarray(picture).save(tmp_path / folder / f"{number:02}.png")
    before, place = tmp_path / "before", tmp_path / "place"
    shutil.copytree(ROOT / "configs", before / "configs")
    arguments = ["--init_data", f"{tmp_path}/images", "--masks", f"{tmp_path}/masks", "--name", "mine", *force]
    monkeypatch.setattr("trainer.planning.init_data.plan_run", lambda *_, **__: None)  # writes nothing, takes seconds

    def command() -> int:
        os.chdir(place)
        return command_line.main(arguments)

    if force:
        shutil.copytree(before, place)
        code, _, output = run(lambda: (os.chdir(place), command_line.main(arguments[:-1]))[1], place)
        assert code == 0, output
        shutil.rmtree(before)
        place.rename(before)
    _, wrong = try_all(command, place, before)
    assert wrong == []
