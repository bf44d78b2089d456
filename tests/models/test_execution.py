"""Fast ways of running a step against plain ones, and what they must not do: wait for the host, grow, fail."""

import gc
import json
import math
from typing import get_args

import numpy as np
import pytest
import torch

from benchmarks.original import losses, plain_network
from dataloaders import open_data
from dataloaders.photometry import apply_photometry, draw_photometry, normalise, to_unit
from models import USRN, execution
from models.deeplab import upsample
from trainer.loop.board import Board
from trainer.loop.resume import Origin
from trainer.loop.trainer import Trainer
from trainer.methods.usrn import USRNStep
from utils.config_file import load_config
from utils.config_sections import ModelConfig
from utils.metrics import ConfusionMatrix

CPU = torch.device("cpu")
PARENTS = torch.tensor([0, 0, 1, 2])


def make_batch(device=CPU, unlabelled=(2, 64)):
    """Two labelled crops of 64; ``unlabelled`` is the others' number and size."""
    generator = torch.Generator(device=CPU).manual_seed(0)
    x = torch.randn(2, 3, 64, 64, generator=generator).to(device)
    count, size = unlabelled
    weak, strong = torch.randn(2, count, 3, size, size, generator=generator).to(device)
    s = torch.randint(-1, 4, (2, 64, 64), generator=generator)
    y = torch.where(s < 0, s, PARENTS[s])
    return {"x": x, "y": y.to(device), "s": s.to(device), "u_weak": weak, "u_strong": strong}


def make_network(layers=50):
    torch.manual_seed(0)
    network = USRN(3, 4, layers=layers, out_dim=8, base_width=4).train()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return network


@pytest.mark.parametrize("unlabelled", [(2, 64), (3, 64), (2, 96)])  # number and size of the crops
def test_step_gives_the_losses_and_gradients_of_one_written_plainly(monkeypatch, unlabelled):
    monkeypatch.setattr("benchmarks.original.THRESHOLD", 0.4)
    batch = make_batch(unlabelled=unlabelled)
    batch = {name: values.double() if values.is_floating_point() else values for name, values in batch.items()}
    plain, fast = plain_network(make_network().double()), make_network().double()
    expected, _ = losses(plain, PARENTS, **batch)
    sum(expected.values()).backward()
    actual = USRNStep(fast, PARENTS, pos_thresh_value=0.4)(**batch)
    actual["total"].backward()
    assert expected["Lu_reg"] > 0
    for name, value in expected.items():
        assert actual[name].item() == pytest.approx(value.item(), rel=1e-6)  # losses are float32
    for (name, theirs), ours in zip(plain.named_parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6, msg=name)
    assert all(torch.allclose(ours, theirs) for ours, theirs in zip(fast.buffers(), plain.buffers(), strict=True))


def test_step_colour_and_confusion_matrix_read_nothing_back_from_the_device():
    # Tensors on the device "meta" have no values: whoever asks for one fails.
    meta = torch.device("meta")
    rng = np.random.default_rng(0)
    photometry = torch.stack([torch.from_numpy(draw_photometry(rng, strong=True)) for _ in range(8)])
    images = torch.empty(8, 3, 64, 64, dtype=torch.uint8, device=meta)
    normalise(apply_photometry(to_unit(images), photometry))
    out = USRNStep(make_network(), PARENTS).to(meta)(**make_batch(meta))
    out["total"].backward()
    ConfusionMatrix(3, meta).update(out["prediction"], make_batch(meta)["y"])


def with_statistics(network):
    """The network in evaluation mode, with running statistics that no two norms share."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.8, 1.2)
    return network.eval()


@pytest.mark.parametrize("layers", get_args(ModelConfig.model_fields["layers"].annotation))
def test_network_that_only_evaluates_gives_the_same_logits_and_has_no_batch_norm(layers):
    network, images = with_statistics(make_network(layers)).double(), make_batch()["x"].double()
    fast = execution.evaluation_copy(network)
    torch.testing.assert_close(fast(images), network(images), rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fast.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())


class NormsLast(torch.nn.Module):
    """A trunk that breaks the rule of ``evaluation_copy``: its norm is not defined right after its convolution."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = torch.nn.Conv2d(3, 3, 1), torch.nn.Conv2d(3, 3, 1)
        self.norm1 = torch.nn.BatchNorm2d(3)

    def forward(self, images):
        return self.conv2(self.norm1(self.conv1(images)).relu())


def test_trunk_that_defines_a_norm_elsewhere_does_not_pass_for_the_same():
    network, images = with_statistics(NormsLast()), make_batch()["x"]
    assert (execution.evaluation_copy(network)(images) - network(images)).abs().max() > 1e-2


def failing_backend(graph, inputs):
    raise RuntimeError("no compiler here")


def test_step_that_cannot_be_compiled_runs_plainly_with_one_warning(monkeypatch):
    warnings = []
    monkeypatch.setattr(execution, "compile_graph", failing_backend)
    monkeypatch.setattr(execution.log, "warning", warnings.append)
    step, plain = (USRNStep(make_network(layers=14), PARENTS) for _ in range(2))
    execution.compile_forward(step)
    for _ in range(2):
        assert step(**make_batch())["total"].item() == pytest.approx(plain(**make_batch())["total"].item(), rel=1e-6)
    assert list(step.state_dict()) == list(plain.state_dict())
    assert len(warnings) == 1
    assert "trainer.compile" in warnings[0]
    assert "no compiler here" in warnings[0]


def test_errors_of_a_compiled_step_itself_are_not_hidden():
    step = torch.nn.Module()
    step.forward = lambda: 1 / 0
    execution.compile_forward(step)
    with pytest.raises(ZeroDivisionError):
        step()


def test_auto_is_float32_without_a_gpu_and_bf16_on_one_that_has_it(monkeypatch):
    assert execution.choose_precision("auto", CPU) == "fp32"
    for there, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda there=there, **_: there)
        assert execution.choose_precision("auto", torch.device("cuda")) == expected


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_run_in_half_precision_keeps_the_scale_of_its_losses(tiny_configs, precision):
    config = load_config(tiny_configs[0], [f"trainer.precision={precision}"])
    trainer = Trainer(config, open_data(config), CPU)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=512.0, enabled=precision == "fp16")
    trainer.train()
    history = [json.loads(line) for line in (config.run_dir / "history.jsonl").read_text().splitlines()]
    assert all(math.isfinite(entry["total"]) for entry in history if "total" in entry)
    resumed = Trainer(config, open_data(config), CPU, Origin.read(config.run_dir / "checkpoint.pth"))
    assert resumed.scaler.get_scale() == (512.0 if precision == "fp16" else 1.0)


def test_iterations_leave_nothing_behind(tiny_configs, monkeypatch):
    counts = []

    def count_tensors(*_):
        gc.collect()
        counts.append(sum(issubclass(type(value), torch.Tensor) for value in gc.get_objects()))

    monkeypatch.setattr(Board, "losses", count_tensors)
    settings = ["trainer.epochs=20", "trainer.log_per_iter=20", "trainer.val=false", "trainer.save_period=1000"]
    config = load_config(tiny_configs[0], settings)
    Trainer(config, open_data(config), CPU).train()
    assert len(counts) == 4
    assert len(set(counts[1:])) == 1


def test_convolutions_are_tuned_within_a_step_alone():
    assert not torch.backends.cudnn.benchmark  # whole images come in many sizes
    seen = []

    def fail():
        with execution.tuned_convolutions():
            seen.append(torch.backends.cudnn.benchmark)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [True]
    assert not torch.backends.cudnn.benchmark


def test_upsampling_keeps_the_type_under_autocast():
    x = torch.rand(1, 2, 3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert upsample(x.bfloat16(), (5, 5)).dtype == torch.bfloat16
        assert upsample(x, (5, 5)).dtype == torch.float32
