"""One process or many: a handful of plain functions. CUDA talks through NCCL, the CPU through gloo."""

import multiprocessing.connection
import os
import pickle
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.elastic.multiprocessing.errors import record

from utils.errors import UsageError
from utils.stop import StopRequest

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


def launch(function: Callable, args: tuple, processes: int, device: str) -> None:
    """Run ``function(*args, torch_device)`` in ``processes`` processes, or as the rank that torchrun started.

    A request to stop is passed on to every process. The first process that fails takes the others down, and its
    error comes out here.
    """
    if under_torchrun():
        # What a rank fails of is recorded for torchrun, which shows the first failure of all ranks.
        record(_run_under_torchrun)(function, args, int(os.environ["LOCAL_RANK"]), device)
    elif processes == 1:
        function(*args, _device(device, 0))
    else:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
        _supervise((function, args, processes, address, device), processes)


def _supervise(args: tuple, processes: int) -> None:
    """Start the processes and wait for them."""
    started: list[multiprocessing.process.BaseProcess] = []

    def ask_all() -> None:
        for process in started:
            process.terminate()

    with StopRequest(ask_all) as stop:
        context = mp.start_processes(_enter, args, processes, join=False, start_method="spawn")
        started += context.processes
        if stop.asked:
            ask_all()
        try:
            running = list(started)
            while running and all(process.exitcode in (None, 0) for process in started):
                multiprocessing.connection.wait([process.sentinel for process in running])
                running = [process for process in running if process.is_alive()]
        finally:
            exit_codes = _end(started)
    if not any(exit_codes):
        return
    # The others fail because the first has: one that was killed, or else the one whose report is the oldest.
    reports = {number: Path(file) for number, file in enumerate(context.error_files) if os.path.exists(file)}
    killed = [
        number for number, code in enumerate(exit_codes) if code is not None and code < 0 and number not in reports
    ]
    if stop.asked and (killed or not reports):
        raise KeyboardInterrupt  # outside of training there is nothing to put down
    if killed:
        name = signal.Signals(-exit_codes[killed[0]]).name
        raise UsageError(
            f"process {killed[0]} of {processes} ended with {name}{' (out of memory?)' if name == 'SIGKILL' else ''}; "
            "the others were ended too. The same command with --resume auto goes on from the last checkpoint."
        )
    number = min(reports, key=lambda number: reports[number].stat().st_mtime_ns)
    text = pickle.loads(reports[number].read_bytes())  # written by this very process's children
    if "UsageError: " in text:
        raise UsageError(text)
    raise mp.ProcessRaisedException(f"\n\n-- process {number} failed:\n{text}", number, started[number].pid)


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


def _enter(local_rank: int, function: Callable, args: tuple, processes: int, address: str, device: str) -> None:
    if device == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    _run(function, args, local_rank, device, {"init_method": address, "rank": local_rank, "world_size": processes})


def _run_under_torchrun(function: Callable, args: tuple, local_rank: int, device: str) -> None:
    store, number, processes = next(dist.rendezvous("env://"))
    store = meet(store, number, processes)
    _run(function, args, local_rank, device, {"store": store, "rank": number, "world_size": processes})


def meet(store: dist.Store, number: int, processes: int) -> dist.Store:
    """A part of ``store`` that is these processes' own, whatever earlier ones have left in it.

    torchrun lets the processes that it starts again meet in the store of those that failed, where they would take
    the addresses of the dead for each other's. The number of its restart may differ between machines.

    Rank 0 answers everybody's call, each of which bears a name of its own, with one name for all, until all have heard.
    """
    own = uuid.uuid4().hex
    if number:
        store.set(f"call/{number}", own)
        name = store.get(f"answer/{own}").decode()
        store.set(f"heard/{name}/{number}", "")
        return dist.PrefixStore(name, store)
    waiting, deadline = set(range(1, processes)), time.monotonic() + store.timeout.total_seconds()
    while waiting:
        if time.monotonic() > deadline:
            raise UsageError(
                f"waited {store.timeout} for rank {', '.join(map(str, sorted(waiting)))} of {processes}: is torchrun "
                "running on every machine, and is nothing between them?"
            )
        for other in waiting:
            if store.check([f"call/{other}"]):
                store.set(f"answer/{store.get(f'call/{other}').decode()}", own)
        time.sleep(_POLL)
        waiting = {other for other in waiting if not store.check([f"heard/{own}/{other}"])}
    return dist.PrefixStore(own, store)


def _run(function: Callable, args: tuple, local_rank: int, device: str, group: dict) -> None:
    global _host_group
    torch_device = _device(device, local_rank)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", **group)
    _host_group = dist.new_group(backend="gloo") if device == "cuda" else dist.group.WORLD
    function(*args, torch_device)
    # Not where the function fails: the other ranks would fail of that before this one has told why.
    dist.destroy_process_group()


def _device(device: str, local_rank: int) -> torch.device:
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
