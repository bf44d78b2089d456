import socket

import pytest
import torch
from torch import nn

from utils.distributed import all_mean, all_sum, choose_device, launch, process_count, rank, synchronise_batch_norm
from utils.distributed import world_size as number_of_processes
from utils.errors import UsageError

IMAGES_OF_RANK_0 = 3  # of 4: the processes' batches differ in size


def passes() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [2 + 3 * torch.randn(4, 5, 6, 7, generator=generator) for _ in range(2)]


def norm() -> nn.Module:
    """Batch norm with parameters that matter, in a network as it comes."""
    module = nn.Sequential(nn.BatchNorm2d(5))
    with torch.no_grad():
        module[0].weight.copy_(torch.linspace(0.5, 1.5, 5))
        module[0].bias.copy_(torch.linspace(-1, 1, 5))
    return module


def run(module: nn.Module, part: slice) -> dict[str, torch.Tensor]:
    """Two training passes over this part of each batch, then one in evaluation mode; what came of it."""
    found = {}
    for number, whole in enumerate(passes()):
        x = whole[part].clone().requires_grad_()
        y = module(x)
        (y.pow(3) * (1 + whole[part])).sum().backward()
        found |= {f"y{number}": y.detach(), f"gradient{number}": x.grad}
    module.eval()
    found["evaluated"] = module(whole[part]).detach()
    found |= {name: value.grad for name, value in module.named_parameters()}
    return found | {f"state {name}": value for name, value in module.state_dict().items()}


def in_each_process(folder, device: torch.device) -> None:
    """What the tests below look at, written to ``folder`` by every process."""
    part = slice(0, IMAGES_OF_RANK_0) if rank() == 0 else slice(IMAGES_OF_RANK_0, 4)
    found = run(synchronise_batch_norm(norm(), device), part)
    value = torch.tensor([1.0, 10.0]) * (1 + rank())
    found |= {"sum": all_sum(value.clone()), "mean": all_mean(value.clone())}
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


def test_batch_norm_of_two_processes_is_that_of_one_on_the_whole_batch(two_processes):
    parts, _ = two_processes
    whole = run(norm(), slice(0, 4))
    for name in ("y0", "y1", "gradient0", "gradient1", "evaluated"):
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), whole[name], atol=1e-4, rtol=1e-4)


def test_running_statistics_of_two_processes_are_those_of_one(two_processes):
    parts, _ = two_processes
    whole = run(norm(), slice(0, 4))
    names = [name for name in whole if name.startswith("state ")]
    assert len(names) == 5
    for name in names:
        for part in parts:
            torch.testing.assert_close(part[name], whole[name])


def test_gradients_of_batch_norms_parameters_add_up_to_those_of_one_process(two_processes):
    parts, _ = two_processes
    whole = run(norm(), slice(0, 4))
    for name in ("0.weight", "0.bias"):
        torch.testing.assert_close(parts[0][name] + parts[1][name], whole[name], atol=1e-2, rtol=1e-4)


def test_sum_and_mean_are_over_all_processes(two_processes):
    for part in two_processes[0]:
        assert part["sum"].tolist() == [3, 30]
        assert part["mean"].tolist() == [1.5, 15]


def test_user_gets_the_message_of_a_failed_process_alone(two_processes):
    assert str(two_processes[1]) == "mask.png: it is broken.\nMend it."


def test_one_process_needs_no_group(tmp_path):
    found = []
    launch(lambda word, device: found.append((word, device, number_of_processes())), ("a",), 1, "cpu")
    assert found == [("a", torch.device("cpu"), 1)]


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


def test_batch_norm_of_one_process_stays_as_it_is():
    module = norm()
    assert type(synchronise_batch_norm(module, torch.device("cpu"))[0]) is nn.BatchNorm2d


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
