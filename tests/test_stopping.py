"""Requests to stop, processes that fail and processes that are killed, through the command line."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

import main as command_line
from tests.conftest import ROOT, write_tiny_configs
from tests.forks import ForkedCommand, torchrun
from utils.distributed import barrier, launch, rank
from utils.errors import UsageError
from utils.stop import StopRequest, interruptible

LONG = ("--set", "trainer.epochs=5000", "--set", "trainer.early_stop=5000", "--set", "trainer.log_per_iter=1")
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def baseline(demo_set, tmp_path):
    return write_tiny_configs(demo_set, tmp_path, num_workers=1)[0]


@pytest.fixture
def start(tmp_path):
    """What starts ``main.py`` with these arguments and environment in a process group of its own."""
    return partial(ForkedCommand, command_line.main, tmp_path)


def iterations(history: Path) -> int:
    lines = history.read_text().splitlines() if history.is_file() else []
    return json.loads(lines[-1])["iteration"] if lines else 0


def wait_for(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def is_gone(group: int) -> bool:
    """Whether no process of this group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def start_two(*arguments) -> subprocess.Popen:
    """``main.py`` by itself, which starts two ranks."""
    return subprocess.Popen(
        [sys.executable, "main.py", "--processes", "2", *map(str, arguments)],
        cwd=ROOT, env=ONE_THREAD, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("processes", "number", "to_all"),
    [(1, signal.SIGINT, True), (1, signal.SIGTERM, True), (2, signal.SIGTERM, False)],
    ids=["Ctrl-C", "SIGTERM to every process", "SIGTERM to the command"],
)
def test_request_to_stop_saves_leaves_no_process_and_says_how_to_go_on(
    start, baseline, tmp_path, processes, number, to_all
):
    run_dir = tmp_path / "saved" / "tiny_baseline"
    run = (start_two if processes == 2 else start)("--config", baseline, *LONG)
    wait_for(lambda: iterations(run_dir / "history.jsonl") >= 3)
    (os.killpg if to_all else os.kill)(run.pid, number)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 75, err
    wait_for(lambda: is_gone(run.pid), 10)
    assert "--resume auto goes on from there" in out
    saved = torch.load(run_dir / "checkpoint.pth", weights_only=True)["resume"]
    assert saved["iteration"] >= 3
    assert f"stopped on request at iteration {saved['iteration']} of" in out


def test_stage_after_a_training_that_was_stopped_is_refused(start, baseline, tmp_path):
    run_dir = tmp_path / "saved" / "tiny_baseline"
    run = start("--config", baseline, *LONG)
    wait_for(lambda: (run_dir / "best_model.pth").is_file())
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)
    features = start("--config", baseline, "--save_feature", "True", *LONG)
    _, err = features.communicate(timeout=60)
    assert features.returncode == 2
    assert "tiny_baseline: its training is not finished" in err


def fail(folder: Path, how: str, device: torch.device) -> None:
    """Rank 1 fails while the others wait for it."""
    (folder / f"{rank()}").write_text(str(os.getpid()))
    barrier()  # now all are connected
    if rank() == 1:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError("rank 1's own mistake")
    barrier()


@pytest.mark.parametrize(
    ("how", "message"), [("raises", "rank 1's own mistake"), ("killed", "process 1 of 3 ended with SIGKILL")]
)
def test_rank_that_fails_takes_the_others_down_with_its_own_error_on_top(tmp_path, how, message):
    started = time.monotonic()
    with pytest.raises((UsageError, RuntimeError), match=message) as error:
        launch(fail, (tmp_path, how), 3, "cpu")
    assert time.monotonic() - started < 60  # gloo alone would wait for half an hour
    assert "Connection closed" not in str(error.value)
    for number in range(3):
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / f"{number}").read_text()), 0)


def test_torchrun_starts_a_killed_rank_again_and_the_run_goes_on(baseline, tmp_path):
    run_dir = tmp_path / "saved" / "tiny_baseline"
    settings = ("--set", "trainer.epochs=4", "--set", "trainer.save_minutes=0", "--set", "trainer.log_per_iter=1")
    options = ("--nproc_per_node", 2, "--max_restarts", 1, "--standalone")
    command = ("main.py", "--config", baseline, "--device", "cpu", *settings)
    run = ForkedCommand(torchrun, tmp_path, *options, *command)
    wait_for(lambda: iterations(run_dir / "history.jsonl") >= 3)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    out, err = run.communicate(timeout=200)
    assert run.returncode == 0, err
    assert "going on at iteration" in out
    assert iterations(run_dir / "history.jsonl") == 16
    wait_for(lambda: is_gone(run.pid), 10)


def start_ranks(start, *commands) -> list[ForkedCommand]:
    """Ranks of one group as a cluster's scheduler starts them, each with its own command line."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    group["WORLD_SIZE"] = str(len(commands))
    return [
        start("--device", "cpu", *command, **group, RANK=str(number), LOCAL_RANK=str(number))
        for number, command in enumerate(commands)
    ]


def test_ranks_of_different_commands_are_refused_before_they_wait_for_each_other(start, baseline):
    for run in start_ranks(start, ["--config", baseline], ["--config", baseline, "--set", "trainer.epochs=4"]):
        _, err = run.communicate(timeout=60)
        assert run.returncode == 2
        assert "rank 1 was started by another command or configuration than rank 0; it differs in trainer." in err
        assert "Traceback" not in err


def test_ranks_of_a_scheduler_that_asks_one_to_stop_all_end_with_75(start, baseline, tmp_path):
    command = ["--config", baseline, *LONG]
    ranks = start_ranks(start, command, command)
    wait_for(lambda: iterations(tmp_path / "saved" / "tiny_baseline" / "history.jsonl") >= 3)
    ranks[1].terminate()
    assert [run.communicate(timeout=60) and run.returncode for run in ranks] == [75, 75]


@pytest.fixture
def handlers():
    """The handlers of signals, put back at the end."""
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield numbers
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_request_to_stop_ends_any_other_stage_at_once_and_says_how_to_go_on(
    tiny_configs, monkeypatch, capsys, handlers, name
):
    def work(*_) -> None:
        os.kill(os.getpid(), signal.Signals[name])
        time.sleep(10)

    monkeypatch.setattr("trainer.stages.summary", work)
    started = time.monotonic()
    assert command_line.main(["-c", str(tiny_configs[0]), "--summary"]) == 75
    assert time.monotonic() - started < 10
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    assert {signal.getsignal(number) for number in handlers} == {signal.SIG_IGN}  # what follows is not heard any more


def test_hang_up_that_nohup_ignores_is_not_heard(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interruptible(), StopRequest() as request:
        os.kill(os.getpid(), signal.SIGHUP)
    assert not request.asked


def test_closed_terminal_saves(baseline, tmp_path):
    run_dir = tmp_path / "saved" / "tiny_baseline"
    terminal, its_end = os.openpty()
    command = [sys.executable, "main.py", "--config", str(baseline), *LONG]
    run = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command],
        cwd=ROOT,
        env=ONE_THREAD,
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
    )
    os.close(its_end)
    wait_for(lambda: iterations(run_dir / "history.jsonl") >= 3)
    os.close(terminal)
    assert run.wait(60) == 75
    assert (run_dir / "checkpoint.pth").is_file()
