"""One process or many: a handful of plain functions. CUDA talks through NCCL, the CPU through gloo."""

import json
import multiprocessing.connection
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.elastic.multiprocessing.errors import record

from utils.cores import share_cores
from utils.errors import UsageError, system_errors
from utils.files import write_whole
from utils.meeting import agree, meet
from utils.stop import STOPPED, Stopped, StopRequest

_POLL = 0.02  # seconds
_GRACE = 3.0  # seconds that the other processes have to end by themselves when one has failed
_host_group: dist.ProcessGroup | None = None  # gloo, whatever the devices talk through

T = TypeVar("T")


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def under_torchrun() -> bool:
    return "LOCAL_RANK" in os.environ and "MASTER_ADDR" in os.environ


def is_first_started() -> bool:
    """Whether this is the process that works where torchrun has started many for what takes one."""
    return not under_torchrun() or int(os.environ["RANK"]) == 0


def choose_device(name: str) -> str:
    """``cuda`` or ``cpu``; ``auto`` takes CUDA where it is."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch finds no CUDA device here; use --device cpu.")
    return name if name != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")


def process_count(n_gpu: int, device: str) -> int:
    """How many processes to start here for a configuration that asks for ``n_gpu`` devices.

    Batch and schedule belong to the configuration, so fewer devices give the same run, more slowly.
    """
    there = torch.cuda.device_count() if device == "cuda" else 1
    if n_gpu > there and not under_torchrun():
        print(
            f"warning: the configuration asks for {n_gpu} devices; running on {there} ({device}) with the same total "
            "batch and schedule",
            file=sys.stderr,
        )
    return min(n_gpu, there)


def restarts() -> int:
    """How often torchrun has started this run again after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def launch(
    function: Callable, args: tuple, processes: int | None, device: str, command: dict[str, Any] | None = None
) -> Any:
    """Run ``function(*args, torch_device)`` in ``processes`` processes, or as the rank that torchrun started.

    None is this process alone, whoever started it. What ``function`` returns is returned where one process runs it.

    A request to stop is passed on to every process. The first process that fails takes the others down, and its
    error comes out here.

    Parameters
    ----------
    command
        What all ranks have to agree about, by name: torchrun may have started them by several command lines.

    Raises
    ------
    Stopped
        The work was put down on request, in every process.
    UsageError
        The ranks do not agree.
    """
    if processes is None or (processes == 1 and not under_torchrun()):
        return function(*args, _device(device, 0))
    if under_torchrun():
        # What a rank fails of is recorded for torchrun, which shows the first failure of all ranks.
        record(_run_under_torchrun)(function, args, int(os.environ["LOCAL_RANK"]), device, command or {})
    else:
        _require_device(device, processes - 1)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
        _supervise((function, args, processes, address, device), processes)
    return None


def _supervise(args: tuple, processes: int) -> None:
    """Start the processes and wait for them."""
    started: list[multiprocessing.process.BaseProcess] = []

    def ask_all() -> None:
        for process in started:
            process.terminate()

    # A folder of its own, which nobody else can open, and plain text in it: PyTorch's own error files are unpickled
    # from names in the shared temporary folder, where another user may put one.
    with tempfile.TemporaryDirectory(prefix="usrn-") as folder, StopRequest(ask_all) as stop:
        context = mp.start_processes(_enter, (*args, Path(folder)), processes, join=False, start_method="spawn")
        started += context.processes
        if stop.asked:
            ask_all()
        try:
            running = list(started)
            while running and all(process.exitcode in (None, 0, STOPPED) for process in started):
                multiprocessing.connection.wait([process.sentinel for process in running])
                running = [process for process in running if process.is_alive()]
        finally:
            exit_codes = _end(started)
        failures = {number: failure for number in range(processes) if (failure := _Failure.read(Path(folder), number))}
    if set(exit_codes) <= {0, STOPPED}:
        if any(exit_codes):
            raise Stopped
    else:
        _raise_first_failure(exit_codes, failures, stop.asked)


class _Failure(NamedTuple):
    """What a process failed of: a user's mistake with its message, or any other error with its traceback."""

    when: float
    is_users: bool
    text: str

    @classmethod
    def read(cls, folder: Path, number: int) -> "_Failure | None":
        path = folder / f"{number}.json"
        return cls(*json.loads(path.read_text())) if path.is_file() else None

    def write(self, folder: Path, number: int) -> None:
        write_whole(folder / f"{number}.json", json.dumps(self), flush=False)


def _raise_first_failure(exit_codes: list[int | None], failures: dict[int, _Failure], asked: bool) -> None:
    """The others fail because the first has: one that ended without a word, or else the one that spoke first."""
    silent = {number: code for number, code in enumerate(exit_codes) if code and number not in failures}
    if asked and (silent or not failures):
        raise KeyboardInterrupt  # outside of training there is nothing to put down
    if silent:
        number, code = min(silent.items(), key=lambda item: item[1])
        how = f"exit code {code}" if code > 0 else signal.Signals(-code).name
        raise UsageError(
            f"process {number} of {len(exit_codes)} ended with {how}{' (out of memory?)' if how == 'SIGKILL' else ''}; "
            "the others were ended too. The same command with --resume auto goes on from the last checkpoint."
        )
    number = min(failures, key=lambda number: failures[number].when)
    if failures[number].is_users:
        raise UsageError(failures[number].text)
    raise RuntimeError(f"process {number} failed:\n{failures[number].text}")


def _end(processes: list[multiprocessing.process.BaseProcess]) -> list[int | None]:
    """End the processes; the exit codes of those that ended by themselves, None for the others."""
    deadline = time.monotonic() + _GRACE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    exit_codes = [process.exitcode for process in processes]
    for process in processes:
        if process.is_alive():
            process.kill()
        process.join()
    return exit_codes


def _enter(
    local_rank: int, function: Callable, args: tuple, processes: int, address: str, device: str, failures: Path
) -> None:
    multiprocessing.set_start_method(None, force=True)  # or it would spawn its data-loading processes, too
    share_cores(processes)
    try:
        _run(function, args, local_rank, device, {"init_method": address, "rank": local_rank, "world_size": processes})
    except Exception as error:
        is_users = isinstance(error, UsageError)
        _Failure(time.time(), is_users, str(error) if is_users else traceback.format_exc()).write(failures, local_rank)
        sys.exit(1)


def _run_under_torchrun(function: Callable, args: tuple, local_rank: int, device: str, command: dict) -> None:
    store, number, processes = next(dist.rendezvous("env://"))
    store = meet(store, number, processes)
    agree(store, number, processes, {"--device": device, **command})
    _run(function, args, local_rank, device, {"store": store, "rank": number, "world_size": processes})


def _run(function: Callable, args: tuple, local_rank: int, device: str, group: dict) -> None:
    global _host_group
    torch_device = _device(device, local_rank)
    cuda = device == "cuda"  # where NCCL guesses the device unless it is told
    dist.init_process_group("nccl" if cuda else "gloo", device_id=torch_device if cuda else None, **group)
    _host_group = dist.new_group(backend="gloo") if cuda else dist.group.WORLD
    stopped = False
    try:
        with system_errors():
            function(*args, torch_device)
    except Stopped:  # in every rank
        stopped = True
    # Not where the function fails: the other ranks would fail of that before this one has told why.
    dist.destroy_process_group()
    if stopped:
        sys.exit(STOPPED)


def _require_device(device: str, local_rank: int) -> None:
    there = torch.cuda.device_count() if device == "cuda" else local_rank + 1
    if local_rank >= there:
        raise UsageError(
            f"{local_rank + 1} processes on this machine (--processes, or torchrun's --nproc_per_node), but {there} "
            "GPUs: a process needs one of its own."
        )


def _device(device: str, local_rank: int) -> torch.device:
    _require_device(device, local_rank)
    if device == "cuda":
        torch.cuda.set_device(local_rank)
        return torch.device("cuda", local_rank)
    return torch.device(device)


def all_sum(values: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def any_process(flags: list[bool]) -> list[bool]:
    """Which of the flags are up in any process. The hosts ask each other; no device has to wait."""
    if not dist.is_initialized():
        return flags
    values = torch.tensor(flags, dtype=torch.uint8)
    dist.all_reduce(values, dist.ReduceOp.MAX, group=_host_group)
    return values.bool().tolist()


def all_mean(values: torch.Tensor) -> torch.Tensor:
    return all_sum(values).div_(world_size())


def gather(value: T) -> list[T]:
    """A picklable value of every process, in the order of their ranks."""
    values = [value] * world_size()
    if dist.is_initialized():
        dist.all_gather_object(values, value, group=_host_group)
    return values


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of ``items``, neighbours: the parts of all processes in the order of their ranks are all."""
    return items[len(items) * rank() // world_size() : len(items) * (rank() + 1) // world_size()]


@contextmanager
def failing_together() -> Iterator[None]:
    """A ``UsageError`` in one process is raised in all of them, so that none waits for one that is gone."""
    message = None
    try:
        yield
    except UsageError as error:
        message = str(error)
    for failed in gather(message):
        if failed is not None:
            raise UsageError(failed)


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()
