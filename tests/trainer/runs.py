"""Training runs in processes of their own, which can be killed."""

import json
import multiprocessing
import os
import resource
import signal
import socket
from pathlib import Path

import torch

from trainer import stages
from trainer.trainer import Trainer
from utils import distributed
from utils.config_file import load_config

CPU = torch.device("cpu")
# One server imports PyTorch once; the processes that it forks have never run a backward pass.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.trainer.runs", "torch._dynamo"])


def _train(rank: int, processes: int, port: int, config_file: Path, overrides: tuple[str, ...], kill_at: int | None,
           largest_file: int | None, errors) -> None:  # fmt: skip
    multiprocessing.set_start_method("fork", force=True)  # for data loading, as in a process that was started by hand
    torch.set_num_threads(1)
    if largest_file is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    if kill_at is not None:
        iterate = Trainer._iterate

        def iterate_or_die(self, batch):
            iterate(self, batch)
            if self.iteration == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        Trainer._iterate = iterate_or_die
    arguments = ("train", load_config(config_file, list(overrides)), stages.Options(resume="auto"))
    try:
        if processes == 1:
            stages.run_stage(*arguments, CPU)
        else:
            group = {"init_method": f"tcp://127.0.0.1:{port}", "rank": rank, "world_size": processes}
            distributed._run(stages.run_stage, arguments, rank, "cpu", group)
    except Exception as error:
        errors.put(f"{type(error).__name__}: {error}")
        raise SystemExit(1) from None


def train_apart(config_file: Path, *overrides: str, processes: int = 1, kill_at: int | None = None,
                killed_rank: int = 0, largest_file: int | None = None) -> list[str]:  # fmt: skip
    """Train with ``--resume auto`` in processes of their own; the errors with which they ended.

    ``kill_at``: in this iteration, counted from 0, one rank is killed by SIGKILL and the others fail of that.
    ``largest_file``: no file can grow beyond so many bytes, as on a full disk.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    errors = _context.Queue()
    started = []
    for rank in range(processes):
        kill = kill_at if rank == killed_rank else None
        arguments = (rank, processes, port, config_file, overrides, kill, largest_file, errors)
        started.append(_context.Process(target=_train, args=arguments))
        started[-1].start()
    for process in started:
        process.join(120)
        assert process.exitcode is not None, "it hangs"
    if kill_at is not None:
        assert started[killed_rank].exitcode == -signal.SIGKILL
    return [errors.get() for process in started if process.exitcode == 1]


def history(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()]


def prepare_subclasses(baseline_config: Path) -> None:
    """Stages 1 to 3."""
    config = load_config(baseline_config)
    for stage in ("train", "save_feature", "clustering"):
        stages.run_stage(stage, config, stages.Options(), CPU)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]
