"""FixMatch, UniMatch V2 and OHEM against numbers of their authors' code, for given logits."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dataloaders.reading import IGNORE
from trainer.methods.fixmatch import FixMatchStep
from trainer.methods.shared import MOST_KEPT, SharedStep, Teacher
from trainer.methods.supervised import SupervisedLoss

DATA = Path(__file__).parents[1] / "data" / "parity"
EXPECTED = json.loads((DATA / "comparison_methods.json").read_text())
TOLERANCE = {"rel": 0, "abs": 1e-5}


@pytest.fixture(scope="module")
def given() -> dict[str, Tensor]:
    with np.load(DATA / "comparison_methods.npz") as arrays:
        given = {name.removeprefix("input."): torch.from_numpy(arrays[name]) for name in arrays}
    given["y"] = torch.where(given["mask_x"] == 255, IGNORE, given["mask_x"].long())
    given["box"] = torch.stack([boxes_of(given[f"cutmix_box{view}"]) for view in (1, 2)], 1)
    return given


def boxes_of(masks: Tensor) -> Tensor:
    """Masks (N, H, W) that are 1 in a box, or nowhere, as top, left, bottom, right in parts of the sides: (N, 4)."""
    boxes = torch.zeros(len(masks), 4)
    for box, mask in zip(boxes, masks.bool(), strict=True):
        for axis, place in ((1, box[0::2]), (0, box[1::2])):
            inside = mask.any(axis).nonzero().flatten() / mask.shape[1 - axis]
            if len(inside):
                place[:] = torch.tensor([inside[0], inside[-1] + 1 / mask.shape[1 - axis]])
    return boxes


class GivenLogits(nn.Module):
    """In the place of a network: what it is shown are logits."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Identity()

    def pixel_features(self, logits: Tensor) -> Tensor:
        return logits


@pytest.mark.parametrize(("method", "views"), [("fixmatch_v2", 1), ("unimatch_v2", 2)])
def test_losses_and_gradients_are_the_authors(given, method, views):
    strong = torch.stack([given[f"pred_u_s{view + 1}"] for view in range(views)], 1).flatten(0, 1).requires_grad_()
    step = SharedStep(FixMatchStep(GivenLogits(), pos_thresh_value=EXPECTED["conf_thresh"]), teacher=False)
    out = step(
        u_box=given["box"][:, :views],
        u_padding=given["ignore_mask"] == 255,
        x=given["pred_x"],
        y=given["y"],
        u_weak=given["pred_u_w"],
        u_strong=strong,
    )
    out["total"].backward()
    assert out["Ls"].item() == pytest.approx(EXPECTED[method]["loss_x"], **TOLERANCE)
    assert out["Lu_reg"].item() == pytest.approx(EXPECTED[method]["loss_u_s"], **TOLERANCE)
    assert out["total"].item() == pytest.approx(EXPECTED[method]["loss"], **TOLERANCE)
    for view in range(views):
        expected = given[f"{method}.grad_pred_u_s{view + 1}"]
        found = strong.grad[view::views]
        assert (found - expected).norm() < 1e-5 * expected.norm()
        torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-5)


def test_mask_ratio_without_cutmix_is_the_authors(given):
    step = SharedStep(FixMatchStep(GivenLogits(), pos_thresh_value=EXPECTED["conf_thresh"]), teacher=False)
    out = step(
        u_padding=given["ignore_mask"] == 255,
        x=given["pred_x"],
        y=given["y"],
        u_weak=given["pred_u_w"],
        u_strong=given["pred_u_s1"],
    )
    assert out["mask_ratio"].item() == pytest.approx(EXPECTED["unimatch_v2"]["mask_ratio"], **TOLERANCE)


@pytest.mark.parametrize(("threshold", "kept"), [(0.7, 200), (0.3, 1500), (0.7, 100_000)])
def test_loss_over_hard_pixels_and_its_gradient_are_the_authors(given, threshold, kept):
    logits = given["pred_x"].clone().requires_grad_()
    loss = SupervisedLoss(ohem=(threshold, kept))(logits, given["y"])
    loss.backward()
    name = f"ohem_{threshold}_{kept}"
    assert loss.item() == pytest.approx(EXPECTED[name], **TOLERANCE)
    if kept < given["y"].numel():  # else all pixels count, which is cross entropy
        torch.testing.assert_close(logits.grad, given[f"{name}.grad"], atol=1e-8, rtol=1e-5)


class Pair(nn.Module):
    """A step with a network of one parameter and one buffer."""

    def __init__(self):
        super().__init__()
        self.network = nn.BatchNorm1d(50)


@pytest.mark.parametrize(("iteration", "kept"), zip(EXPECTED["ema_at"], EXPECTED["ema"], strict=True))
def test_teacher_keeps_as_much_as_the_authors(iteration, kept):
    step = Pair()
    teacher = Teacher(step)
    nn.init.zeros_(step.network.weight)
    teacher.follow(step.network, iteration, torch.tensor(True))
    torch.testing.assert_close(teacher.network.weight, torch.full((50,), kept), atol=1e-6, rtol=0)


def test_teacher_is_the_moving_average_of_parameters_and_buffers_over_300_updates():
    step, generator = Pair(), torch.Generator().manual_seed(0)
    teacher = Teacher(step)
    names = ("weight", "bias", "running_mean", "running_var")
    expected = {name: getattr(step.network, name).detach().numpy().astype(float) for name in names}
    for iteration in range(300):
        kept = min(1 - 1 / (iteration + 1), MOST_KEPT)
        for name in names:
            value = getattr(step.network, name).data.normal_(generator=generator)
            expected[name] = expected[name] * kept + value.numpy() * (1 - kept)
        teacher.follow(step.network, iteration, torch.tensor(True))
    for name in names:
        np.testing.assert_allclose(getattr(teacher.network, name).detach().numpy(), expected[name], atol=1e-6, rtol=0)
