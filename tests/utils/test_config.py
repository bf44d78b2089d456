import json
from pathlib import Path

import pytest

from utils.config import Config, differing_keys
from utils.config_file import load_config
from utils.schedule import Schedule

CONFIGS = Path(__file__).parents[2] / "configs"
LABELLED = {
    "voc_1over64": 165, "voc_1over32": 331, "voc_1over16": 662,
    "city_1over32": 93, "city_1over16": 186, "city_1over8": 372,
}  # fmt: skip
DATA_SETS = {
    "voc": {
        "dataset": "voc", "pool": 10582, "lr": 0.01, "crop": 320, "base": 400, "batch": 8, "epochs": 80,
        "early_stop": 100, "jitter": False, "n_gpu": {"baseline": 1, "usrn": 2},
    },
    "city": {
        "dataset": "cityscapes", "pool": 2975, "lr": 0.02, "crop": 720, "base": 2048, "batch": 4, "epochs": 480,
        "early_stop": 600, "jitter": True, "n_gpu": {"baseline": 2, "usrn": 4},
    },
}  # fmt: skip
# Steps of the learning rate in an epoch (not all are iterations of a baseline), and how often its epochs are run.
SCHEDULES = {
    "voc_1over64": {"baseline": (20, 64), "usrn": (41, 64)},
    "voc_1over32": {"baseline": (41, 31), "usrn": (82, 31)},
    "voc_1over16": {"baseline": (82, 15), "usrn": (165, 15)},
    "city_1over32": {"baseline": (46, 31), "usrn": (93, 31)},
    "city_1over16": {"baseline": (93, 15), "usrn": (186, 15)},
    "city_1over8": {"baseline": (186, 7), "usrn": (372, 7)},
}
PUBLISHED = [f"{split}_{kind}" for split in LABELLED for kind in ("baseline", "usrn")]
USRN_RUNS = sorted(path.stem for path in CONFIGS.glob("*_usrn.json"))


def load(run: str) -> Config:
    return load_config(CONFIGS / f"{run}.json")


def config_of(**keys) -> Config:
    minimal = {"name": "Baseline", "experim_name": "run", "dataset": "voc", "data_dir": "data"}
    counts = {"n_labeled_examples": 4, "num_images_all": 8, "trainer": {"epochs": 1}}
    return Config.model_validate({**minimal, **counts, **keys})


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*_*.json")), ids=lambda path: path.stem)
def test_every_configuration_loads_and_is_named_as_its_file(path: Path):
    config = load_config(path)
    assert config.experim_name == path.stem
    assert path.stem.endswith("_" + config.name.lower())


@pytest.mark.parametrize("run", PUBLISHED)
def test_published_run_has_the_methods_settings(run: str):
    split, _, kind = run.rpartition("_")
    expected = DATA_SETS[split.partition("_")[0]]
    config = load(run)
    assert (config.dataset, config.num_images_all) == (expected["dataset"], expected["pool"])
    assert config.n_labeled_examples == LABELLED[split]
    assert config.n_gpu == expected["n_gpu"][kind]
    args = config.optimizer.args
    assert (args.lr, args.momentum, args.weight_decay) == (expected["lr"], 0.9, 1e-4)
    assert config.diff_lrs
    for stream in (config.train_supervised, config.train_unsupervised):
        assert (stream.crop_size, stream.base_size) == (expected["crop"], expected["base"])
        assert stream.batch_size == expected["batch"]
        assert (stream.augment, stream.scale, stream.flip) == (True, True, True)
        assert (stream.rotate, stream.blur) == (False, False)
    assert config.train_supervised.jitter is expected["jitter"]
    assert (config.trainer.epochs, config.trainer.early_stop) == (expected["epochs"], expected["early_stop"])
    assert config.trainer.val_per_epochs == 1
    model = config.model
    assert (model.layers, model.base_width, model.out_dim, model.downsample) == (50, 64, 256, True)
    assert (model.pos_thresh_value, model.entropy_gate, model.epoch_start_unsup) == (0.75, True, 0)
    assert (model.supervised_w, model.loss_weight_subcls, model.loss_weight_unsup) == (1, 1, 1)
    assert (config.ignore_index, config.random_seed, config.pretrained) == (255, 42, True)
    assert (config.subclass_counts, config.clustering_algorithm) == (None, "balanced_kmeans")


@pytest.mark.parametrize("run", PUBLISHED)
def test_published_run_has_the_methods_length(run: str):
    split, _, kind = run.rpartition("_")
    steps, multiple = SCHEDULES[split][kind]
    settings = DATA_SETS[split.partition("_")[0]]
    iterations = LABELLED[split] // settings["batch"] if kind == "baseline" else steps
    epochs, early_stop = settings["epochs"] * multiple, settings["early_stop"] * multiple
    assert Schedule.from_config(load(run)) == Schedule(iterations, steps, epochs, early_stop)


@pytest.mark.parametrize("run", USRN_RUNS)
def test_usrn_run_reads_the_subclasses_of_its_own_baseline(run: str):
    config, baseline = load(run), load(run.replace("_usrn", "_baseline"))
    assert config.subclass_dir == baseline.subclass_dir == baseline.run_dir / "label_subcls_balanced_kmeans"
    assert config.baseline_dir == baseline.run_dir
    assert config.n_labeled_examples == baseline.n_labeled_examples
    assert config.datalist == baseline.datalist


def test_subclasses_of_the_ablation_lie_in_a_folder_of_their_own():
    config = config_of(name="USRN", experim_name="x_usrn", clustering_algorithm="normal_kmeans")
    assert config.subclass_dir == Path("saved/x_baseline/label_subcls_normal_kmeans")


def test_label_subcls_moves_what_stage_4_reads_and_not_what_stage_3_writes():
    keys = {"label_subcls": "elsewhere/a_baseline/label_subcls_balanced_kmeans"}
    usrn = config_of(name="USRN", experim_name="x_usrn", **keys)
    assert usrn.subclass_dir == Path("elsewhere/a_baseline/label_subcls_balanced_kmeans")
    assert usrn.baseline_dir == Path("elsewhere/a_baseline")
    baseline = config_of(experim_name="x_baseline", **keys)
    assert baseline.subclass_dir == Path("saved/x_baseline/label_subcls_balanced_kmeans")


def test_keys_that_change_the_result_differ_and_others_do_not():
    old = json.loads(json.dumps(config_of(subclass_counts=[2, 1]).model_dump()))
    without_effect = {"epochs": 1, "log_per_iter": 3, "save_dir": "x", "save_period": 9, "tensorboardX": False}
    same = config_of(
        subclass_counts=[2, 1], data_dir="moved", label_subcls="moved", trainer=without_effect,
        train_supervised={"num_workers": 0}, predict={"window": 64, "flip": True},
    )  # fmt: skip
    assert differing_keys(old, same) == []
    other = config_of(
        subclass_counts=[2, 2], n_gpu=2, trainer={"epochs": 3}, optimizer={"args": {"lr": 0.5}},
        train_supervised={"flip": False},
    )  # fmt: skip
    assert differing_keys(old, other) == [
        "n_gpu: 1 → 2", "optimizer.args.lr: 0.01 → 0.5", "subclass_counts: [2, 1] → [2, 2]",
        "train_supervised.flip: True → False", "trainer.epochs: 1 → 3",
    ]  # fmt: skip


def test_key_that_an_earlier_version_lacked_had_its_default_then():
    old = config_of().model_dump()
    del old["trainer"]["pseudo_label_quality"]
    assert differing_keys(old, config_of()) == []
    other = config_of(trainer={"epochs": 1, "pseudo_label_quality": True})
    assert differing_keys(old, other) == ["trainer.pseudo_label_quality: None → True"]
