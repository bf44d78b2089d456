"""On a GPU, iterations that are recorded against plain ones: part of `sh tests/run.sh --cuda`."""

import pytest

from dataloaders import open_data
from tests.test_device import DEVICE, ON_GPU
from tests.trainer.runs import prepare_subclasses, weights
from trainer.loop import graph
from trainer.loop import trainer as loop
from trainer.loop.trainer import Trainer
from utils.config_file import load_config

pytestmark = pytest.mark.cuda


def train(config_file, *settings):
    """A repeatable run to its end, eight iterations on labelled images and eight on all: its trainer and weights."""
    more = ["trainer.epochs=4", "model.epoch_start_unsup=4", "trainer.deterministic=true", *settings]
    config = load_config(config_file, more)
    trainer = Trainer(config, open_data(config), DEVICE)
    trainer.train()
    return trainer, weights(config.run_dir / "checkpoint.pth")


RECORDED = {
    "plain": [],
    "fp32": ["trainer.precision=fp32"],
    "fp16": ["trainer.precision=fp16"],
    "parts": ["trainer.accumulate=2"],
    "FixMatch": ["name=FixMatch"],
    "UniMatch": ["name=UniMatch"],
    "trunk of timm": ["model.trunk=timm/mobilenetv3_small_050"],
    "teacher": ["model.teacher=ema", "model.cutmix=1"],
    "data-loading processes": ["train_supervised.num_workers=2", "train_unsupervised.num_workers=2"],
    "hard pixels": ["train_supervised.loss=ohem", "train_supervised.ohem_kept=100"],
}


@pytest.mark.parametrize("settings", RECORDED.values(), ids=RECORDED)
def test_recorded_iterations_are_the_plain_ones(tiny_configs, settings):
    prepare_subclasses(tiny_configs[0])
    settings = [*settings, f"label_subcls={load_config(tiny_configs[0]).subclass_dir}"]
    trainer, recorded = train(tiny_configs[1], *settings, "experim_name=recorded")
    _, plain = train(tiny_configs[1], *settings, "experim_name=plain", "trainer.cuda_graph=false")
    for key, values in plain.items():
        assert recorded[key].equal(values), key
    assert trainer.recorded_pass.can_record == ON_GPU


def test_pass_that_cannot_be_recorded_runs_as_it_is(tiny_configs, monkeypatch):
    warnings: list[str] = []
    monkeypatch.setattr(graph.log, "warning", warnings.append)
    _, plain = train(tiny_configs[0], "experim_name=plain", "trainer.cuda_graph=false")
    forward_and_backward = loop.forward_and_backward

    def one_that_waits(*args):
        out = forward_and_backward(*args)
        out["total"].item()
        return out

    monkeypatch.setattr(loop, "forward_and_backward", one_that_waits)
    _, waiting = train(tiny_configs[0], "experim_name=waiting")
    for key, values in plain.items():
        assert waiting[key].equal(values), key
    assert len(warnings) == ON_GPU
