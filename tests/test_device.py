"""What must hold on a GPU: `sh tests/run.sh --cuda`. USRN_TEST_DEVICE=cpu tries the same on the processor."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dataloaders import open_data
from models import execution
from tests.models.test_execution import PARENTS, make_batch, make_network, with_statistics
from tests.trainer.runs import prepare_subclasses, weights
from trainer.loop.resume import Origin
from trainer.loop.trainer import Trainer
from trainer.methods.usrn import USRNStep
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


def test_step_gives_the_processor_s_losses_and_gradients():
    steps = [USRNStep(make_network(), PARENTS, pos_thresh_value=0.4).to(device) for device in ("cpu", DEVICE)]
    outs = [step(**make_batch(device)) for step, device in zip(steps, ("cpu", DEVICE), strict=True)]
    for out in outs:
        out["total"].backward()
    for name in ("Ls", "Ls_sub", "Lu_reg", "Lu_sub"):
        assert outs[1][name].item() == pytest.approx(outs[0][name].item(), rel=1e-4)
    for (name, expected), actual in zip(steps[0].named_parameters(), steps[1].parameters(), strict=True):
        scale = expected.grad.abs().max().item()
        torch.testing.assert_close(actual.grad.cpu(), expected.grad, rtol=1e-4, atol=1e-4 * scale, msg=name)


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


@pytest.mark.parametrize("kind", [0, 1], ids=["baseline", "usrn"])
def test_iterations_do_not_wait_for_the_host(tiny_configs, kind):
    prepare_subclasses(tiny_configs[0])
    config = load_config(tiny_configs[kind])
    trainer = Trainer(config, open_data(config), DEVICE)
    trainer.step.train()
    batches = list(trainer.batches)[:3]
    trainer._iterate(batches[0])  # the first one allocates
    if ON_GPU:
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[1:]:
            trainer._iterate(batch)
    finally:
        if ON_GPU:
            torch.cuda.set_sync_debug_mode("default")


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
    trainer = Trainer(config, open_data(config), DEVICE)
    trainer.train()
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
