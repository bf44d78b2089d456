"""`trainer.deterministic`: what a GPU has no deterministic kernel for does not occur; elsewhere nothing changes."""

import os

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from dataloaders.reading import IGNORE
from models import Baseline, execution
from tests.models.test_execution import PARENTS, make_batch, make_network
from trainer.methods.baseline import BaselineStep, cross_entropy_of_list
from trainer.methods.fixmatch import FixMatchStep
from trainer.methods.supervised import SupervisedLoss
from trainer.methods.unimatch import UniMatchStep
from trainer.methods.usrn import USRNStep

META = torch.device("meta")
RAISING = {
    "nll_loss2d_forward", "nll_loss2d_backward", "upsample_bilinear2d_backward", "kthvalue", "cumsum", "median",
    "_adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward", "reflection_pad2d_backward", "histc", "put_",
    "upsample_bicubic2d_backward", "grid_sampler_2d_backward",
}  # fmt: skip
"""ATen operations that raise on CUDA under ``torch.use_deterministic_algorithms`` (its documentation, PyTorch 2.12)."""


@pytest.fixture
def deterministic(monkeypatch):
    """As a training that asks for it sets the process up; as it was afterwards."""
    monkeypatch.setenv(execution.CUBLAS_WORKSPACE, ":0:0")
    execution.be_repeatable(0, deterministic=True)
    yield
    execution.be_repeatable(0, deterministic=False)


class Operations(TorchDispatchMode):
    """Names of the operations that run within."""

    def __init__(self):
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.names.add(operation._schema.name.removeprefix("aten::"))
        return operation(*args, **(kwargs or {}))


def operations_of(method: type[torch.nn.Module]) -> set[str]:
    """Of a step forward and back on the device "meta", which takes the ways that are not the CPU's."""
    batch, loss = make_batch(META), SupervisedLoss(torch.ones(3), (0.7, 5))
    if method is USRNStep:
        step = USRNStep(make_network(14), PARENTS, supervised_loss=loss)
    else:
        step = method(Baseline(3, layers=14, out_dim=8, base_width=4).train(), supervised_loss=loss)
        batch = {name: batch[name] for name in (("x", "y") if method is BaselineStep else ("x", "y", "u_weak"))}
    if isinstance(step, FixMatchStep):  # whose second view shares the first one's labels
        batch |= {"u_strong": torch.cat([batch["u_weak"]] * 2)}
        batch["label"] = lambda u_weak: (both.repeat(2, 1, 1) for both in step.label(u_weak))
    step.to(META)
    with Operations() as found:
        step(**batch)["total"].backward()
    return found.names


@pytest.mark.parametrize("method", [BaselineStep, USRNStep, FixMatchStep, UniMatchStep])
def test_no_method_takes_an_operation_that_raises(deterministic, method):
    assert operations_of(method) & RAISING == set()


def test_without_the_setting_the_usual_operations_are_taken():
    assert {"nll_loss2d_forward", "upsample_bilinear2d_backward"} <= operations_of(BaselineStep)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_cross_entropy_of_a_list_of_pixels_is_that_of_the_images(reduction):
    torch.manual_seed(0)
    images, listed = (torch.randn(2, 4, 5, 6).requires_grad_() for _ in range(2))
    listed.data.copy_(images)
    target, weight = torch.randint(-1, 4, (2, 5, 6)), torch.rand(4)
    options = {"ignore_index": IGNORE, "reduction": reduction}
    expected = F.cross_entropy(images, target, weight, **options)
    actual = cross_entropy_of_list(listed, target, weight, **options)
    torch.testing.assert_close(actual, expected)
    (expected**2).sum().backward()
    (actual**2).sum().backward()
    torch.testing.assert_close(listed.grad, images.grad)


def test_cublas_has_a_fixed_workspace_and_convolutions_are_not_tuned(deterministic):
    assert os.environ[execution.CUBLAS_WORKSPACE] == ":4096:8"
    with execution.tuned_convolutions():
        assert not torch.backends.cudnn.benchmark
