import logging

import pytest
import torch
from torch import nn

from dataloaders import open_data
from models.execution import autocast
from tests.trainer.runs import history
from trainer.loop.guard import StepGuard
from trainer.loop.trainer import Trainer
from utils.checkpoint import load_checkpoint
from utils.config_file import load_config
from utils.errors import NotFiniteError, UsageError
from utils.logger import log

CPU = torch.device("cpu")
IDS = {"labelled": ["cat", "dog"]}


@pytest.fixture
def logged(caplog, monkeypatch):
    """What is logged: ``logged.messages``."""
    monkeypatch.setattr(log, "level", logging.INFO)
    return caplog


def network_and_guard(max_bad_steps=3, kind="SGD"):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    own = {"momentum": 0.9} if kind == "SGD" else {"weight_decay": 0.1}
    optimizer = getattr(torch.optim, kind)(network.parameters(), lr=0.1, fused=True, **own)
    return network, StepGuard(network, optimizer, max_bad_steps)


def iterate(network, guard, x, iteration=0, spoil=1.0):
    guard.before_forward()
    network.zero_grad()
    loss = (network(x) ** 2 * torch.arange(3.0).view(1, 3, 1, 1)).mean() * spoil
    loss.backward()
    return guard.step(loss, iteration, IDS)


def state(network, guard):
    moments = [value for entry in guard.optimizer.state.values() for value in entry.values()]
    buffers = [value for value in network.buffers() if value.is_floating_point()]
    return [value.clone() for value in (*network.parameters(), *buffers, *moments)]


def test_good_step_is_the_optimisers_own():
    network, guard = network_and_guard()
    plain, plain_guard = network_and_guard()
    x = torch.randn(4, 2, 5, 5)
    for _ in range(3):
        assert iterate(network, guard, x)
        plain.zero_grad()
        (plain(x) ** 2 * torch.arange(3.0).view(1, 3, 1, 1)).mean().backward()
        plain_guard.optimizer.step()
    assert all(map(torch.equal, state(network, guard), state(plain, plain_guard)))


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
@pytest.mark.parametrize("bad", ["image", "loss", "gradient"])
def test_bad_step_changes_neither_weights_nor_moments_nor_statistics(bad, kind):
    network, guard = network_and_guard(kind=kind)
    x = torch.randn(4, 2, 5, 5)
    iterate(network, guard, x)
    before = state(network, guard)
    if bad == "image":
        good = iterate(network, guard, x.index_fill(0, torch.tensor([1]), torch.nan))
    elif bad == "loss":
        good = iterate(network, guard, x, spoil=torch.inf)
    else:
        network[0].weight.register_hook(lambda gradient: gradient * torch.inf)
        good = iterate(network, guard, x)
    assert not good
    assert all(map(torch.equal, before, state(network, guard)))


@pytest.fixture
def uninitialised_memory_is_nan():
    torch.use_deterministic_algorithms(True, warn_only=True)  # it fills what torch.empty gives
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("bad", [{0}, {1}, {0, 1, 2}, {0, 2}])
@pytest.mark.parametrize(("precision", "kind"), [("fp32", "SGD"), ("bf16", "SGD"), ("fp16", "SGD"), ("fp32", "AdamW")])
def test_skipped_steps_leave_no_trace_wherever_they_are(precision, kind, bad, uninitialised_memory_is_nan):
    batches = torch.randn(5, 4, 2, 5, 5)
    states = []
    for steps in (range(5), [step for step in range(5) if step not in bad]):
        network, guard = network_and_guard(max_bad_steps=9, kind=kind)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=precision == "fp16")
        for step in steps:
            guard.before_forward()
            network.zero_grad()
            with autocast(precision, CPU):
                loss = network(batches[step]).float().square().mean() * (torch.inf if step in bad else 1)
            scaler.scale(loss).backward()
            scaler.unscale_(guard.optimizer)
            guard.step(loss, step, IDS)
            scaler.update()
        states.append(state(network, guard))
    # Each skipped step halves the scale at which fp16 rounds its gradients.
    torch.testing.assert_close(*states, rtol=0, atol=1e-4 if precision == "fp16" else 0)


def test_images_of_bad_steps_are_logged_and_so_many_in_a_row_raise(logged):
    network, guard = network_and_guard(max_bad_steps=2)
    x = torch.randn(4, 2, 5, 5)
    for iteration, spoil in enumerate((torch.nan, 1.0, torch.nan)):
        iterate(network, guard, x, iteration, spoil)
    guard.report()
    assert [message.partition(":")[0] for message in logged.messages] == ["iteration 0", "iteration 2"]
    assert "images: labelled cat, dog" in logged.messages[0]
    iterate(network, guard, x, 3, torch.nan)
    with pytest.raises(UsageError, match="2 steps in a row, the last of which had the images labelled cat, dog"):
        guard.report()


def spoil_iterations(trainer, bad):
    forward = trainer.step.forward

    def spoiled(**batch):
        out = forward(**batch)
        return out | {"total": out["total"] * torch.nan} if trainer.iteration in bad else out

    trainer.step.forward = spoiled


@pytest.mark.parametrize(("bad", "precision"), [(3, "fp32"), (0, "fp32"), (0, "bf16"), (0, "fp16")])
def test_run_goes_on_after_a_bad_step(tiny_configs, logged, bad, precision, uninitialised_memory_is_nan):
    config = load_config(tiny_configs[0], ["trainer.log_per_iter=1", f"trainer.precision={precision}"])
    trainer = Trainer(config, open_data(config), CPU)
    spoil_iterations(trainer, {bad})
    trainer.train()
    assert any(message.startswith(f"iteration {bad}: loss or gradient is not finite") for message in logged.messages)
    stepped = [entry["iteration"] for entry in history(config.run_dir) if "total" in entry]
    assert stepped == [iteration for iteration in range(1, 9) if iteration != bad + 1]
    assert all(value.isfinite().all() for value in trainer.network.state_dict().values())


def test_diverged_network_becomes_no_best_model(tiny_configs):
    config = load_config(tiny_configs[0], ["optimizer.args.lr=1e38"])
    trainer = Trainer(config, open_data(config), CPU)
    with pytest.raises(NotFiniteError, match=r"tiny_baseline: the network of iteration 2: its logits are not finite"):
        trainer.train()
    assert not list(config.run_dir.glob("*.pth"))


def test_run_that_only_fails_ends_with_the_weights_of_before(tiny_configs, logged):
    config = load_config(tiny_configs[0], ["trainer.max_bad_steps=2", "trainer.save_period=100"])
    trainer = Trainer(config, open_data(config), CPU)
    spoil_iterations(trainer, {2, 3, 4, 5, 6, 7})
    weights = []
    iterate = trainer._iterate

    def iterate_and_keep(batch):
        out = iterate(batch)
        weights.append({name: value.clone() for name, value in trainer.network.state_dict().items()})
        return out

    trainer._iterate = iterate_and_keep
    with pytest.raises(UsageError, match="2 steps in a row"):
        trainer.train()
    saved = load_checkpoint(config.run_dir / "checkpoint.pth")["state_dict"]
    named = [name for name, value in saved.items() if value.is_floating_point()]
    assert all(torch.equal(saved[name], weights[1][name]) for name in named)
