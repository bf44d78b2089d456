import pytest

from utils.config import Config
from utils.schedule import Schedule, poly_factor


def schedule_of(*, n_labelled, pool, n_gpu, batch_size, epochs=1, early_stop=1):
    return Schedule.from_config(
        Config(
            name="USRN",
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
    assert schedule == Schedule(iterations_per_epoch=82, epochs=80 * 31, early_stop=100 * 31)
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
    assert schedule == Schedule(iterations_per_epoch=1, epochs=5, early_stop=4)


def test_learning_rate_falls_from_the_whole_to_nothing_by_the_power_of_nine_tenths():
    assert poly_factor(0, 10) == 1
    assert poly_factor(5, 10) == pytest.approx(0.5**0.9)
    assert poly_factor(10, 10) == 0
