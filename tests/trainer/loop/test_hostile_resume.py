"""Checkpoints whose account of their run is damaged, or of another network."""

import copy

import pytest
import torch

from dataloaders import open_data
from tests.conftest import write_tiny_configs
from tests.trainer.runs import CPU
from trainer.loop.resume import Origin
from trainer.loop.trainer import Trainer
from utils.config_file import load_config
from utils.errors import UsageError


@pytest.fixture(scope="module")
def run(demo_set, tmp_path_factory):
    """A run's configuration and data, and its checkpoint."""
    folder = tmp_path_factory.mktemp("hostile")
    config = load_config(write_tiny_configs(demo_set, folder, num_workers=0)[0], ["trainer.tensorboardX=false"])
    data = open_data(config)
    Trainer(config, data, CPU)._save()
    return config, data, torch.load(config.run_dir / "checkpoint.pth", weights_only=True)


def go_on(run, path, place, value):
    """A trainer that goes on from the checkpoint in which ``value`` stands at ``place`` of what it says of its run."""
    config, data, checkpoint = run
    checkpoint = copy.deepcopy(checkpoint)
    section = checkpoint["resume"]
    for name in place[:-1]:
        section = section[name]
    if value is None:
        del section[place[-1]]
    else:
        section[place[-1]] = value
    torch.save(checkpoint, path)
    return Trainer(config, data, CPU, Origin.read(path))


def test_checkpoint_as_it_is_goes_on(run, tmp_path):
    assert go_on(run, tmp_path / "good.pth", ("iteration",), 1).iteration == 1


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("iteration",), "3"),
        (("epochs_done",), -1),
        (("finished",), 0),
        (("not_improved",), None),
        (("optimizer",), []),
        (("scaler",), None),
        (("confusion",), [1]),
        (("running",), {"Ls": 1.0}),
        (("config",), "no JSON"),
        (("made_from",), 3),
    ],
)
def test_entry_of_another_type_is_named(run, tmp_path, place, value):
    with pytest.raises(UsageError, match=rf"bad\.pth: is no checkpoint to go on from \(key {place[-1]}"):
        go_on(run, tmp_path / "bad.pth", place, value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("confusion",), torch.zeros(3, 3, dtype=torch.int64)),
        (("labels",), torch.zeros(3)),
        (("optimizer", "state"), None),
        (("optimizer", "state"), {0: 1}),
        (("optimizer", "state"), {0: {"momentum_buffer": torch.zeros(3)}}),
        (("optimizer", "state"), {10**6: {"momentum_buffer": torch.zeros(3)}}),
        (("epochs_done",), 10**6),
        (("iteration",), 10**6),
    ],
)
def test_entry_of_another_network_or_schedule_is_refused(run, tmp_path, place, value):
    with pytest.raises(UsageError, match=r"bad\.pth: (what it says|says|is at iteration)"):
        go_on(run, tmp_path / "bad.pth", place, value)
