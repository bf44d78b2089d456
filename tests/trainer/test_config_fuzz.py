"""A configuration that is valid can be trained with, or one message says why not."""

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.trainer.loop.test_batches import CPU
from trainer.stages import Options, clustering, save_feature, train
from utils.config import Config
from utils.config_file import load_config
from utils.errors import UsageError

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 15))
seeds = st.integers(0, 2**32 - 1)
weights = st.floats(0, 100)


def section(**values):
    """Some of these keys."""
    return st.fixed_dictionaries({}, optional=values)


def stream():
    flags = {name: st.booleans() for name in ("augment", "scale", "flip", "rotate", "blur", "jitter")}
    return st.fixed_dictionaries(
        {"batch_size": st.integers(2, 6), "crop_size": st.integers(8, 48), "base_size": st.integers(8, 64)},
        optional=flags,
    ).map(lambda values: values | {"num_workers": 0})


keys = st.fixed_dictionaries(
    {
        "n_labeled_examples": st.integers(1, 18),
        "num_images_all": st.integers(1, 20),
        "train_supervised": stream(),
        "train_unsupervised": stream(),
        "val_loader": st.integers(1, 6).map(lambda size: {"batch_size": size, "num_workers": 0}),
    },
    optional={
        "datalist": seeds,
        "n_gpu": st.integers(1, 2),
        "ignore_index": st.integers(0, 255),
        "random_seed": seeds,
        "diff_lrs": st.booleans(),
        "classes": st.none() | st.lists(st.text(max_size=4), max_size=10),
        "data": section(on_bad_sample=st.sampled_from(["error", "skip"]), cache_gb=st.floats(0, 0.1)),
        "optimizer": section(
            type=st.sampled_from(["SGD", "AdamW"]),
            backbone_lr_factor=st.floats(0.01, 1),
            args=section(lr=st.floats(1e-9, 10), momentum=st.floats(0, 0.999), weight_decay=st.floats(0, 1)),
        ),
    },
)
model = section(
    downsample=st.booleans(),
    pos_thresh_value=st.floats(0, 1),
    entropy_gate=st.sampled_from([True, False, "always"]),
    supervised_w=weights,
    loss_weight_subcls=weights,
    loss_weight_unsup=weights,
    epoch_start_unsup=st.integers(0, 3),
)
trainer = section(
    early_stop=st.integers(1, 3),
    save_period=st.integers(1, 3),
    log_per_iter=st.integers(1, 3),
    val=st.booleans(),
    val_per_epochs=st.integers(1, 3),
    precision=st.sampled_from(["auto", "fp32", "bf16"]),
)


@pytest.fixture(scope="module")
def base(demo_set, tmp_path_factory) -> dict:
    """A configuration as a dictionary, and subclass maps of all training images for it."""
    folder = tmp_path_factory.mktemp("fuzz")
    values = {
        "name": "Baseline",
        "experim_name": "maps_baseline",
        "dataset": "custom",
        "data_dir": str(demo_set),
        "n_labeled_examples": 16,
        "num_images_all": 16,
        "pretrained": False,
        "model": {"layers": 14, "base_width": 4, "out_dim": 4},
        "train_supervised": {"batch_size": 8, "crop_size": 16, "base_size": 24, "num_workers": 0},
        "trainer": {"epochs": 1, "tensorboardX": False, "save_dir": str(folder), "log_dir": str(folder)},
    }
    config = Config(**values)
    for stage in (train, save_feature, clustering):
        stage(config, Options(), CPU)
    return values


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(["Baseline", "USRN"]), keys=keys, model=model, trainer=trainer)
def test_valid_configuration_trains_or_gets_one_message(base, name, keys, model, trainer):
    values = base | keys | {"name": name, "experim_name": "fuzzed" if name == "Baseline" else "maps_usrn"}
    values |= {"model": base["model"] | model, "trainer": base["trainer"] | trainer}
    path = Path(base["trainer"]["save_dir"]) / "config.json"
    path.write_text(json.dumps(values))
    with suppress(UsageError):
        train(load_config(path), Options(force=True), CPU)
        event("trained")
