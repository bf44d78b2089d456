"""The entropy gate and the two unlabelled losses against numbers of the original implementation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.methods.usrn import consistency_loss, entropy_gate

DATA = Path(__file__).parents[1] / "data" / "parity"
THRESHOLD = 0.75


@pytest.fixture(scope="module")
def given() -> dict[str, Tensor]:
    with np.load(DATA / "usrn_unsupervised_losses.npz") as arrays:
        given = {name: torch.from_numpy(arrays[name]) for name in arrays}
    sizes = given["split_list"]
    return given | {"class_of_subclass": torch.arange(len(sizes)).repeat_interleave(sizes)}


def gated_loss(given: dict[str, Tensor], logits_strong: Tensor, mode: bool | str) -> Tensor:
    """Lu_reg with the gate in this mode."""
    p_cls, p_sub = given["logits_weak"].softmax(1), given["sub_logits_weak"].softmax(1)
    p_gated, _ = entropy_gate(p_cls, p_sub, given["class_of_subclass"], mode)
    confidence, pseudo_label = p_gated.max(1)
    return consistency_loss(logits_strong, pseudo_label, confidence > THRESHOLD)


def test_gate_gives_the_originals_loss_and_gradient(given):
    logits = given["logits_strong"].clone().requires_grad_()
    loss = gated_loss(given, logits, True)
    loss.backward()
    assert loss.item() == pytest.approx(given["Lu_reg"].item(), rel=0, abs=1e-5)
    expected = given["grad_logits_strong"]
    assert (logits.grad - expected).norm() < 1e-5 * expected.norm()
    torch.testing.assert_close(logits.grad, expected, atol=1e-8, rtol=1e-5)


def test_subclass_loss_and_gradient_are_the_originals(given):
    logits = given["sub_logits_strong"].clone().requires_grad_()
    confidence, pseudo_label = given["sub_logits_weak"].softmax(1).max(1)
    loss = consistency_loss(logits, pseudo_label, confidence > THRESHOLD)
    loss.backward()
    assert loss.item() == pytest.approx(given["Lu_sub"].item(), rel=0, abs=1e-5)
    expected = given["grad_sub_logits_strong"]
    assert (logits.grad - expected).norm() < 1e-5 * expected.norm()
    torch.testing.assert_close(logits.grad, expected, atol=1e-8, rtol=1e-5)


@pytest.mark.parametrize(("mode", "expected"), [(False, 0.1534), ("always", 0.0949)])
def test_without_gate_and_with_it_always_closed_the_loss_is_another(given, mode, expected):
    assert gated_loss(given, given["logits_strong"], mode).item() == pytest.approx(expected, rel=0, abs=5e-5)
