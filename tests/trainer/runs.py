"""Training runs, and anything else, in processes of their own, which can be killed."""

import json
import multiprocessing
import os
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import torch

from tests.forks import FORKS
from trainer import stages
from trainer.loop.trainer import Trainer
from utils import distributed
from utils.config_file import load_config

CPU = torch.device("cpu")


def run_apart(function: Callable, *args, processes: int = 1, killed_rank: int | None = None) -> list[str]:
    """Run ``function(*args, device)`` as the ranks of one group; the errors with which they ended.

    ``killed_rank`` is to be killed by SIGKILL; the others fail of that.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    errors = FORKS.Queue()
    started = [
        FORKS.Process(target=_begin, args=(rank, processes, port, function, args, errors)) for rank in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(180)
        assert process.exitcode is not None, "it hangs"
    if killed_rank is not None:
        assert started[killed_rank].exitcode == -signal.SIGKILL
    return [errors.get() for process in started if process.exitcode == 1]


def _begin(rank: int, processes: int, port: int, function: Callable, args: tuple, errors) -> None:
    multiprocessing.set_start_method("fork", force=True)  # for data loading, as in a process that was started by hand
    torch.set_num_threads(1)
    try:
        if processes == 1:
            function(*args, CPU)
        else:
            group = {"init_method": f"tcp://127.0.0.1:{port}", "rank": rank, "world_size": processes}
            distributed._run(function, args, rank, "cpu", group)
    except Exception as error:
        errors.put(f"{type(error).__name__}: {error}")
        raise SystemExit(1) from None


def train_apart(config_file: Path, *overrides: str, processes: int = 1, kill_at: int | None = None,
                killed_rank: int = 0, largest_file: int | None = None) -> list[str]:  # fmt: skip
    """Train with ``--resume auto``; the errors with which the ranks ended.

    ``kill_at``: after this iteration ``killed_rank`` is killed. ``largest_file``: no file can grow beyond so many
    bytes, as on a full disk.
    """
    return run_apart(
        _train, config_file, overrides, kill_at, killed_rank, largest_file, processes=processes,
        killed_rank=None if kill_at is None else killed_rank,
    )  # fmt: skip


def _train(config_file, overrides, kill_at, killed_rank, largest_file, device) -> None:
    if largest_file is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    iterate = Trainer._iterate

    def iterate_or_die(self, batch):
        out = iterate(self, batch)
        if self.iteration == kill_at and distributed.rank() == killed_rank:
            os.kill(os.getpid(), signal.SIGKILL)
        return out

    Trainer._iterate = iterate_or_die
    stages.run_stage("train", load_config(config_file, list(overrides)), stages.Options(resume="auto"), device)


def history(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()]


def prepare_subclasses(baseline_config: Path) -> None:
    """Stages 1 to 3."""
    config = load_config(baseline_config)
    for stage in ("train", "save_feature", "clustering"):
        stages.run_stage(stage, config, stages.Options(), CPU)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]
