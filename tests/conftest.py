"""A miniature data set and run settings that every end-to-end test shares."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

import main as command_line
from dataloaders.sets.demo.make import make_demo
from tests.forks import FORKS
from utils.logger import log

torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the same in what a command starts
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored, here and in what a command starts

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session", autouse=True)
def _forked_processes():
    """What ``launch`` and ``for_each`` start is forked; what a command in a process of its own starts is spawned."""
    patch = pytest.MonkeyPatch()
    start = torch.multiprocessing.start_processes

    def start_forks(*arguments, **options):
        return start(*arguments, **options | {"start_method": FORKS.get_start_method()})

    patch.setattr(torch.multiprocessing, "start_processes", start_forks)
    patch.setattr("utils.parallel._CONTEXT", FORKS)
    yield
    patch.undo()


@pytest.fixture
def caplog(caplog, monkeypatch):
    """pytest's, which hears the project's log also where an earlier test has started it."""
    monkeypatch.setattr(log, "propagate", True)
    return caplog


@pytest.fixture(scope="session")
def demo_set(tmp_path_factory) -> Path:
    """A demo data set of 16 training and 5 validation scenes of about 48 pixels."""
    root = tmp_path_factory.mktemp("data") / "demo"
    make_demo(root, n_train=16, n_val=5, size=48, quiet=True)
    return root


def write_tiny_configs(demo_set: Path, folder: Path, num_workers: int) -> tuple[Path, Path]:
    """``tiny_baseline.json`` and ``tiny_usrn.json``: eight iterations, the smallest network, to ``folder/saved``."""
    settings = {
        "dataset": "custom",
        "data_dir": str(demo_set),
        "n_labeled_examples": 8,
        "num_images_all": 16,
        "pretrained": False,
        "model": {"layers": 14, "base_width": 4, "out_dim": 8},
        "train_supervised": {"batch_size": 4, "crop_size": 32, "base_size": 48, "num_workers": num_workers},
        "train_unsupervised": {"batch_size": 4, "crop_size": 32, "base_size": 48, "num_workers": num_workers},
        "val_loader": {"batch_size": 2, "num_workers": num_workers},
        "trainer": {"epochs": 2, "log_per_iter": 2, "save_dir": f"{folder}/saved", "log_dir": f"{folder}/saved"},
    }
    (folder / "base.json").write_text(json.dumps(settings))
    paths = []
    for name in ("Baseline", "USRN"):
        run = f"tiny_{name.lower()}"
        paths.append(folder / f"{run}.json")
        paths[-1].write_text(json.dumps({"base": "base.json", "name": name, "experim_name": run}))
    return paths[0], paths[1]


@pytest.fixture(scope="session")
def finished_runs(demo_set, tmp_path_factory) -> Path:
    """A folder with the tiny configurations and, in ``saved``, the shortest runs of stages 1 to 4; to be copied."""
    import main  # what it imports takes seconds

    folder = tmp_path_factory.mktemp("finished")
    baseline, usrn = write_tiny_configs(demo_set, folder, num_workers=0)
    for config, *stage in ((baseline,), (baseline, "--save_feature"), (baseline, "--clustering"), (usrn,)):
        assert main.main([*stage, "--config", str(config), "--set", "trainer.epochs=1"]) == 0
    return folder


@pytest.fixture
def tiny_configs(demo_set, tmp_path) -> tuple[Path, Path]:
    """The two tiny configurations on ``demo_set``, without data-loading processes."""
    return write_tiny_configs(demo_set, tmp_path, num_workers=0)


def refused(capsys, *arguments) -> str:
    """The message with which ``main.py`` refuses these arguments: exit code 2 and one message on stderr."""
    assert command_line.main([str(argument) for argument in arguments]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "Traceback" not in message
    return message
