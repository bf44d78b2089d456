"""Teacher and CutMix around a method's step."""

import pytest
import torch

from dataloaders.cutmix import cut_and_mix
from dataloaders.reading import IGNORE
from models import USRN, Baseline
from trainer.methods.baseline import BaselineStep
from trainer.methods.shared import SharedStep
from trainer.methods.unimatch import UniMatchStep, complementary_dropout
from trainer.methods.usrn import USRNStep

PARENTS = torch.tensor([0, 0, 1, 2])
LEFT_HALF = torch.tensor([0.0, 0.0, 1.0, 0.5])
NO_BOX = torch.zeros(4)


def make_batch(views=1, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    x, weak = torch.randn(2, 2, 3, 32, 32, generator=generator)
    strong = torch.randn(2 * views, 3, 32, 32, generator=generator)
    batch = {"x": x, "y": torch.randint(0, 3, (2, 32, 32), generator=generator), "u_weak": weak, "u_strong": strong}
    return {name: values.to(device) for name, values in batch.items()}


def usrn_batch(device="cpu"):
    batch = make_batch(device=device)
    return batch | {"s": batch["y"].clone()}


def make_network(kind=Baseline, *sizes):
    torch.manual_seed(0)
    network = kind(3, *sizes, layers=14, out_dim=8, base_width=4)
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return network


def usrn_step():
    return USRNStep(make_network(USRN, 4), PARENTS, pos_thresh_value=0.4)


def test_usrn_under_neutral_settings_is_usrn():
    plain, shared = usrn_step(), SharedStep(usrn_step(), teacher=False)
    expected = plain(**usrn_batch())
    found = shared(u_box=NO_BOX.expand(2, 1, 4), u_padding=torch.zeros(2, 32, 32, dtype=torch.bool), **usrn_batch())
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_teacher_labels_both_branches_of_usrn():
    step = SharedStep(usrn_step(), teacher=True)
    torch.nn.init.zeros_(step.teacher.network.classifier[1].weight)
    torch.nn.init.zeros_(step.teacher.network.classifier_SubCls[1].weight)
    step.teacher.network.classifier[1].bias.data = torch.tensor([0.0, 9.0, 0.0])
    step.teacher.network.classifier_SubCls[1].bias.data = torch.tensor([0.0, 0.0, 9.0, 0.0])
    out = step.train()(**usrn_batch())
    assert (out["pseudo_label"] == 1).all()
    assert (out["pseudo_sub"] == 2).all()


def test_teacher_stays_in_evaluation_mode_and_has_no_gradients():
    step = SharedStep(usrn_step(), teacher=True).train()
    out = step(**usrn_batch())
    out["total"].backward()
    teacher = step.teacher.network
    assert step.step.network.training
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert teacher.encoder.backbone.bn1.num_batches_tracked == 0
    assert step.step.network.encoder.backbone.bn1.num_batches_tracked == 2  # labelled and strong, not weak


def test_cutmix_mixes_labels_masks_and_ignored_pixels_of_both_branches_alike():
    batch, boxes = usrn_batch(), torch.stack([LEFT_HALF, NO_BOX]).unsqueeze(1)
    padding = torch.zeros(2, 32, 32, dtype=torch.bool)
    padding[1, :8] = True
    plain = SharedStep(usrn_step(), teacher=False)(u_padding=padding, **batch)
    mixed = SharedStep(usrn_step(), teacher=False)(u_box=boxes, u_padding=padding, **batch)
    for name in ("p_cls", "pseudo_sub", "left_alone", "pseudo_label"):
        assert torch.equal(mixed[name], cut_and_mix(plain[name], boxes))
        assert torch.equal(mixed[name][0, ..., :2], plain[name][1, ..., :2])
        assert torch.equal(mixed[name][0, ..., 2:], plain[name][0, ..., 2:])
    assert (plain["pseudo_label"][1, 0] == IGNORE).all()
    assert (mixed["pseudo_label"][0, 0, :2] == IGNORE).all()
    assert (mixed["p_cls"][0, :, 0, :2] == 0).all()


def test_step_that_was_skipped_does_not_move_the_teacher():
    step = SharedStep(BaselineStep(make_network()), teacher=True)
    before = [value.clone() for value in step.teacher.network.parameters()]
    for value in step.step.network.parameters():
        value.data += 1
    step.teacher.follow(step.step.network, 0, torch.tensor(False))
    assert all(map(torch.equal, before, step.teacher.network.parameters()))
    step.teacher.follow(step.step.network, 0, torch.tensor(True))
    assert all(map(torch.equal, step.step.network.parameters(), step.teacher.network.parameters()))


@pytest.mark.parametrize("pairs", [1, 5, 8])
def test_dropped_channels_of_a_pair_are_complements_and_half_of_the_pairs_keep_all(pairs):
    torch.manual_seed(0)
    for factors, count in zip(complementary_dropout(pairs, [64, 300], torch.device("cpu")), (64, 300), strict=True):
        first, second = factors.view(pairs, 2, count).unbind(1)
        assert torch.equal(first + second, torch.full((pairs, count), 2.0))
        whole = (first == 1).all(1)
        assert whole.sum() == pairs // 2
        assert set(first[~whole].unique().tolist()) == {0.0, 2.0}
        assert first[~whole].mean() == pytest.approx(1, abs=0.3)


def test_unimatch_drops_channels_of_the_strong_views_alone():
    step = UniMatchStep(make_network(), pos_thresh_value=0.3)
    batch = make_batch(views=2)
    torch.manual_seed(1)
    first = SharedStep(step, teacher=True)(u_box=NO_BOX.expand(2, 2, 4), **batch)
    torch.manual_seed(2)
    second = SharedStep(step, teacher=True)(u_box=NO_BOX.expand(2, 2, 4), **batch)
    assert first["Ls"] == second["Ls"]
    assert first["Lu_reg"] != second["Lu_reg"]
    assert first["pseudo_label"].shape == (4, 32, 32)
    assert torch.equal(first["pseudo_label"][0::2], first["pseudo_label"][1::2])  # one label, two views


def test_steps_and_teacher_read_nothing_back_from_the_device():
    # Tensors on the device "meta" have no values: whoever asks for one fails.
    meta = torch.device("meta")
    more = {"u_padding": torch.zeros(2, 32, 32, dtype=torch.bool, device=meta)}
    for step, views, batch in (
        (usrn_step(), 1, usrn_batch(meta)), (UniMatchStep(make_network()), 2, make_batch(2, meta)),
    ):  # fmt: skip
        shared = SharedStep(step, teacher=True).to(meta)
        shared(u_box=torch.zeros(2, views, 4, device=meta), **more, **batch)["total"].backward()
        shared.teacher.follow(shared.step.network, 7, torch.tensor(True, device=meta))
