from pathlib import Path

import pytest

from utils.config import Config
from utils.config_file import load_config
from utils.schedule import Schedule

CONFIGS = Path(__file__).parents[2] / "configs"


def schedule_of(*, n_labelled, pool, n_gpu, batch_size, epochs=1, early_stop=1, name="USRN"):
    return Schedule.from_config(
        Config(
            name=name,
            experim_name="run",
            dataset="voc",
            data_dir="data",
            n_labeled_examples=n_labelled,
            num_images_all=pool,
            n_gpu=n_gpu,
            train_supervised={"batch_size": batch_size},
            trainer={"epochs": epochs, "early_stop": early_stop},
        )
    )


def test_voc_1over32_usrn_is_82_iterations_times_80_times_31_epochs():
    schedule = schedule_of(n_labelled=331, pool=10582, n_gpu=2, batch_size=8, epochs=80, early_stop=100)
    assert schedule == Schedule(iterations_per_epoch=82, lr_steps_per_epoch=82, epochs=80 * 31, early_stop=100 * 31)
    assert schedule.iterations == 82 * 80 * 31


@pytest.mark.parametrize(
    ("n_labelled", "n_gpu", "batch_size", "expected"), [(331, 1, 8, 41), (93, 4, 4, 93), (93, 2, 4, 46), (10, 3, 8, 3)]
)
def test_iterations_of_an_epoch_are_labelled_images_over_the_batch_of_one_device(
    n_labelled, n_gpu, batch_size, expected
):
    schedule = schedule_of(n_labelled=n_labelled, pool=1000, n_gpu=n_gpu, batch_size=batch_size)
    assert schedule.iterations_per_epoch == expected


def test_fewer_images_than_a_batch_still_make_an_iteration_and_an_epoch():
    schedule = schedule_of(n_labelled=3, pool=2, n_gpu=1, batch_size=8, epochs=5, early_stop=4)
    assert schedule == Schedule(iterations_per_epoch=1, lr_steps_per_epoch=1, epochs=5, early_stop=4)


def test_learning_rate_falls_from_the_whole_to_nothing_by_the_power_of_nine_tenths():
    schedule = Schedule(iterations_per_epoch=5, lr_steps_per_epoch=5, epochs=2, early_stop=1)
    assert schedule.lr_factor(0) == 1
    assert schedule.lr_factor(5) == pytest.approx(0.5**0.9)
    assert schedule.lr_factor(10) == 0


# Iterations of an epoch, steps of the learning rate in one, epochs, learning rate.
BASELINES = {
    "voc_1over64": (20, 20, 80 * 64, 0.01),
    "voc_1over32": (41, 41, 80 * 31, 0.01),
    "voc_1over16": (82, 82, 80 * 15, 0.01),
    "city_1over32": (23, 46, 480 * 31, 0.02),
    "city_1over16": (46, 93, 480 * 15, 0.02),
    "city_1over8": (93, 186, 480 * 7, 0.02),
}
BASELINE_ITERATIONS = {"city_1over8": 312_480, "city_1over16": 331_200, "city_1over32": 342_240}


@pytest.mark.parametrize("run", BASELINES)
def test_published_baselines_run_once_over_their_images_and_count_the_learning_rate_by_devices(run):
    config = load_config(CONFIGS / f"{run}_baseline.json")
    schedule = Schedule.from_config(config)
    per_epoch, steps, epochs, lr = BASELINES[run]
    assert schedule.iterations == BASELINE_ITERATIONS.get(run, per_epoch * epochs) == per_epoch * epochs
    for epoch in (0, epochs // 2, epochs - 1):
        for i in (0, per_epoch // 2, per_epoch - 1):
            rate = config.optimizer.args.lr * schedule.lr_factor(epoch * per_epoch + i)
            assert rate == pytest.approx(lr * (1 - (epoch * steps + i) / (epochs * steps)) ** 0.9, rel=1e-12)


def test_baseline_of_a_devices_batch_smaller_than_its_images_has_an_iteration():
    schedule = schedule_of(n_labelled=3, pool=9, n_gpu=2, batch_size=8, epochs=5, early_stop=4, name="Baseline")
    assert schedule == Schedule(iterations_per_epoch=1, lr_steps_per_epoch=1, epochs=15, early_stop=12)
