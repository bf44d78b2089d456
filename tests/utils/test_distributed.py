import os
import pickle
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from multiprocessing import get_start_method
from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore

from utils.distributed import all_mean, all_sum, choose_device, launch, process_count, rank
from utils.distributed import world_size as number_of_processes
from utils.errors import UsageError
from utils.meeting import meet


def in_each_process(folder, device: torch.device) -> None:
    """What the tests below look at, written to ``folder`` by every process."""
    value = torch.tensor([1.0, 10.0]) * (1 + rank())
    found = {"sum": all_sum(value.clone()), "mean": all_mean(value.clone()), "starts by": get_start_method()}
    torch.save(found, folder / f"{rank()}.pt")
    # It leaves the process wrapped in a traceback, of which the user should see nothing.
    raise UsageError("mask.png: it is broken.\nMend it.")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What each of two processes found, and the error with which they ended."""
    folder = tmp_path_factory.mktemp("processes")
    with pytest.raises(UsageError) as error:
        launch(in_each_process, (folder,), 2, "cpu")
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in (0, 1)], error.value


def test_sum_and_mean_are_over_all_processes(two_processes):
    for part in two_processes[0]:
        assert part["sum"].tolist() == [3, 30]
        assert part["mean"].tolist() == [1.5, 15]


def test_data_loading_processes_start_as_those_of_one_process_do(two_processes):
    assert {part["starts by"] for part in two_processes[0]} == {get_start_method()}


def test_user_gets_the_message_of_a_failed_process_alone(two_processes):
    assert str(two_processes[1]) == "mask.png: it is broken.\nMend it."


def leave_without_a_word(device: torch.device) -> None:
    os._exit(3)


class Planted:
    """Runs code where it is unpickled."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_error_file_that_another_user_plants_is_not_unpickled(tmp_path, monkeypatch):
    trace, start = tmp_path / "code was run", torch.multiprocessing.start_processes

    def start_and_plant(*args, **options):
        context = start(*args, **options)
        for name in context.error_files:
            Path(name).write_bytes(pickle.dumps(Planted(trace)))
            planted.append(Path(name))
        return context

    planted: list[Path] = []
    monkeypatch.setattr(torch.multiprocessing, "start_processes", start_and_plant)
    try:
        with pytest.raises(UsageError, match="process [01] of 2 ended with exit code 3"):
            launch(leave_without_a_word, (), 2, "cpu")
    finally:
        for path in planted:
            path.unlink()
    assert len(planted) == 2
    assert not trace.exists()


def note_folders(shared: Path, device: torch.device) -> None:
    if rank() == 0:
        raise ValueError([oct(path.stat().st_mode) for path in shared.iterdir()])


def test_errors_of_processes_pass_through_a_folder_that_only_their_user_opens(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"ValueError: \['0o40700'\]"):
        launch(note_folders, (tmp_path,), 2, "cpu")
    assert list(tmp_path.iterdir()) == []


def test_one_process_needs_no_group(tmp_path):
    found = []
    launch(lambda word, device: found.append((word, device, number_of_processes())), ("a",), 1, "cpu")
    assert found == [("a", torch.device("cpu"), 1)]


def test_processes_that_start_again_meet_apart_from_those_before():
    store = HashStore()
    names = []
    for _ in range(3):
        with ThreadPoolExecutor() as pool:
            stores = list(pool.map(lambda number: meet(store, number, 3), (2, 0, 1)))
        stores[0].set("address", str(len(names)))
        assert {part.get("address") for part in stores} == {stores[0].get("address")}
        names.append(stores[0].get("address"))
    assert names == [b"0", b"1", b"2"]


def test_process_whose_call_of_before_was_never_answered_is_waited_for():
    store = HashStore()
    store.set("call/1", "one that died")
    with ThreadPoolExecutor() as pool:
        first = pool.submit(meet, store, 0, 2)
        assert wait([first], timeout=0.2).not_done
        meet(store, 1, 2).set("address", "here")
        assert first.result().get("address") == b"here"


def test_processes_that_never_come_are_not_waited_for_for_ever():
    store = HashStore()
    store.set_timeout(timedelta(seconds=0.1))
    with pytest.raises(UsageError, match="rank 1, 2"):
        meet(store, 0, 3)


def test_under_torchrun_its_rank_joins_its_group_and_leaves_it(monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = []
    launch(lambda device: found.append(torch.distributed.is_initialized()), (), 5, "cpu")
    assert found == [True]
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(("there", "expected"), [(1, 1), (3, 3), (8, 4)])
def test_no_more_processes_start_than_devices_are_there_or_asked_for(monkeypatch, capsys, there, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    assert process_count(4, "cuda") == expected
    warning = capsys.readouterr().err
    assert ("asks for 4 devices" in warning) is (there < 4)
    assert ("the same total batch and schedule" in warning) is (there < 4)


def test_cpu_is_one_device(capsys):
    assert process_count(2, "cpu") == 1
    assert "asks for 2 devices; running on 1 (cpu)" in capsys.readouterr().err


def test_auto_takes_cuda_where_it_is_and_cuda_is_refused_where_it_is_not(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (choose_device("auto"), choose_device("cpu")) == ("cuda", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(UsageError, match="--device cpu"):
        choose_device("cuda")
