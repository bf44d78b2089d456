import pytest

from trainer.planning.proposal import MACHINES, as_configuration, propose
from utils.config import Config
from utils.schedule import Schedule

KEYS = {"name": "USRN", "experim_name": "x", "dataset": "custom", "data_dir": "d"}


def proposed(machine="cuda", sizes=((360, 480),), labelled=62, unlabelled=390) -> Config:
    settings = as_configuration(propose(sizes, labelled, unlabelled, MACHINES[machine]))
    return Config.model_validate({**KEYS, **settings})


@pytest.mark.parametrize(
    ("size", "crop", "batch"), [((375, 500), 320, 8), ((1024, 2048), 720, 2), ((48, 32), 32, 8), ((1, 9), 32, 8)]
)
def test_crop_grows_with_the_images_and_batch_shrinks_with_the_crop(size, crop, batch):
    stream = proposed(sizes=[size] * 3).train_supervised
    assert (stream.base_size, stream.crop_size, stream.batch_size) == (max(size), crop, batch)


def test_base_size_is_the_median_long_side():
    assert proposed(sizes=[(100, 200), (300, 100), (900, 10)]).train_supervised.base_size == 300


@pytest.mark.parametrize(("machine", "iterations"), [("cuda", 20_000), ("cpu", 2_000)])
@pytest.mark.parametrize(("labelled", "unlabelled"), [(3, 5), (62, 390), (500, 100), (1000, 20_000)])
def test_length_of_a_run_is_about_the_machines_or_one_pass_through_the_pool(machine, iterations, labelled, unlabelled):
    config = proposed(machine, labelled=labelled, unlabelled=unlabelled)
    schedule = Schedule.from_config(config)
    one_pass = (labelled + unlabelled) / config.train_supervised.batch_size
    assert max(iterations, one_pass) / 2 < schedule.iterations < 2 * max(iterations, one_pass)
    assert 20 <= schedule.epochs / config.trainer.val_per_epochs < 41 or schedule.epochs < 20


def test_batch_is_not_above_the_labelled_images():
    assert proposed(labelled=3).train_supervised.batch_size == 3
    assert proposed(labelled=2).train_supervised.batch_size == 2


def test_without_a_gpu_a_small_network_starts_without_unlabelled_images():
    config = proposed("cpu")
    assert (config.model.layers, config.pretrained) == (14, False)
    assert config.model.epoch_start_unsup == Schedule.from_config(config).epochs // 2
    published = proposed("cuda")
    assert (published.model.layers, published.pretrained, published.model.epoch_start_unsup) == (50, True, 0)


def test_images_of_one_moderate_size_are_validated_together():
    assert proposed(sizes=[(360, 480)] * 3).val_loader.batch_size == 4
    assert proposed(sizes=[(360, 480), (361, 480)]).val_loader.batch_size == 1
    assert proposed(sizes=[(2000, 3000)] * 3).val_loader.batch_size == 1
