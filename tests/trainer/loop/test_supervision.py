import numpy as np
import pytest
import torch

from dataloaders import open_data
from dataloaders.reading import IGNORE
from tests.trainer.loop.test_trainer import train
from tests.trainer.runs import history
from trainer.loop.supervision import class_weights, labelled_pixels, supervised_loss
from trainer.methods.baseline import cross_entropy
from utils.config_file import load_config
from utils.errors import UsageError


def test_inverse_weights_have_a_mean_of_one_over_the_labelled_pixels(tiny_configs):
    data = open_data(load_config(tiny_configs[0]))
    pixels = labelled_pixels(data)
    masks = np.concatenate([data.read_mask(sample.mask).ravel() for sample in data.labelled])
    assert pixels.tolist() == [(masks == index).sum() for index in range(len(data.classes))]
    assert (masks != IGNORE).sum() == pixels.sum()
    weights = class_weights("inverse", data).double().numpy()
    there = pixels > 0
    assert (weights * pixels).sum() / pixels.sum() == pytest.approx(1)
    assert (weights * pixels)[there] == pytest.approx((weights * pixels)[there][0])


@pytest.mark.parametrize("wrong", [[1.0, 2.0], [0.0] * 8])
def test_weights_that_are_not_one_a_class_or_all_nothing_are_refused(tiny_configs, wrong):
    config = load_config(tiny_configs[0], [f"train_supervised.class_weights={wrong}"])
    with pytest.raises(UsageError, match=r"train_supervised\.class_weights"):
        supervised_loss(config, open_data(config))


def test_plain_cross_entropy_is_what_nobody_asked_to_change(tiny_configs):
    config = load_config(tiny_configs[0])
    assert supervised_loss(config, open_data(config)) is cross_entropy


def test_run_trains_with_weights_on_hard_pixels_alone(tiny_configs):
    settings = ("loss=ohem", "ohem_kept=50", "class_weights=inverse")
    _, run_dir = train(tiny_configs[0], "trainer.epochs=1", *(f"train_supervised.{setting}" for setting in settings))
    _, plain = train(tiny_configs[0], "trainer.epochs=1", "experim_name=plain")
    first, other = (next(entry["Ls"] for entry in history(folder) if "Ls" in entry) for folder in (run_dir, plain))
    assert torch.tensor([first, other]).isfinite().all()
    assert first != other
