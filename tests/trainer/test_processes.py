"""One process and many give the same."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from dataloaders import open_data
from models import build_network
from tests.conftest import ROOT
from tests.trainer.runs import history, run_apart
from trainer.evaluation.evaluate import evaluate
from trainer.loop.assembly import distribute
from trainer.methods.usrn import USRNStep
from trainer.prediction.whole_image import WholeImages, whole_image_loader
from utils.config_file import load_config
from utils.distributed import rank, world_size


def network(*, n_classes=4, n_subclasses=9) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network("USRN", n_classes, n_subclasses, layers=14, base_width=4, out_dim=8)


def total_batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = {name: torch.randn(6, 3, 40, 40, generator=generator) for name in ("x", "u_weak", "u_strong")}
    y = torch.randint(0, 4, (6, 40, 40), generator=generator)
    y[0, :30] = -1  # the processes have unlike numbers of labelled pixels
    return images | {"y": y, "s": torch.where(y < 0, y, 2 * y)}


def save_gradients(folder, device) -> None:
    """Of one step on this process's share of the batch, batch norm frozen and dropout off; rank 0 writes."""
    step = USRNStep(network(), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 3]), pos_thresh_value=0.2).eval()
    share = slice(rank() * 6 // world_size(), (rank() + 1) * 6 // world_size())
    module = DistributedDataParallel(step) if world_size() > 1 else step
    out = module(**{name: value[share] for name, value in total_batch().items()})
    out["total"].backward()
    if rank() == 0:
        torch.save([parameter.grad for parameter in step.parameters()], folder / f"gradients{world_size()}.pt")


def save_gradients_of_the_same_batch(folder, device) -> None:
    """Of two passes one after another, in which nothing changes."""
    step = USRNStep(network(), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 3]), pos_thresh_value=0.2).eval()
    module = distribute(step, device)
    batch = {name: value[2 * rank() : 2 * rank() + 2] for name, value in total_batch().items()}
    found = []
    for _ in range(2):
        module(**batch)["total"].backward()
        found.append([parameter.grad for parameter in step.parameters()])
        module.zero_grad()
    torch.save(found, folder / f"passes{rank()}.pt")


def save_scores(config_file, folder, device) -> None:
    config = load_config(config_file)
    data = open_data(config)
    model = network(n_classes=len(data.classes))
    loader = whole_image_loader(config, data, data.validation, device)
    result = evaluate(WholeImages(model, device), loader, len(data.classes), device)
    torch.save((result.intersection, result.union, result.labelled), folder / f"scores{world_size()}_{rank()}.pt")


def test_gradients_of_two_processes_are_those_of_one_on_the_total_batch(tmp_path):
    for processes in (1, 2):
        assert run_apart(save_gradients, tmp_path, processes=processes) == []
    one, two = (torch.load(tmp_path / f"gradients{processes}.pt") for processes in (1, 2))
    assert sum(gradient.abs().sum() for gradient in one if gradient is not None) > 0
    for left, right in zip(one, two, strict=True):
        torch.testing.assert_close(left, right, atol=1e-6, rtol=1e-5)


def test_gradients_of_three_processes_are_the_same_in_their_first_pass_to_the_last_bit(tmp_path):
    assert run_apart(save_gradients_of_the_same_batch, tmp_path, processes=3) == []
    for number in range(3):
        first, second = torch.load(tmp_path / f"passes{number}.pt")
        assert sum(gradient.abs().sum() for gradient in first if gradient is not None) > 0
        assert all(torch.equal(left, right) for left, right in zip(first, second, strict=True) if left is not None)


def test_validation_gives_the_same_counts_on_any_number_of_processes(tiny_configs, tmp_path):
    for processes in (1, 2, 3):  # of five images
        assert run_apart(save_scores, tiny_configs[0], tmp_path, processes=processes) == []
    expected = torch.load(tmp_path / "scores1_0.pt")
    for processes in (2, 3):
        for number in range(processes):
            found = torch.load(tmp_path / f"scores{processes}_{number}.pt")
            assert torch.equal(found[0], expected[0])
            assert torch.equal(found[1], expected[1])
            assert found[2] == expected[2]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def two_machines():
    """Two network namespaces with a wire between them, and the address of the first."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("making network namespaces needs root and the command ip")
    names = [f"usrn{os.getpid()}{side}" for side in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", names[0][-11:], "netns", names[0], "type", "veth", "peer", names[1][-11:], "netns", names[1])
        for number, name in enumerate(names, 1):
            ip("-n", name, "address", "add", f"10.99.0.{number}/24", "dev", name[-11:])
            for device in ("lo", name[-11:]):
                ip("-n", name, "link", "set", device, "up")
        yield names, "10.99.0.1"
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.mark.slow
def test_two_machines_train_together(two_machines, tiny_configs, tmp_path):
    names, address = two_machines
    settings = ["--set", "trainer.epochs=4", "--device", "cpu"]
    started = []
    for number, name in enumerate(names):
        command = ["ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run", "--nnodes", "2",
                   "--nproc_per_node", "1", "--node_rank", str(number), "--master_addr", address, "--master_port",
                   "29511", "main.py", "--config", str(tiny_configs[0]), *settings]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": name[-11:]}
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True))
    for process in started:
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
    assert history(tmp_path / "saved" / "tiny_baseline")[-1]["iteration"] == 16
