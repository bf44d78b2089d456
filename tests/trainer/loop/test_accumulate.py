"""``trainer.accumulate``: a batch in parts."""

import re

import pytest
import torch

from dataloaders import open_data
from models.layers import Dropout
from tests.conftest import refused
from tests.trainer.loop.test_trainer import train
from tests.trainer.runs import history, run_apart, train_apart
from trainer.loop.trainer import Trainer
from trainer.methods.baseline import BaselineStep
from trainer.planning.plan import plan_run
from utils import distributed
from utils.config_file import load_config
from utils.errors import UsageError
from utils.logger import log

CPU = torch.device("cpu")
IN_PARTS = "trainer.accumulate=2"


def trainer_of(config_file, *overrides):
    config = load_config(config_file, list(overrides))
    trainer = Trainer(config, open_data(config), CPU)
    trainer.step.train()
    return trainer


def without_dropout(network):
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def test_step_is_that_of_the_mean_gradient_of_the_parts_and_batch_norm_sees_each(tiny_configs):
    trainer, by_hand = trainer_of(tiny_configs[0], IN_PARTS), trainer_of(tiny_configs[0])
    for one in (trainer, by_hand):
        without_dropout(one.network)
    batch = next(iter(trainer.batches))
    out = trainer._iterate(batch)
    halves = [by_hand.step(**{name: values[part] for name, values in batch.items()})
              for part in (slice(0, 2), slice(2, 4))]  # fmt: skip
    (sum(half["total"] for half in halves) / 2).backward()
    for ours, theirs in zip(trainer.network.parameters(), by_hand.network.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-8)
    assert out["total"].item() == pytest.approx(sum(half["total"].item() for half in halves) / 2)
    assert torch.equal(out["prediction"], torch.cat([half["prediction"] for half in halves]))
    assert trainer.network.encoder.backbone.bn1.num_batches_tracked == 2
    for ours, theirs in zip(trainer.network.buffers(), by_hand.network.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_run_in_parts_that_goes_on_ends_as_an_unbroken_one(tiny_configs):
    options = ("name=FixMatch", "model.pos_thresh_value=0.2", IN_PARTS, "trainer.epochs=1")
    whole, whole_dir = train(tiny_configs[0], *options, "experim_name=whole")
    _, broken_dir = train(tiny_configs[0], *options, "experim_name=broken", stop_after=3)
    resumed, _ = train(tiny_configs[0], *options, "experim_name=broken", resume=broken_dir / "checkpoint.pth")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert history(whole_dir) == history(broken_dir)


def test_step_with_one_part_that_is_not_finite_is_skipped_as_a_whole(tiny_configs, monkeypatch):
    trainer = trainer_of(tiny_configs[0], IN_PARTS)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items() if value.is_floating_point()}
    forward, calls = BaselineStep.forward, []

    def spoil_the_first(self, **batch):
        calls.append(len(batch["x"]))
        out = forward(self, **batch)
        return out | {"total": out["total"] * (torch.nan if len(calls) == 1 else 1)}

    monkeypatch.setattr(BaselineStep, "forward", spoil_the_first)
    trainer._iterate(next(iter(trainer.batches)))
    assert calls == [2, 2]
    after = trainer.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not any(trainer.tally.confusion.counts.flatten())


def test_cutmix_stays_within_a_part(tiny_configs):
    options = ("name=FixMatch", "model.cutmix=1", "model.strong_view=usrn")
    whole, parts = (next(iter(trainer_of(tiny_configs[0], *options, *more).batches)) for more in ((), (IN_PARTS,)))
    plain = next(iter(trainer_of(tiny_configs[0], *options[:1], "model.cutmix=0", options[2]).batches))
    assert torch.equal(whole["u_box"], parts["u_box"])
    top, left, bottom, right = (parts["u_box"][0, 0] * 32).int().tolist()
    box = (..., slice(top, bottom), slice(left, right))
    assert torch.equal(whole["u_strong"][0][box], plain["u_strong"][3][box])
    assert torch.equal(parts["u_strong"][0][box], plain["u_strong"][1][box])


@pytest.mark.parametrize("parts", [3, 4])
def test_parts_that_do_not_divide_the_batch_or_have_one_image_are_refused(tiny_configs, parts):
    with pytest.raises(UsageError, match=rf"trainer\.accumulate {parts} must divide train_supervised\.batch_size 4"):
        load_config(tiny_configs[0], [f"trainer.accumulate={parts}"])


def one_iteration(config_file, folder, order, device):
    """An iteration without dropout on a batch in this order of its images; its gradients go to a file."""
    Dropout.forward = lambda self, x: x
    config = load_config(config_file, [IN_PARTS])
    trainer = Trainer(config, open_data(config), device)
    trainer.step.train()
    batch = next(iter(trainer.batches))
    trainer._iterate({name: values[order] for name, values in batch.items()})
    gradients = {name: parameter.grad for name, parameter in trainer.network.named_parameters()}
    torch.save(gradients, folder / f"{distributed.world_size()}_{distributed.rank()}.pth")


def test_two_processes_have_the_gradients_of_one_whose_parts_are_the_same_images(tiny_configs, tmp_path):
    assert run_apart(one_iteration, tiny_configs[0], tmp_path, [0, 2, 1, 3]) == []
    assert run_apart(one_iteration, tiny_configs[0], tmp_path, [0, 1], processes=2) == []
    one, *two = (torch.load(tmp_path / f"{name}.pth", weights_only=True) for name in ("1_0", "2_0", "2_1"))
    for name, gradient in one.items():
        assert torch.equal(two[0][name], two[1][name])
        torch.testing.assert_close(two[0][name], gradient, rtol=1e-3, atol=1e-5)


def test_share_of_a_process_that_the_parts_do_not_divide_is_refused(tiny_configs):
    odd = ("train_supervised.batch_size=6", "trainer.accumulate=3")
    assert "does not divide the 2 images" in train_apart(tiny_configs[0], *odd, processes=3)[0]


def test_plan_counts_the_activations_of_a_part(tiny_configs, caplog, monkeypatch):
    caplog.set_level("INFO", logger=log.name)
    kept = []
    for parts in (1, 2):
        config = load_config(tiny_configs[0], [f"trainer.accumulate={parts}", "train_supervised.batch_size=512"])
        plan_run(config, open_data(config), CPU, timed=False)
        kept.append(int(re.findall(r"(\d+) MB kept for the backward pass", caplog.text)[-1]))
    assert kept[1] == pytest.approx(kept[0] / 2, abs=1)


def test_refusal_is_one_message(tiny_configs, capsys):
    assert "trainer.accumulate 4" in refused(capsys, "--config", tiny_configs[0], "--set", "trainer.accumulate=4")
