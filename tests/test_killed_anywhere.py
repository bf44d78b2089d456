"""Every command killed before every change of a file, then given again: all ends as if nothing had been."""

import hashlib
import io
import os
import re
import shutil
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
from tests.kills import keep_states

pytestmark = pytest.mark.slow


def run(command: Callable[[], int], output: Path, watched: Path | None = None, states: Path | None = None) -> str:
    """Run a command in a forked child, and keep the states of ``watched`` that a kill would leave.

    What it says, with the exit code on a last line where that is not 0.
    """
    child = os.fork()
    if child == 0:
        code = 99
        try:
            _redirect(output)
            if watched is not None:
                keep_states(watched, states)
            code = command()
        except SystemExit as stopped:
            code = stopped.code
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return output.read_text() + (f"\nexit code {code}" if code else "")


def _redirect(output: Path) -> None:
    import sys

    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(file, number)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", 0), write_through=True, encoding="utf-8")
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", 0), write_through=True, encoding="utf-8")


def try_all(command: Callable[[], int], watched: Path, before: Path, folder: Path) -> None:
    """Kill the command before each of its changes and give it again: all ends with the contents of one not killed.

    ``before`` is how ``watched`` looks when the command is first given; ``folder`` is empty.
    """

    def begin(state: Path) -> None:
        shutil.rmtree(watched, ignore_errors=True)
        shutil.copytree(state, watched, symlinks=True)

    output, states = folder / "output.txt", folder / "states"
    begin(before)
    said = run(command, output, watched, states)
    assert "\nexit code" not in said, said
    expected, wrong = contents(watched), []
    different = {_files(state): state for state in sorted(states.iterdir())}
    for state in different.values():
        begin(state)
        said = run(command, output)
        found = contents(watched)
        unlike = sorted(name for name in {**expected, **found} if expected.get(name) != found.get(name))
        # Where --init_data was done, but for its lock, it says so.
        failed = "\nexit code" in said and "there already, perhaps with changes of yours" not in said
        if failed or unlike:
            wrong.append(
                f"killed before {state.name}: {said.strip().splitlines()[-2:] if failed else ''}; {unlike[:5]}"
            )
    assert len(different) > 3
    assert wrong == []


def _files(folder: Path) -> str:
    """What is in a folder, but for the log and for random parts of the names of temporary files."""
    names = ((path, re.sub(r"[0-9a-f]{8}", "", str(path.relative_to(folder)))) for path in sorted(folder.rglob("*")))
    found = [(name, path.read_bytes() if path.is_file() else b"") for path, name in names if path.name != "log.txt"]
    return hashlib.sha256(repr(sorted(found)).encode()).hexdigest()


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
        said = run(lambda arguments=arguments: command_line.main(arguments), folder / "output.txt")
        assert "\nexit code" not in said, said
    return saved, commands, before


@pytest.mark.parametrize(
    "name",
    ["stage 1", "stage 2", "stage 3", "stage 4", "--test of the baseline", "--test of USRN", "--summary"],
)
def test_stage_that_was_killed_anywhere_ends_as_one_that_never_was(stages, tmp_path, name):
    saved, commands, before = stages
    try_all(lambda: command_line.main(commands[name]), saved, before[name], tmp_path)


def test_preparation_that_was_killed_anywhere_ends_as_one_that_never_was(tmp_path):
    source = voc_tree(tmp_path / "source").folder
    (tmp_path / "before").mkdir()
    arguments = ["voc", "--root", str(tmp_path / "root"), "--source", str(source), "--workers", "1"]
    try_all(lambda: prepare(arguments), tmp_path / "root", tmp_path / "before", tmp_path)


@pytest.mark.parametrize("force", [[], ["--force"]], ids=["new", "over an earlier one"])
def test_own_data_that_were_killed_anywhere_end_as_if_they_never_were(tmp_path, monkeypatch, force):
    rng = np.random.default_rng(0)
    for number in range(6):
        pixels = rng.integers(0, 256, (32, 40, 3), np.uint8)
        mask = np.repeat([0, 1, 2, 3], 8)[:, None].repeat(40, 1).astype(np.uint8)
        for folder, picture in (("images", pixels), ("masks", mask)):
            if folder == "images" or number < 4:
                (tmp_path / folder).mkdir(exist_ok=True)
                Image.fromarray(picture).save(tmp_path / folder / f"{number:02}.png")
    before, place = tmp_path / "before", tmp_path / "place"
    shutil.copytree(ROOT / "configs", before / "configs")
    arguments = ["--init_data", f"{tmp_path}/images", "--masks", f"{tmp_path}/masks", "--name", "mine", *force]
    monkeypatch.setattr("trainer.planning.init_data.plan_run", lambda *_, **__: None)  # writes nothing, takes seconds
    fit = "trainer.planning.init_data._fit"  # iterations timed are other ones each time
    monkeypatch.setattr(fit, lambda decisions, *_: decisions)

    def command() -> int:
        os.chdir(place)
        return command_line.main(arguments)

    if force:
        shutil.copytree(before, place)
        said = run(lambda: (os.chdir(place), command_line.main(arguments[:-1]))[1], tmp_path / "output.txt")
        assert "\nexit code" not in said, said
        shutil.rmtree(before)
        place.rename(before)
    try_all(command, place, before, tmp_path)
