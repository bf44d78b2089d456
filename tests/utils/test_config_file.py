import json
from pathlib import Path

import pytest

from utils.config import Config, ValidationConfig
from utils.config_file import load_config
from utils.config_sections import ModelConfig, StreamConfig
from utils.errors import UsageError

MINIMAL = {
    "name": "Baseline",
    "experim_name": "run",
    "dataset": "voc",
    "data_dir": "data",
    "n_labeled_examples": 4,
    "num_images_all": 8,
    "trainer": {"epochs": 1},
}

# Every key that a configuration of the original has, with those that mean nothing here.
LIKE_THE_ORIGINALS = """{
    "name": "USRN", "experim_name": "some_usrn", "n_labeled_examples": 50, "n_gpu": 3, "num_images_all": 400,
    "dataset": "voc", "label_subcls": "./saved/other_baseline/label_subcls_balanced_kmeans",
    "data_dir": "./datasets/voc", "datalist": 2, "diff_lrs": true, "ramp_up": 0.1, "unsupervised_w": 30,
    "ignore_index": 255, "lr_scheduler": "Poly", "use_weak_lables":false, "pretrained": true, "random_seed": 7,

    "model":{
        "loss_weight_subcls": 0.5, "loss_weight_unsup": 2, "supervised": false, "semi": true,
        "epoch_start_unsup": 3, "supervised_w": 1, "sup_loss": "CE", "layers": 101, "downsample": false,
        "out_dim": 128, "backbone": "deeplab_v3+", "pos_thresh_value": 0.8, "step_save": 1, "stride": 8
    },
    "optimizer": {"type": "SGD", "args": {"lr": 0.03, "weight_decay": 2e-4, "momentum": 0.8}},
    "train_supervised": {
        "batch_size": 6, "num_workers": 2, "crop_size": 96, "shuffle": true, "base_size": 120, "scale": false,
        "augment": true, "flip": false, "rotate": true, "blur": true, "split": "train_supervised", "jitter": true,
        "val": false, "stride": 8
    },
    "train_unsupervised": {
        "batch_size": 6, "num_workers": 2, "crop_size": 96, "shuffle": true, "base_size": 120, "scale": true,
        "augment": true, "flip": true, "rotate": false, "blur": false, "split": "train_unsupervised", "stride": 8
    },
    "val_loader": {"batch_size": 2, "val": true, "split": "val", "shuffle": false, "stride": 8, "num_workers": 3},
    "trainer": {
        "epochs": 9, "early_stop": 11, "save_dir": "saved/", "save_period": 4, "monitor": "max Mean_IoU",
        "tensorboardX": false, "log_dir": "logs/", "log_per_iter": 5, "val": true, "val_per_epochs": 2
    }
}
"""


@pytest.fixture
def write(tmp_path):
    """Writes a file of these keys, or of this text, and gives its path."""

    def write(keys, name="run.json"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(keys if isinstance(keys, str) else json.dumps(keys))
        return path

    return write


def refused(path, *overrides):
    """The message with which a configuration is refused."""
    with pytest.raises(UsageError) as error:
        load_config(path, list(overrides))
    return str(error.value)


def test_file_overrides_its_bases_and_later_bases_override_earlier_ones(write):
    write({**MINIMAL, "random_seed": 1, "datalist": 1, "n_gpu": 1}, "first.json")
    write({"random_seed": 2, "datalist": 2}, "second.json")
    config = load_config(write({"base": ["first.json", "second.json"], "random_seed": 3}))
    assert (config.random_seed, config.datalist, config.n_gpu) == (3, 2, 1)


def test_sections_are_merged_key_by_key_at_every_depth(write):
    args = {"lr": 0.5, "momentum": 0.1}
    write({**MINIMAL, "optimizer": {"args": args}, "trainer": {"epochs": 4, "early_stop": 9}}, "base.json")
    config = load_config(write({"base": "base.json", "optimizer": {"args": {"lr": 0.25}}, "trainer": {"epochs": 5}}))
    assert (config.optimizer.args.lr, config.optimizer.args.momentum) == (0.25, 0.1)
    assert (config.trainer.epochs, config.trainer.early_stop) == (5, 9)


def test_base_is_looked_for_beside_the_file_that_names_it(write):
    write({**MINIMAL, "n_gpu": 3}, "deeper/root.json")
    write({"base": "root.json"}, "deeper/middle.json")
    assert load_config(write({"base": "deeper/middle.json"})).n_gpu == 3


def test_base_that_leads_back_is_refused_with_its_name(write):
    write({"base": "run.json"}, "other.json")
    assert 'run.json: "base" leads back' in refused(write({**MINIMAL, "base": "other.json"}))


def test_two_bases_may_share_a_base(write):
    write(MINIMAL, "root.json")
    write({"base": "root.json", "n_gpu": 2}, "left.json")
    write({"base": "root.json", "datalist": 4}, "right.json")
    config = load_config(write({"base": ["left.json", "right.json"]}))
    assert (config.n_gpu, config.datalist) == (2, 4)


def test_missing_base_is_named(write):
    assert "gone.json: cannot read" in refused(write({**MINIMAL, "base": "gone.json"}))


@pytest.mark.parametrize("base", [5, [5], {"file": "x"}])
def test_base_must_be_names_of_files(write, base):
    assert '"base" must be a file name' in refused(write({**MINIMAL, "base": base}))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"n_labelled_examples": 4}, "unknown key n_labelled_examples; did you mean n_labeled_examples?"),
        ({"trainer": {"epochs": 1, "epoch": 2}}, "unknown key trainer.epoch; did you mean trainer.epochs?"),
        ({"optimizer": {"args": {"lrr": 1}}}, "unknown key optimizer.args.lrr; did you mean optimizer.args.lr?"),
        ({"model": {"zzzzzz": 1}}, "unknown key model.zzzzzz; known here: layers, "),
        ({"trainer": {"epochs": 1, "ramp_up": 0.1}}, "unknown key trainer.ramp_up"),  # known elsewhere only
    ],
)
def test_unknown_key_is_refused_with_its_path_and_the_nearest_known_one(write, keys, message):
    assert message in refused(write({**MINIMAL, **keys}))


def test_keys_of_the_original_load_without_a_word_and_those_with_a_meaning_arrive(write, capsys, recwarn):
    config = load_config(write(LIKE_THE_ORIGINALS))
    assert capsys.readouterr() == ("", "")
    assert [warning for warning in recwarn if warning.category is not ResourceWarning] == []  # that is another test's
    assert (config.name, config.n_labeled_examples, config.n_gpu, config.datalist) == ("USRN", 50, 3, 2)
    assert (config.random_seed, config.data_dir) == (7, "./datasets/voc")
    assert str(config.subclass_dir) == "saved/other_baseline/label_subcls_balanced_kmeans"
    model = config.model
    assert (model.loss_weight_subcls, model.loss_weight_unsup, model.epoch_start_unsup) == (0.5, 2, 3)
    assert (model.layers, model.downsample, model.out_dim, model.pos_thresh_value) == (101, False, 128, 0.8)
    args = config.optimizer.args
    assert (args.lr, args.weight_decay, args.momentum) == (0.03, 2e-4, 0.8)
    stream = config.train_supervised
    assert (stream.batch_size, stream.crop_size, stream.base_size, stream.num_workers) == (6, 96, 120, 2)
    assert (stream.scale, stream.flip, stream.rotate, stream.blur, stream.jitter) == (False, False, True, True, True)
    assert not config.train_unsupervised.jitter
    assert (config.val_loader.batch_size, config.val_loader.num_workers) == (2, 3)
    trainer = config.trainer
    assert (trainer.epochs, trainer.early_stop, trainer.val_per_epochs, trainer.save_period) == (9, 11, 2, 4)
    assert (trainer.tensorboardX, trainer.log_dir, trainer.log_per_iter) == (False, "logs/", 5)


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"n_gpu": "two"}, ["key n_gpu: ", "'two'"]),
        ({"pretrained": 1}, ["key pretrained: ", "(it is 1)"]),
        ({"n_gpu": True}, ["key n_gpu: ", "(it is True)"]),
        ({"data_dir": None}, ["key data_dir: ", "(it is None)"]),
        ({"trainer": {"epochs": 1.5}}, ["key trainer.epochs: ", "1.5"]),
        ({"train_supervised": {"crop_size": 0}}, ["key train_supervised.crop_size: ", "(it is 0)"]),
        ({"model": {"layers": 34}}, ["key model.layers: ", "14, 26, 50 or 101", "(it is 34)"]),
        ({"model": {"entropy_gate": "never"}}, ["key model.entropy_gate: ", "'always'", "(it is 'never')"]),
        ({"subclass_counts": [2, 0]}, ["key subclass_counts: ", "above 0"]),
        ({"subclass_counts": "papers"}, ["key subclass_counts: ", "'papers'"]),
        ({"dataset": "coco"}, ["key dataset: ", "'cityscapes'", "(it is 'coco')"]),
        ({"model": 5}, ["key model: ", "(it is 5)"]),
        ({"optimizer": {"args": {"lr": float("nan")}}}, ["key optimizer.args.lr: ", "(it is nan)"]),
    ],
)
def test_wrong_value_is_refused_with_its_key_path_and_what_it_is(write, keys, parts):
    message = refused(write({**MINIMAL, **keys}))
    for part in parts:
        assert part in message


def test_whole_numbers_serve_where_fractions_are_expected(write):
    assert load_config(write({**MINIMAL, "model": {"loss_weight_unsup": 2}})).model.loss_weight_unsup == 2.0


def test_missing_key_is_named(write):
    keys = {key: value for key, value in MINIMAL.items() if key != "num_images_all"}
    assert "key num_images_all is missing" in refused(write({**keys, "trainer": {}}))
    assert "key trainer.epochs is missing" in refused(write({**MINIMAL, "trainer": {}}))


def test_every_mistake_of_a_file_is_listed(write):
    message = refused(write({**MINIMAL, "n_gpu": "two", "trainer": {"epochs": 1, "epoch": 2}}))
    assert "key n_gpu: " in message
    assert "unknown key trainer.epoch;" in message


def test_broken_json_is_refused_with_file_line_and_column(write):
    message = refused(write('{"name": "USRN",\n  "experim_name" "x"}'))
    assert "run.json: is not valid JSON, line 2, column 18" in message


def test_broken_json_of_a_base_names_the_base(write):
    write('{"n_gpu": }', "base.json")
    assert "base.json: is not valid JSON, line 1, column 11" in refused(write({**MINIMAL, "base": "base.json"}))


def test_file_that_is_no_object_no_text_or_not_there_is_refused(write, tmp_path):
    assert "must hold one JSON object" in refused(write("[1, 2]"))
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00{")
    assert "UTF-8" in refused(tmp_path / "binary.json")
    assert "gone.json: cannot read the configuration (No such file" in refused(tmp_path / "gone.json")


def test_byte_order_mark_does_no_harm(write, tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps(MINIMAL), encoding="utf-8-sig")
    assert load_config(path).experim_name == "run"


def test_set_takes_json_values_and_plain_strings_and_wins_over_the_file(write):
    overrides = [
        "trainer.epochs=5", "pretrained=false", "data_dir=some where/voc", "model.entropy_gate=always",
        "subclass_counts=[3, 1]", 'experim_name="2024"', "classes=null", "optimizer.args.lr=1e-3", "data_dir=a=b",
    ]  # fmt: skip
    config = load_config(write(MINIMAL), overrides)
    assert (config.trainer.epochs, config.pretrained, config.data_dir) == (5, False, "a=b")
    assert (config.model.entropy_gate, config.subclass_counts, config.classes) == ("always", [3, 1], None)
    assert (config.experim_name, config.optimizer.args.lr) == ("2024", 1e-3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.epochs", "write it as key=value"),
        ("=5", "write it as key=value"),
        ("name.x=5", "name is not a section"),
        ("trainer.epoch=5", "did you mean trainer.epochs?"),
        ("trainer.epochs=many", "key trainer.epochs: "),
        ("no.such.key=1", "unknown key no"),
    ],
)
def test_mistaken_set_is_refused(write, override, message):
    assert message in refused(write(MINIMAL), override)


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../up", "/absolute", "a\\b"])
def test_name_of_a_run_cannot_lead_out_of_its_folder(write, name):
    assert "key experim_name: " in refused(write({**MINIMAL, "experim_name": name}))


def test_every_key_that_is_accepted_and_does_nothing_is_listed_in_the_docs():
    listed = (Path(__file__).parents[2] / "docs" / "fidelity.md").read_text().partition("## Keys of the original")[2]
    sections = {"": Config, "model.": ModelConfig, "train_*.": StreamConfig, "val_loader.": ValidationConfig}
    for prefix, section in sections.items():
        for key in section.obsolete:
            assert f"`{prefix}{key}`" in listed, key


def test_keys_that_begin_with_two_slashes_are_comments_in_any_section(tmp_path, tiny_configs):
    path = tmp_path / "commented.json"
    trainer = {"epochs": 7, "//epochs": "why", "//": {"unknown": [1, {"a": 2}]}}
    path.write_text(json.dumps({"//": {"trainer.epochs": "why"}, "base": str(tiny_configs[1]), "trainer": trainer}))
    assert load_config(path).trainer.epochs == 7
