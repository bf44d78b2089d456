"""What a run needs on GPUs that are not there."""

import pytest

from trainer.planning.memory import Memory
from utils.config_file import load_config

VOC = "configs/voc_1over32_usrn.json"  # batches of 8


def on_gpus(fixed, activations, *settings):
    return Memory(fixed * 1e9, activations * 1e9, "").on_gpus(load_config(VOC, settings))


@pytest.mark.parametrize(
    ("activations", "expected"),
    [
        (2, "8 GB to 80 GB: fits in float32"),
        (20, "8 GB: fits in bf16 with trainer.accumulate 4; 12 GB: fits in bf16 with trainer.accumulate 2; 16 GB: fits "
             "in bf16; 24 GB to 80 GB: fits in float32"),
        (500, "8 GB to 24 GB: too small for these crops and batches; 80 GB: fits in bf16 with trainer.accumulate 4"),
    ],
)  # fmt: skip
def test_each_size_of_gpu_has_the_settings_that_it_needs(activations, expected):
    assert on_gpus(2, activations) == f"estimated without one: {expected}"


def test_batches_are_not_cut_into_parts_that_do_not_divide_them():
    batches = ["train_supervised.batch_size=6", "train_unsupervised.batch_size=2"]
    assert on_gpus(2, 20, *batches).startswith("estimated without one: 8 GB to 12 GB: too small")


def test_activations_counted_in_16_bit_are_not_halved_again():
    assert "8 GB: fits in bf16 with trainer.accumulate 2" in on_gpus(2, 8, "trainer.precision=bf16")
