"""``main.sh`` with a stand-in for Python that writes down its arguments and fails where it is told to."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def main_sh(tmp_path: Path, *arguments: str, fail_at: int = 0, exit_code: int = 7) -> tuple[int, list[str], str]:
    """Exit code, the command lines that were called in order, and stderr."""
    stand_in, calls = tmp_path / "python", tmp_path / "calls"
    calls.touch()
    stand_in.write_text(
        f'#!/bin/sh\necho "$@" >> {calls}\n[ "$(wc -l < {calls})" -ne {fail_at} ] || exit {exit_code}\n'
    )
    stand_in.chmod(0o755)
    result = subprocess.run(
        ["sh", str(ROOT / "main.sh"), *arguments],
        cwd=tmp_path,
        env={**os.environ, "RUN_PYTHON": str(stand_in)},
        capture_output=True,
        text=True,
    )
    return result.returncode, calls.read_text().splitlines(), result.stderr


def test_runs_the_stages_in_order_with_the_options_given(tmp_path):
    code, calls, _ = main_sh(tmp_path, "voc_1over32", "--set", "n_gpu=1")
    assert code == 0
    baseline, usrn = "--config configs/voc_1over32_baseline.json", "--config configs/voc_1over32_usrn.json"
    assert calls == [
        f"main.py {arguments} --set n_gpu=1"
        for arguments in (
            f"{baseline} --resume auto",
            f"--save_feature True {baseline}",
            f"--clustering True {baseline}",
            f"{usrn} --resume auto",
            f"--test True {baseline}",
            f"--test True {usrn}",
            f"--summary True {usrn}",
        )
    ]


def test_stops_at_the_first_stage_that_fails_with_its_exit_code(tmp_path):
    code, calls, _ = main_sh(tmp_path, "voc_1over32", fail_at=3)
    assert code == 7
    assert len(calls) == 3


def test_unknown_run_lists_the_known_ones(tmp_path):
    for arguments in ([], ["voc_1over3"]):
        code, calls, message = main_sh(tmp_path, *arguments)
        assert code == 2
        assert calls == []
        assert "voc_1over32" in message
        assert "demo" in message


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [("exit 75", 75), ("exit 0", 75), ("trap - TERM; kill $$", 75), ("exit 2", 2)],
    ids=["put down", "done just then", "too early to hear it", "failed"],
)
def test_request_to_stop_reaches_the_stage_and_no_other_begins(tmp_path, number, answer, expected):
    stand_in, calls = tmp_path / "python", tmp_path / "calls"
    stand_in.write_text(
        f"#!/bin/sh\ntrap 'echo put down >> {calls}; {answer}' TERM\necho \"$@\" >> {calls}\n"
        "while :; do sleep 0.05; done\n"
    )
    stand_in.chmod(0o755)
    run = subprocess.Popen(
        ["sh", str(ROOT / "main.sh"), "demo"],
        env={**os.environ, "RUN_PYTHON": str(stand_in)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not calls.is_file() or not calls.read_text():
        time.sleep(0.02)
    run.send_signal(number)
    out, _ = run.communicate(timeout=30)
    assert run.returncode == expected
    assert calls.read_text().splitlines()[1:] == ["put down"]
    assert ("the same command goes on" in out) is (expected == 75)


def test_stage_that_alone_was_asked_to_stop_stops_the_run(tmp_path):
    code, calls, _ = main_sh(tmp_path, "voc_1over32", fail_at=4, exit_code=75)
    assert code == 75
    assert len(calls) == 4
