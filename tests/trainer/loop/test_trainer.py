import json

import pytest
import torch

from dataloaders import open_data
from trainer.loop.resume import Origin
from trainer.loop.trainer import Trainer
from trainer.methods.baseline import BaselineStep
from utils.checkpoint import load_checkpoint
from utils.config_file import load_config
from utils.errors import UsageError
from utils.logger import log
from utils.stop import Stopped

CPU = torch.device("cpu")


def train(config_file, *overrides, resume=None, stop_after=None):
    """Train a run; with ``stop_after``, until a request to stop comes in that iteration. Weights and run folder."""
    config = load_config(config_file, list(overrides))
    trainer = Trainer(config, open_data(config), CPU, Origin.read(resume) if resume else None)
    if stop_after is not None:
        iterate = trainer._iterate

        def iterate_and_ask(batch):
            trainer.stop.asked = trainer.iteration + 1 == stop_after
            return iterate(batch)

        trainer._iterate = iterate_and_ask
        with pytest.raises(Stopped):
            trainer.train()
    else:
        trainer.train()
    return trainer.network.state_dict(), config.run_dir


def history(run_dir):
    return [json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()]


def test_training_lowers_the_loss_and_writes_both_checkpoints(tiny_configs):
    _, run_dir = train(tiny_configs[0], "trainer.epochs=15", "optimizer.args.lr=0.05")
    losses = [entry["Ls"] for entry in history(run_dir) if "Ls" in entry]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    best, last = (load_checkpoint(run_dir / name) for name in ("best_model.pth", "checkpoint.pth"))
    scores = [entry["val_mean_iou"] for entry in history(run_dir) if "val_mean_iou" in entry]
    assert best["monitor_best"] == round(100 * max(scores), 2)
    assert last["resume"]["best"] == max(scores)
    assert last["epoch"] == 30  # 15 epochs, times floor(16 images / 8 labelled)


@pytest.mark.parametrize(
    ("stop_after", "optimizer"),
    [(3, "SGD"), (4, "SGD"), (3, "AdamW")],  # in the middle and at the end of an epoch, before its validation
)
def test_run_that_goes_on_ends_with_the_weights_of_an_unbroken_one(tiny_configs, stop_after, optimizer):
    kind = f"optimizer.type={optimizer}"
    whole, whole_dir = train(tiny_configs[0], "experim_name=whole", kind)
    _, broken_dir = train(tiny_configs[0], "experim_name=broken", kind, stop_after=stop_after)
    resumed, _ = train(tiny_configs[0], "experim_name=broken", kind, resume=broken_dir / "checkpoint.pth")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert history(whole_dir) == history(broken_dir)


def test_run_whose_first_step_was_skipped_goes_on_as_an_unbroken_one(tiny_configs, monkeypatch):
    forward = BaselineStep.forward

    def spoil_the_first(self, **batch):
        out = forward(self, **batch)
        first = trainers[-1].iteration == 0
        return out | {"total": out["total"] * torch.nan} if first else out

    trainers = []
    begin = Trainer.__init__
    monkeypatch.setattr(Trainer, "__init__", lambda self, *args: (trainers.append(self), begin(self, *args))[1])
    monkeypatch.setattr(BaselineStep, "forward", spoil_the_first)
    whole, _ = train(tiny_configs[0], "experim_name=whole")
    _, broken_dir = train(tiny_configs[0], "experim_name=broken", stop_after=1)
    resumed, _ = train(tiny_configs[0], "experim_name=broken", resume=broken_dir / "checkpoint.pth")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_run_that_goes_on_by_force_takes_the_new_optimiser_settings_and_the_old_momentum(tiny_configs):
    _, run_dir = train(tiny_configs[0], stop_after=3)
    path = run_dir / "checkpoint.pth"
    settings = ["optimizer.args.lr=0.002", "optimizer.args.momentum=0.5", "optimizer.args.weight_decay=0.03"]
    config = load_config(tiny_configs[0], settings)
    trainer = Trainer(config, open_data(config), CPU, Origin.read(path))
    groups = trainer.optimizer.param_groups
    assert [group["initial_lr"] for group in groups] == pytest.approx([0.002, 0.0002])
    assert all((group["momentum"], group["weight_decay"]) == (0.5, 0.03) for group in groups)
    saved = torch.load(path, weights_only=True)["resume"]["optimizer"]["state"]
    momentum = trainer.optimizer.state[groups[0]["params"][0]]["momentum_buffer"]
    assert torch.equal(momentum, saved[0]["momentum_buffer"])
    trainer._iterate(next(iter(trainer.batches)))
    assert groups[0]["lr"] == pytest.approx(0.002 * (1 - 3 / 8) ** 0.9)


def test_run_of_another_optimiser_does_not_go_on_even_by_force(tiny_configs):
    _, run_dir = train(tiny_configs[0], stop_after=3)
    config = load_config(tiny_configs[0], ["optimizer.type=AdamW"])
    with pytest.raises(UsageError, match="it is another optimiser's"):
        Trainer(config, open_data(config), CPU, Origin.read(run_dir / "checkpoint.pth"))


def test_validation_that_is_broken_off_is_done_again(tiny_configs):
    whole, whole_dir = train(tiny_configs[0], "experim_name=whole")
    config = load_config(tiny_configs[0], ["experim_name=broken"])
    trainer = Trainer(config, open_data(config), CPU)
    loader = trainer.validation

    def asked_in_the_second_epoch():
        for batch in loader:
            yield batch
            trainer.stop.asked = trainer.epochs_done == 1

    validate = trainer._validate

    def validate_anew(*arguments):
        trainer.validation = asked_in_the_second_epoch()
        validate(*arguments)

    trainer._validate = validate_anew
    with pytest.raises(Stopped):
        trainer.train()
    assert [entry["epoch"] for entry in history(config.run_dir) if "epoch" in entry] == [1]
    resumed, _ = train(tiny_configs[0], "experim_name=broken", resume=config.run_dir / "checkpoint.pth")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert history(whole_dir) == history(config.run_dir)


def test_another_seed_gives_another_run(tiny_configs):
    first, _ = train(tiny_configs[0])
    second, _ = train(tiny_configs[0], "random_seed=7", "experim_name=other")
    assert not torch.equal(first["classifier.1.weight"], second["classifier.1.weight"])


def test_learning_rates_fall_by_the_poly_rule_and_the_backbone_has_a_tenth(tiny_configs):
    config = load_config(tiny_configs[0])
    trainer = Trainer(config, open_data(config), CPU)
    batch = next(iter(trainer.batches))
    trainer.iteration = 4  # of 8
    trainer._iterate(batch)
    heads, backbone = (group["lr"] for group in trainer.optimizer.param_groups)
    assert heads == pytest.approx(0.01 * 0.5**0.9)
    assert backbone == pytest.approx(heads / 10)


def test_early_stop_ends_the_run_after_more_validations_than_so_many_without_a_better_one(tiny_configs):
    # A learning rate of almost nothing: the first validation stays the best.
    _, run_dir = train(tiny_configs[0], "trainer.epochs=20", "trainer.early_stop=1", "optimizer.args.lr=1e-30")
    validations = [entry for entry in history(run_dir) if "val_mean_iou" in entry]
    best = max(range(len(validations)), key=lambda index: validations[index]["val_mean_iou"])
    assert len(validations) == best + 1 + 3  # early_stop is multiplied by floor(16 / 8)


def test_best_of_a_checkpoint_from_before_is_a_share(tiny_configs):
    _, run_dir = train(tiny_configs[0], stop_after=3)
    path, config = run_dir / "checkpoint.pth", load_config(tiny_configs[0])
    checkpoint = torch.load(path, weights_only=True)
    best = checkpoint["resume"].pop("best")
    checkpoint["monitor_best"] = best
    torch.save(checkpoint, path)
    assert Trainer(config, open_data(config), CPU, Origin.read(path)).best == best
    assert 0 < best < 1


def test_weights_without_a_position_start_a_new_run(tiny_configs, caplog, monkeypatch):
    trained, run_dir = train(tiny_configs[0])
    config = load_config(tiny_configs[0], ["experim_name=other"])
    with caplog.at_level("INFO", logger=log.name):
        trainer = Trainer(config, open_data(config), CPU, Origin.read(run_dir / "best_model.pth"))
    assert trainer.iteration == 0
    assert set(trainer.network.state_dict()) == set(trained)
    assert "holds weights without optimiser and position; a new run starts from its weights" in caplog.text


def test_position_of_another_schedule_is_refused(tiny_configs):
    _, run_dir = train(tiny_configs[0], stop_after=3)
    path, config = run_dir / "checkpoint.pth", load_config(tiny_configs[0])
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["resume"]["iteration"] = 5  # one epoch is done, and an epoch has two
    torch.save(checkpoint, path)
    with pytest.raises(UsageError, match="is at iteration 5 after 1 epochs; an epoch of this run has 2 iterations"):
        Trainer(config, open_data(config), CPU, Origin.read(path))


def test_unsupervised_losses_wait_for_their_epoch(tiny_configs):
    from trainer import stages

    baseline = load_config(tiny_configs[0])
    for stage in (stages.train, stages.save_feature, stages.clustering):
        stage(baseline, stages.Options(), CPU)
    settings = ("model.epoch_start_unsup=2", "model.pos_thresh_value=0", "trainer.log_per_iter=1")
    _, run_dir = train(tiny_configs[1], *settings)
    with_unsupervised = [entry["iteration"] for entry in history(run_dir) if "Lu_reg" in entry]
    assert with_unsupervised == [5, 6, 7, 8]  # two iterations an epoch; epochs 0 and 1 are supervised
    shares = {entry["iteration"]: entry["pseudo_label_shares"] for entry in history(run_dir)
              if "pseudo_label_shares" in entry}  # fmt: skip
    assert {iteration: sum(values) for iteration, values in shares.items()} == pytest.approx({6: 1, 8: 1})
    assert all(sum(entry["label_shares"]) == pytest.approx(1) for entry in history(run_dir) if "epoch" in entry)
