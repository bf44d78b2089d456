"""What a run needs on GPUs that are not there."""

import re

import pytest

from trainer.planning import memory
from trainer.planning.memory import Memory
from utils.config_file import load_config

VOC = "configs/voc_1over32_usrn.json"  # batches of 8
SIXTEEN_BIT = "16 bit: bf16, which auto takes where the GPU has it, else trainer.precision fp16"


def on_gpus(fixed, activations, *settings):
    return Memory(fixed * 1e9, activations * 1e9, "").on_gpus(load_config(VOC, settings))


@pytest.mark.parametrize(
    ("activations", "expected"),
    [
        (2, "8 GB to 80 GB: fits"),
        (20, "8 GB: too small for these crops and batches; 12 GB: fits, trainer.accumulate 4; 16 GB: fits in 16 bit, "
             f"trainer.accumulate 2; 24 GB: fits in 16 bit; 80 GB: fits; {SIXTEEN_BIT}"),
        (300, "8 GB to 24 GB: too small for these crops and batches; 80 GB: fits in 16 bit, trainer.accumulate 4; "
              f"{SIXTEEN_BIT}"),
    ],
)  # fmt: skip
def test_each_size_of_gpu_has_the_settings_that_it_needs(activations, expected):
    assert on_gpus(2, activations) == f"estimated without one: {expected}"


def test_batches_are_not_cut_into_parts_that_do_not_divide_them():
    batches = ["train_supervised.batch_size=6", "train_unsupervised.batch_size=2"]
    assert on_gpus(2, 20, *batches).startswith("estimated without one: 8 GB to 16 GB: too small")


@pytest.mark.parametrize(
    ("precision", "on_12_gb"),
    [("auto", "fits in 16 bit"), ("fp32", "fits with trainer.precision bf16"), ("bf16", "fits"), ("fp16", "fits")],
)
def test_what_a_run_has_to_set_follows_from_its_precision(precision, on_12_gb):
    text = on_gpus(2, 8, f"trainer.precision={precision}")
    assert re.search(rf"\b12 GB(?: to \d+ GB)?: {on_12_gb}(?:;|$)", text)


def test_room_is_left_for_what_a_step_takes_beyond_what_it_keeps():
    activations = (8e9 - memory.CUDA_ITSELF) / 1e9 - 2  # with nothing left of 8 GB
    assert on_gpus(2, activations).startswith("estimated without one: 8 GB: fits in 16 bit; 12 GB to 80 GB: fits;")
