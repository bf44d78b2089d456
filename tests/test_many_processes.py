"""Stages in two processes, through the command line: they leave what one process leaves."""

import json
import shutil

import pytest

import main as command_line
from tests.forks import ForkedCommand, torchrun
from tests.trainer.runs import history


@pytest.fixture
def here(finished_runs, tmp_path):
    """Stages in a copy of the finished baseline: the arguments of ``main.py`` for one of the two configurations."""
    shutil.copytree(finished_runs / "saved" / "tiny_baseline", tmp_path / "saved" / "tiny_baseline")

    def arguments(name: str, *more: str) -> list[str]:
        settings = ("trainer.epochs=1", f"trainer.save_dir={tmp_path}/saved", f"trainer.log_dir={tmp_path}/saved")
        overrides = [part for setting in settings for part in ("--set", setting)]
        return ["-c", str(finished_runs / f"{name}.json"), *more, *overrides]

    return arguments


def test_two_processes_train_and_evaluate_as_one_does(here, tmp_path):
    assert command_line.main(here("tiny_usrn", "--processes", "2")) == 0
    options = ("--standalone", "--nproc_per_node", 2, "main.py")
    run = ForkedCommand(torchrun, tmp_path, *options, *here("tiny_usrn", "--test"))
    _, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    run_dir = tmp_path / "saved" / "tiny_usrn"
    two = json.loads((run_dir / "results.json").read_text())
    assert command_line.main(here("tiny_usrn", "--test", "--force")) == 0
    alone = json.loads((run_dir / "results.json").read_text())
    assert two["iou"] == alone["iou"]
    assert len(list((run_dir / "preds").glob("*.png"))) == 5
    assert [entry["iteration"] for entry in history(run_dir) if "val_mean_iou" in entry] == [2, 4]


def test_two_processes_cluster_as_one_does(here, finished_runs, tmp_path):
    assert command_line.main(here("tiny_baseline", "--clustering", "--force", "--processes", "2")) == 0
    run_dirs = [folder / "saved" / "tiny_baseline" for folder in (finished_runs, tmp_path)]
    maps = [run_dir / "label_subcls_balanced_kmeans" for run_dir in run_dirs]
    one, two = (json.loads((folder / "subclasses.json").read_text()) for folder in maps)
    assert two["sizes"] == one["sizes"]
    assert two["inertia"] == pytest.approx(one["inertia"], rel=1e-3)
    assert two["source"] != one["source"]
    assert {path.name for path in maps[1].iterdir()} == {path.name for path in maps[0].iterdir()}


def test_a_process_that_fails_gives_its_one_message(here, tmp_path, capfd):
    shutil.rmtree(tmp_path / "saved")
    assert command_line.main(here("tiny_usrn", "--processes", "2")) == 2
    message = capfd.readouterr().err
    assert "--clustering True" in message
    assert "Traceback" not in message
    assert message.count("error: ") == 1
