"""Any file of a run replaced by junk, in every stage that reads it: one message, or passed over; never a traceback.

The stages are run once over a finished run to see which of its files they open, so that no list has to name them.
"""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import main as command_line

SETTINGS = ("trainer.epochs=1", "trainer.tensorboardX=false")
STAGES = {
    "train": ("baseline", "--resume", "auto"),
    "features": ("baseline", "--save_feature", "--force"),
    "subclasses": ("baseline", "--clustering", "--force"),
    "train on subclasses": ("usrn", "--force"),
    "test": ("usrn", "--test"),
    "test again": ("usrn", "--test", "--force"),
    "summary": ("usrn", "--summary"),
    "go on": ("usrn", "--resume", "checkpoint", "--force"),
    "plan": ("usrn", "--plan"),
    "predict": ("usrn", "--predict", "image", "--force"),
}
JUNK = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "binary": lambda content: np.random.default_rng(0).bytes(500),
    "other JSON": lambda content: b'{"a": [1, null]}\n',
    "folder": None,
}


opened: set[Path] = set()


def _notice(event: str, arguments: tuple) -> None:
    """Keep the files that are opened for reading."""
    if event == "open" and isinstance(arguments[0], str | os.PathLike) and isinstance(arguments[2], int):
        writes = arguments[2] & (os.O_WRONLY | os.O_CREAT)
        opened.update([] if writes else [Path(arguments[0])])


@pytest.fixture(scope="module")
def finished(finished_runs, demo_set, tmp_path_factory):
    """The folder of a finished and evaluated baseline and USRN, and which stages read which of its files."""
    folder = tmp_path_factory.mktemp("evaluated")
    shutil.copytree(finished_runs, folder, dirs_exist_ok=True)
    shutil.copy(next((demo_set / "VOCdevkit" / "VOC2012" / "JPEGImages").iterdir()), folder / "image.jpg")
    saved = folder / "saved"
    for kind in ("baseline", "usrn"):
        assert run(folder, saved, kind, "--test") == 0
    assert run(folder, saved, "usrn", "--summary") == 0
    sys.addaudithook(_notice)
    readers = []
    for stage, command in STAGES.items():
        copy = folder / "watched"
        shutil.copytree(saved, copy)
        opened.clear()
        assert run(folder, copy, *command) == 0
        names = sorted(str(path.relative_to(copy)) for path in opened if copy in path.parents)
        of_each_kind = {_kind(name): name for name in names if (saved / name).is_file()}
        readers += [(stage, name) for name in of_each_kind.values()]
        shutil.rmtree(copy)
    return folder, readers


def _kind(name: str) -> str:
    """The same for files of which there is one for each image."""
    path = Path(name)
    return str(path.parent / path.suffix) if path.stem.startswith(("train_", "val_")) else name


def run(folder: Path, saved: Path, kind: str, *command: str) -> int:
    """A stage of the runs whose files are in ``saved``; the exit code."""
    files = {"image": folder / "image.jpg", "checkpoint": saved / f"tiny_{kind}" / "checkpoint.pth"}
    settings = (f"trainer.save_dir={saved}", f"trainer.log_dir={saved}", *SETTINGS)
    overrides = [part for setting in settings for part in ("--set", setting)]
    arguments = [str(files.get(part, part)) for part in command]
    return command_line.main([*arguments, "--config", str(folder / f"tiny_{kind}.json"), *overrides])


def try_junk(finished, capsys, stage: str, name: str, junk: str) -> str | None:
    """What is wrong with how a stage takes junk in the place of a file; None for nothing."""
    folder, _ = finished
    copy = folder / "damaged"
    shutil.copytree(folder / "saved", copy)
    path = copy / name
    content = path.read_bytes()
    path.unlink()
    if JUNK[junk] is None:
        path.mkdir()
    else:
        path.write_bytes(JUNK[junk](content))
    capsys.readouterr()
    try:
        code = run(folder, copy, *STAGES[stage])
    except Exception as error:
        return f"{stage}: {name}, {junk}: {type(error).__name__}: {error}"
    finally:
        shutil.rmtree(copy)
    out, err = capsys.readouterr()
    messages = [line for line in err.splitlines() if line.startswith("error: ")]
    if "Traceback" in out + err or code not in (0, 2) or len(messages) != (code == 2):
        return f"{stage}: {name}, {junk}: exit {code}: {err[-500:]}"
    if code == 2 and not any(part in messages[0] for part in (Path(name).name, Path(name).parent.name)):
        return f"{stage}: {name}, {junk}: neither file nor folder is named: {messages[0]}"
    return None


def test_each_file_of_a_run_that_is_junk_is_named_or_passed_over(finished, capsys):
    """Each file with one stage and one kind of junk, by turns; all of them in the slow test."""
    _, readers = finished
    by_file = {name: [stage for stage, read in readers if read == name] for _, name in readers}
    assert len(by_file) >= 15
    wrong = []
    for turn, (name, stages) in enumerate(sorted(by_file.items())):
        wrong.append(try_junk(finished, capsys, stages[turn % len(stages)], name, list(JUNK)[turn % len(JUNK)]))
    assert not list(filter(None, wrong))


@pytest.mark.slow
@pytest.mark.parametrize("junk", JUNK)
def test_every_file_with_every_junk_in_every_stage_that_reads_it_is_named_or_passed_over(finished, capsys, junk):
    _, readers = finished
    wrong = [try_junk(finished, capsys, stage, name, junk) for stage, name in readers]
    assert not list(filter(None, wrong))
