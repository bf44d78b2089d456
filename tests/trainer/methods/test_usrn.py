import pytest
import torch

from dataloaders.reading import IGNORE
from models import USRN
from trainer.methods.usrn import USRNStep, consistency_loss, entropy, entropy_gate


def probabilities(*values):
    """Probabilities of one pixel, (1, C, 1, 1)."""
    return torch.tensor(values).view(1, -1, 1, 1)


UNSURE = probabilities(0.4, 0.3, 0.3)
SURE = probabilities(0.9, 0.05, 0.05)
PARENTS = torch.tensor([0, 0, 1, 2])  # subclasses 0 and 1 are of class 0
SURE_OF_CLASS_1 = probabilities(0.01, 0.01, 0.97, 0.01)
UNSURE_SUBCLASS = probabilities(0.28, 0.24, 0.24, 0.24)


def test_entropy_is_one_for_equal_probabilities_and_zero_for_certainty():
    assert entropy(torch.full((1, 7, 2, 3), 1 / 7)) == pytest.approx(1)
    assert entropy(probabilities(0.0, 1.0, 0.0)).item() == pytest.approx(0, abs=1e-6)


def test_gate_leaves_class_prediction_alone_where_subclass_is_less_sure():
    gated, left_alone = entropy_gate(SURE, UNSURE_SUBCLASS, PARENTS)
    assert left_alone.all()
    assert torch.equal(gated, SURE)


def test_gate_keeps_only_the_parent_where_subclass_is_surer():
    gated, left_alone = entropy_gate(UNSURE, SURE_OF_CLASS_1, PARENTS)
    assert not left_alone.any()
    assert torch.equal(gated.flatten(), torch.tensor([0.0, 0.3, 0.0]))


def test_gate_decides_pixel_by_pixel():
    p_cls = torch.cat([SURE, UNSURE], dim=3)
    p_sub = torch.cat([UNSURE_SUBCLASS, SURE_OF_CLASS_1], dim=3)
    assert entropy_gate(p_cls, p_sub, PARENTS)[1].flatten().tolist() == [True, False]


def test_gate_can_be_off_or_always_closed():
    assert torch.equal(entropy_gate(UNSURE, SURE_OF_CLASS_1, PARENTS, False)[0], UNSURE)
    gated, left_alone = entropy_gate(SURE, UNSURE_SUBCLASS, PARENTS, "always")
    assert not left_alone.any()
    assert torch.equal(gated.flatten(), torch.tensor([0.9, 0.0, 0.0]))


def test_consistency_loss_is_the_mean_over_all_pixels():
    logits = torch.randn(1, 3, 2, 2)
    pseudo = torch.tensor([[[0, 1], [2, 0]]])
    mask = torch.tensor([[[True, False], [False, False]]])
    first = -logits.log_softmax(1)[0, 0, 0, 0]
    assert consistency_loss(logits, pseudo, mask).item() == pytest.approx(first.item() / 4, rel=1e-5)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    x, weak, strong = torch.randn(3, 2, 3, 32, 32, generator=generator)
    y = torch.randint(0, 3, (2, 32, 32), generator=generator)
    return {"x": x, "y": y, "s": y.clone(), "u_weak": weak, "u_strong": strong}


def make_step(**settings):
    torch.manual_seed(0)
    network = USRN(3, 4, layers=14, out_dim=8, base_width=4)
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return USRNStep(network, PARENTS, **settings)


def test_total_is_the_weighted_sum_of_the_four_losses(batch):
    step = make_step(pos_thresh_value=0.3, supervised_w=2.0, loss_weight_subcls=0.5, loss_weight_unsup=3.0)
    out = step(**batch)
    assert min(out[name] for name in ("Ls", "Ls_sub", "Lu_reg", "Lu_sub")) > 0
    expected = 2 * (out["Ls"] + 0.5 * out["Ls_sub"]) + 3 * out["Lu_reg"] + 1.5 * out["Lu_sub"]
    assert out["total"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_without_unlabelled_views_only_the_supervised_losses_count(batch):
    out = make_step()(batch["x"], batch["y"], batch["s"])
    assert "Lu_reg" not in out
    assert out["total"].item() == pytest.approx((out["Ls"] + out["Ls_sub"]).item())


def test_no_pseudo_label_above_the_threshold_means_no_unsupervised_loss(batch):
    out = make_step(pos_thresh_value=1.0)(**batch)
    assert out["Lu_reg"] == out["Lu_sub"] == out["confident"] == out["confident_sub"] == 0


def test_step_hands_out_what_became_of_the_weak_view(batch):
    out = make_step(pos_thresh_value=0.4)(**batch)
    assert out["pseudo_label"].shape == out["pseudo_sub"].shape == out["left_alone"].shape == (2, 4, 4)
    assert out["p_cls"].shape == (2, 3, 4, 4)
    used = out["pseudo_label"] != IGNORE
    assert used.float().mean() == out["confident"]
    parent = PARENTS[out["pseudo_sub"]]
    expected = torch.where(out["left_alone"], out["p_cls"].argmax(1), parent)
    assert torch.equal(out["pseudo_label"][used], expected[used])


def test_batch_norm_sees_labelled_strong_and_weak_apart(batch):
    step = make_step()
    step(**batch)
    assert step.network.encoder.backbone.bn1.num_batches_tracked == 3


def test_weak_view_gets_no_gradient_and_strong_view_does(batch):
    step = make_step(pos_thresh_value=0.0, entropy_gate=False)
    batch["u_weak"].requires_grad_()
    batch["u_strong"].requires_grad_()
    step(**batch)["total"].backward()
    assert batch["u_weak"].grad is None
    assert batch["u_strong"].grad.abs().sum() > 0


def test_ignored_pixels_do_not_count_in_the_supervised_loss(batch):
    step = make_step()
    whole = step(batch["x"], batch["y"], batch["s"])["Ls"]
    batch["y"][:, :, 16:] = IGNORE
    half = step(batch["x"], batch["y"], batch["s"])["Ls"]
    batch["y"][:] = IGNORE
    none = step(batch["x"], batch["y"], batch["s"])["Ls"]
    assert half != whole
    assert none == 0
