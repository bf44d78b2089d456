"""Two whole ``main.sh`` at once in one folder. ``TRIALS=20`` tries it as often as docs/reliability.md says."""

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, write_tiny_configs
from tests.contents import contents

TRIALS = int(os.environ.get("TRIALS", "2"))


@pytest.fixture
def checkout(demo_set, tmp_path) -> Path:
    """A folder with ``main.sh`` and the configurations of a tiny run, which writes to ``saved`` in it."""
    (tmp_path / "configs").mkdir()
    write_tiny_configs(demo_set, tmp_path / "configs", num_workers=0)
    shutil.copy(ROOT / "main.sh", tmp_path)
    (tmp_path / "main.py").symlink_to(ROOT / "main.py")
    return tmp_path


def begin(checkout: Path) -> subprocess.Popen:
    return subprocess.Popen(
        ["sh", "main.sh", "tiny", "--set", "trainer.save_dir=saved", "--set", "trainer.log_dir=saved"],
        cwd=checkout,
        env={**os.environ, "RUN_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_one_runs_the_other_is_told_who_does_and_the_results_are_those_of_one_alone(checkout):
    started = time.monotonic()
    alone = begin(checkout)
    output, _ = alone.communicate()
    assert alone.returncode == 0, output
    took, expected, told = time.monotonic() - started, contents(checkout / "saved"), 0
    for trial in range(TRIALS):
        shutil.rmtree(checkout / "saved")
        first = begin(checkout)
        time.sleep(random.Random(trial).uniform(0, took / 2))
        second = begin(checkout)
        outputs = {run: run.communicate()[0] for run in (first, second)}
        refused = [output for run, output in outputs.items() if run.returncode != 0]
        told += len(refused)
        assert len(refused) <= 1, refused
        for output in refused:
            assert "error: saved/tiny_" in output
            assert ": in use by process " in output
        assert all("Traceback" not in output for output in outputs.values())
        assert contents(checkout / "saved") == expected
    assert told
