"""What must hold on a GPU: `sh tests/run.sh --cuda`. USRN_TEST_DEVICE=cpu tries the same on the processor."""

import json
import math
import os
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import models.batch_norm
from dataloaders import open_data
from dataloaders.photometry import apply_photometry, draw_photometry
from models import execution
from tests.models.test_batch_norm import IMAGES_OF_RANK_0, norm, run
from tests.models.test_execution import PARENTS, make_batch, make_network, with_statistics
from tests.trainer.runs import prepare_subclasses, weights
from trainer.loop.resume import Origin
from trainer.loop.trainer import Trainer
from trainer.methods.usrn import USRNStep
from utils import distributed
from utils.config_file import load_config
from utils.stop import Stopped

pytestmark = pytest.mark.cuda
DEVICE = torch.device(os.environ.get("USRN_TEST_DEVICE", "cuda"))
ON_GPU = DEVICE.type == "cuda"
ROOT = Path(__file__).parents[1]
os.environ.setdefault(execution.CUBLAS_WORKSPACE, execution.DETERMINISTIC_WORKSPACES[0])  # read once a process


@pytest.fixture(autouse=True)
def _plain_float32(monkeypatch):
    """No TF32, by which a GPU's float32 would differ from the processor's."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    yield
    torch.use_deterministic_algorithms(False)


def steps_and_losses(dtype):
    """The step on the processor and on the device, with what each gives for the same batch."""
    steps = [USRNStep(make_network().to(dtype), PARENTS, pos_thresh_value=0.4).to(at) for at in ("cpu", DEVICE)]
    outs = []
    for step, device in zip(steps, ("cpu", DEVICE), strict=True):
        batch = make_batch(device)
        outs.append(step(**{name: x.to(dtype) if x.is_floating_point() else x for name, x in batch.items()}))
        outs[-1]["total"].backward()
    return steps, outs


def test_step_gives_the_processor_s_losses():
    _, (expected, actual) = steps_and_losses(torch.float32)
    assert expected["Lu_reg"] > 0
    for name in ("Ls", "Ls_sub", "Lu_reg", "Lu_sub"):
        assert actual[name].item() == pytest.approx(expected[name].item(), rel=1e-4)


def test_step_gives_the_processor_s_gradients():
    # In float64: a rounding that turns one activation off moves the gradients of 50 layers by more than 1e-4.
    (cpu, device), _ = steps_and_losses(torch.float64)
    for (name, expected), actual in zip(cpu.named_parameters(), device.parameters(), strict=True):
        scale = expected.grad.abs().max().item()
        torch.testing.assert_close(actual.grad.cpu(), expected.grad, rtol=1e-4, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_training_in_each_precision_is_finite_to_its_end(tiny_configs, precision):
    prepare_subclasses(tiny_configs[0])
    config = load_config(tiny_configs[1], [f"trainer.precision={precision}"])
    trainer = Trainer(config, open_data(config), DEVICE)
    if precision == "fp16":
        trainer.scaler = torch.amp.GradScaler(DEVICE.type, init_scale=2.0**40)  # which overflows: steps are skipped
    trainer.train()
    history = [json.loads(line) for line in (config.run_dir / "history.jsonl").read_text().splitlines()]
    assert trainer.finished
    assert all(math.isfinite(entry["Ls"]) for entry in history if "Ls" in entry)
    if precision == "fp16":
        assert trainer.scaler.get_scale() < 2.0**40


@pytest.mark.parametrize("unimatch", [False, True])
def test_strong_views_are_the_processor_s(unimatch):
    rng = np.random.default_rng(0)
    drawn = torch.from_numpy(np.stack([draw_photometry(rng, strong=True, unimatch=unimatch) for _ in range(16)]))
    images = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    actual = apply_photometry(images.to(DEVICE), drawn).cpu()
    torch.testing.assert_close(actual, apply_photometry(images, drawn), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [0, 1], ids=["baseline", "usrn"])
@pytest.mark.parametrize("group", [False, True], ids=["alone", "over processes"])
def test_iterations_do_not_wait_for_the_host(tiny_configs, kind, group, monkeypatch):
    prepare_subclasses(tiny_configs[0])
    config = load_config(tiny_configs[kind])
    with process_group() if group else nullcontext():
        with monkeypatch.context() as patch:  # one process's batch norms exchange sums as those of many
            patch.setattr(models.batch_norm, "world_size", lambda: 2)
            trainer = Trainer(config, open_data(config), DEVICE)
        trainer.step.train()
        batches = list(trainer.batches)[:5]
        for batch in batches[:3]:  # the first ones allocate, and PyTorch arranges the gradients that it exchanges
            trainer._iterate(batch)
        if ON_GPU:
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
        try:
            for batch in batches[3:]:
                trainer._iterate(batch)
        finally:
            if ON_GPU:
                torch.cuda.set_sync_debug_mode("default")


@contextmanager
def process_group():
    """This process as the only one of a run over many."""
    store, device = dist.HashStore(), torch.device("cuda", 0) if ON_GPU else None
    dist.init_process_group("nccl" if ON_GPU else "gloo", store=store, rank=0, world_size=1, device_id=device)
    before, distributed._host_group = distributed._host_group, dist.new_group(backend="gloo")
    try:
        yield
    finally:
        distributed._host_group = before
        dist.destroy_process_group()


def test_batch_norm_over_two_processes_is_that_of_one_on_the_whole_batch(tmp_path):
    # NCCL wants a GPU for each process; gloo, by way of the hosts, does not.
    mp.start_processes(norm_in_process, (tmp_path,), 2, start_method="spawn")
    expected = run(norm().to(DEVICE), slice(None))
    for name in ("operations", "kernels") if ON_GPU else ("operations",):
        parts = [torch.load(tmp_path / f"{name}_{number}.pt", weights_only=True) for number in (0, 1)]
        for key, value in expected.items():
            if key.startswith(("y", "gradient", "evaluated")):
                actual = torch.cat([part[key] for part in parts])
            elif key.startswith("state"):
                actual = parts[0][key]
            else:  # a parameter's gradient, which DistributedDataParallel puts together
                actual = parts[0][key] + parts[1][key]
            scale = value.abs().max().item()
            torch.testing.assert_close(actual, value.cpu(), rtol=1e-4, atol=1e-5 * scale, msg=f"{name}: {key}")


def norm_in_process(number, folder):
    """What a batch norm of two processes finds by each of its ways, in one of them."""
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=number, world_size=2)
    part = slice(0, IMAGES_OF_RANK_0) if number == 0 else slice(IMAGES_OF_RANK_0, 4)
    for name in ("operations", "kernels") if ON_GPU else ("operations",):
        module = models.batch_norm.synchronise_batch_norm(norm().to(DEVICE))
        module[0].by_kernels = module[0].by_operations if name == "operations" else module[0].by_kernels
        found = {key: value.cpu() for key, value in run(module, part).items()}
        torch.save(found, folder / f"{name}_{number}.pt")
    dist.destroy_process_group()


def test_loss_that_is_not_finite_moves_nothing(tiny_configs):
    config = load_config(tiny_configs[0])
    trainer = Trainer(config, open_data(config), DEVICE)
    trainer.step.train()
    before = {name: values.clone() for name, values in trainer.network.state_dict().items()}
    batch = next(iter(trainer.batches))
    trainer._iterate(batch | {"x": torch.full_like(batch["x"], float("nan"))})
    for name, values in trainer.network.state_dict().items():
        if values.is_floating_point():
            assert values.equal(before[name]), name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_evaluation_copy_gives_the_processor_s_logits(precision):
    network, images = with_statistics(make_network()), make_batch()["x"]
    expected = network(images)
    copy = execution.evaluation_copy(network).to(DEVICE)
    with torch.no_grad(), execution.autocast(precision, DEVICE):
        actual = copy(images.to(DEVICE)).cpu()
    assert actual.dtype == torch.float32
    tolerance = {"fp32": 1e-3, "bf16": 0.05}[precision]
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


def test_compiled_run_is_the_plain_one(tiny_configs, monkeypatch):
    warnings: list[str] = []
    monkeypatch.setattr(execution.log, "warning", warnings.append)
    runs = [
        losses_of_baseline(tiny_configs, f"experim_name=run{on}", f"trainer.compile={on}") for on in ("true", "false")
    ]
    assert not [text for text in warnings if "trainer.compile" in text]
    compiled, plain = (np.array(losses) for losses in runs)
    assert np.allclose(compiled, plain, rtol=1e-2)


def losses_of_baseline(tiny_configs, *settings):
    config = load_config(tiny_configs[0], ["trainer.precision=fp32", *settings])
    Trainer(config, open_data(config), DEVICE).train()
    lines = (config.run_dir / "history.jsonl").read_text().splitlines()
    return [entry["Ls"] for entry in map(json.loads, lines) if "Ls" in entry]


def stop_and_go_on(config, iteration):
    """A run that is stopped after an iteration and goes on to its end."""
    trainer = Trainer(config, open_data(config), DEVICE)
    iterate = trainer._iterate

    def iterate_and_stop(batch):
        trainer.stop.asked = trainer.iteration == iteration
        return iterate(batch)

    trainer._iterate = iterate_and_stop
    with pytest.raises(Stopped):
        trainer.train()
    Trainer(config, open_data(config), DEVICE, Origin.read(config.run_dir / "checkpoint.pth")).train()


@pytest.mark.parametrize("kind", [0, 1], ids=["baseline", "usrn"])
def test_run_that_was_stopped_goes_on_to_the_same_end(tiny_configs, kind):
    prepare_subclasses(tiny_configs[0])
    found = {}
    for name, deterministic in (("whole", "true"), ("parts", "true"), ("free", "false")):
        settings = [f"trainer.deterministic={deterministic}", f"experim_name={name}", "trainer.precision=fp32"]
        settings += [f"label_subcls={load_config(tiny_configs[0]).subclass_dir}"] * kind
        config = load_config(tiny_configs[kind], settings)
        if name == "whole":
            Trainer(config, open_data(config), DEVICE).train()
        else:
            stop_and_go_on(config, 2)
        found[name] = weights(config.run_dir / "checkpoint.pth")
    for key, values in found["whole"].items():
        assert found["parts"][key].equal(values), key
        if ON_GPU:  # where the setting is what makes it hold
            torch.testing.assert_close(found["free"][key].float(), values.float(), rtol=1e-2, atol=1e-3, msg=key)
        else:
            assert found["free"][key].equal(values), key


def test_one_rank_of_torchrun_trains_and_exports(tiny_configs):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1", "main.py"]
    command = [*torchrun, "--config", str(tiny_configs[0]), "--device", DEVICE.type]
    for more in ([], ["--test"], ["--export", "onnx"]):
        done = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
