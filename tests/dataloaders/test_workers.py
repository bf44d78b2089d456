"""Data-loading processes that are killed or freeze, and machines that have too little for them."""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import Dataset

import main as command_line
from dataloaders import workers
from dataloaders.workers import WatchedLoader, end_workers
from tests.conftest import write_tiny_configs
from tests.forks import ForkedCommand
from utils.errors import UsageError
from utils.stop import StopRequest


class Numbers(Dataset):
    """Whose item ``at`` its process does not get over."""

    def __init__(self, at: int, how: signal.Signals | None):
        self.at, self.how = at, how

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.at:
            os.kill(os.getpid(), self.how) if self.how is not None else time.sleep(600)
        return torch.tensor(index)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(workers, "_LOOK", 0.2)
    monkeypatch.setattr(workers, "_PATIENCE", 0.5)
    yield
    end_workers(0)


def loader(at: int = -1, how: signal.Signals | None = None) -> WatchedLoader:
    return WatchedLoader(Numbers(at, how), section="train_supervised", num_workers=2, multiprocessing_context="fork")


def test_batches_come_in_order_and_the_loader_can_be_used_again():
    watched = loader()
    for _ in range(2):
        assert [int(batch) for batch in watched] == list(range(8))


def test_killed_process_is_named_with_its_number_and_signal():
    seen = []
    with pytest.raises(UsageError, match=r"train_supervised: .* process 1 \(.*, process \d+\) has ended with SIGKILL"):
        seen.extend(loader(5, signal.SIGKILL))
    assert len(seen) <= 5


def test_frozen_process_is_waited_for_until_a_stop_is_asked_for_and_is_named_then():
    def ask() -> None:
        time.sleep(1)  # longer than the patience: nothing happens until then
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask)
    with StopRequest() as stop:
        asking.start()
        with pytest.raises(UsageError, match=r"process 1 \(.*, process \d+\) has sent nothing for"):
            list(loader(5))  # as on a network file system that is gone
        assert stop.asked
    asking.join()
    assert not any(child.name.startswith("Process-") for child in multiprocessing.active_children())


def test_frozen_processes_are_ended_by_force_where_nobody_waits_for_their_batches():
    iterator = iter(loader(5, signal.SIGSTOP))
    next(iterator)
    frozen = list(workers._started)
    end_workers(1)
    for worker in frozen:
        worker.join(5)
        assert worker.exitcode is not None


def test_thread_that_pins_batches_and_has_ended_is_not_waited_for():
    watched = loader(at=0, how=None)
    iterator = watched._get_iterator()
    iterator._pin_memory, iterator._pin_memory_thread = True, threading.Thread()  # as on a GPU; it never ran
    with pytest.raises(UsageError, match="train_supervised: the thread that makes its batches ready"):
        next(watched._watched(iterator))
    del iterator._pin_memory_thread
    end_workers(0)


@pytest.mark.parametrize(("soft", "hard", "expected"), [(64, 10000, 4096), (64, 200, 200), (5000, 10000, None)])
def test_limit_of_open_files_is_raised_as_far_as_it_may_be(monkeypatch, soft, hard, expected):
    limits = []
    monkeypatch.setattr(workers.resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(workers.resource, "setrlimit", lambda _, new: limits.append(new))
    loader()
    assert limits == ([(expected, hard)] if expected else [])


def test_too_few_open_files_are_one_message(monkeypatch):
    monkeypatch.setattr(workers.resource, "getrlimit", lambda _: (20, 40))
    with pytest.raises(UsageError, match="only 40 files may be open at a time"):
        loader()


@pytest.mark.parametrize("words", ["No space left on device (28)", "Success (0)"], ids=["PyTorch 2.12", "PyTorch 2.11"])
def test_full_shared_memory_is_told_by_the_words_of_each_pytorch(words):
    text = f"unable to allocate shared memory(shm) for file </torch_1_2_3>: {words}"
    with pytest.raises(UsageError, match="/dev/shm: too small for the data-loading processes"):
        loader()._look_after(SimpleNamespace(_workers=[]), text)


SMALL = ("mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", "/dev/shm")


def main_with_little_shared_memory(arguments: list[str]) -> int:
    new_mounts = 0x00020000  # CLONE_NEWNS of <sched.h>; Python 3.12 has os.unshare
    assert ctypes.CDLL(None).unshare(new_mounts) == 0
    for command in (("mount", "--make-rprivate", "/"), SMALL):
        subprocess.run(command, check=True)
    return command_line.main(arguments)


def test_too_little_shared_memory_is_one_message(demo_set, tmp_path):
    if subprocess.run(["unshare", "-m", *SMALL], capture_output=True).returncode != 0:
        pytest.skip("mounting a file system in a space of one's own needs root")
    baseline, _ = write_tiny_configs(demo_set, tmp_path, num_workers=2)
    run = ForkedCommand(main_with_little_shared_memory, tmp_path, "--device", "cpu", "--config", baseline)
    _, err = run.communicate(timeout=120)
    assert run.returncode == 2
    assert "error: /dev/shm: too small for the data-loading processes of train_supervised" in err
    assert "Traceback" not in err
