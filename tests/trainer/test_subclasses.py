import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from dataloaders import Sample, SegmentationData
from dataloaders.reading import IGNORE, read_subclass_map
from trainer import subclasses
from trainer.features import features_dir
from trainer.subclass_table import read_subclass_table
from trainer.subclasses import make_subclasses, resize_nearest
from utils.config import Config
from utils.errors import UsageError
from utils.palette import voc_palette

CPU = torch.device("cpu")


@pytest.fixture
def config(tmp_path):
    return Config.model_validate(
        {
            "name": "Baseline",
            "experim_name": "run_baseline",
            "dataset": "custom",
            "data_dir": str(tmp_path),
            "n_labeled_examples": 2,
            "num_images_all": 2,
            "subclass_counts": [4, 1],
            "model": {"out_dim": 4},
            "trainer": {"epochs": 1, "save_dir": str(tmp_path / "saved")},
        }
    )


@pytest.fixture
def data(config, tmp_path):
    """Two images of two classes with features of four clear modes in class 0, at an eighth of the label's size."""
    rng = np.random.default_rng(0)
    features_dir(config).mkdir(parents=True)
    samples = []
    for name in ("a", "b"):
        mask = np.zeros((32, 40), np.uint8)
        mask[:, 24:] = 1
        mask[:8] = 255
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
        feature = 10 * np.eye(4)[rng.integers(0, 4, (4, 5))].transpose(2, 0, 1) + rng.normal(0, 0.1, (4, 4, 5))
        np.save(features_dir(config) / f"{name}.npy", feature.astype(np.float16))
        samples.append(Sample(name, tmp_path / f"{name}.jpg", tmp_path / f"{name}.png"))
    return SegmentationData(("sky", "road"), voc_palette(), tuple(samples), (), ())


def test_subclasses_are_of_equal_size_and_owned_by_their_class(config, data):
    table = make_subclasses(config, data, CPU)
    assert table.counts == [4, 1]
    assert sorted(table.sizes[:4]) == [4, 4, 5, 5]  # 3 x 3 positions of class 0 in each of two images
    assert table.sizes[4] == 12
    assert table.class_of_subclass.tolist() == [0, 0, 0, 0, 1]


def test_maps_have_the_labels_size_name_and_ignored_pixels(config, data):
    table = make_subclasses(config, data, CPU)
    for sample in data.labelled:
        subclass_map = read_subclass_map(config.subclass_dir / sample.label.name, table.n_subclasses)
        mask = np.asarray(Image.open(sample.label))
        assert subclass_map.shape == mask.shape
        assert (subclass_map[mask == 255] == IGNORE).all()
        assert (table.class_of_subclass.numpy()[subclass_map[mask == 0]] == 0).all()
        assert (subclass_map[mask == 1] == 4).all()


def test_same_seed_gives_the_same_maps_and_the_table_reads_back(config, data):
    first = make_subclasses(config, data, CPU)
    maps = [(config.subclass_dir / sample.label.name).read_bytes() for sample in data.labelled]
    assert make_subclasses(config, data, CPU) == first
    assert [(config.subclass_dir / sample.label.name).read_bytes() for sample in data.labelled] == maps
    assert read_subclass_table(config, data) == first


def test_normal_kmeans_follows_the_modes_instead_of_equal_sizes(config, data):
    normal = config.model_copy(update={"clustering_algorithm": "normal_kmeans"})
    table = make_subclasses(normal, data, CPU)
    assert normal.subclass_dir.name == "label_subcls_normal_kmeans"
    assert sum(table.sizes[:4]) == 18
    assert table.inertia[0] < make_subclasses(config, data, CPU).inertia[0]


def test_more_than_255_subclasses_take_16_bit_maps(config, data):
    many = config.model_copy(update={"subclass_counts": [18, 250]})
    table = make_subclasses(many, data, CPU)
    assert table.counts == [18, 12]  # no class gets more subclasses than it has samples
    path = config.subclass_dir / "wide.png"
    subclasses._save_map(path, np.array([[0, 299, IGNORE]]), 300)
    assert np.asarray(Image.open(path)).tolist() == [[0, 299, 65535]]
    assert read_subclass_map(path, 300).tolist() == [[0, 299, IGNORE]]


def test_interrupted_clustering_goes_on_at_the_class_it_was_at(config, data, monkeypatch):
    both = config.model_copy(update={"subclass_counts": [4, 3]})
    clustered, cluster = [], subclasses._cluster

    def fail_at_class_1(config, targets, index, *more):
        if index == 1 and 1 not in clustered:
            clustered.append(index)
            raise KeyboardInterrupt
        clustered.append(index)
        return cluster(config, targets, index, *more)

    expected = make_subclasses(both, data, CPU)
    monkeypatch.setattr(subclasses, "_cluster", fail_at_class_1)
    with pytest.raises(KeyboardInterrupt):
        make_subclasses(both, data, CPU)
    assert make_subclasses(both, data, CPU) == expected
    assert clustered == [0, 1, 1]
    assert [path.name for path in both.subclass_dir.iterdir() if path.name.startswith(".")] == []


def test_missing_features_name_the_command_of_stage_2(config, data):
    (features_dir(config) / "b.npy").unlink()
    with pytest.raises(UsageError, match=r"b\.npy.*--save_feature True --resume .*best_model\.pth"):
        make_subclasses(config, data, CPU)


def test_features_of_another_width_or_not_finite_are_named(config, data):
    path = features_dir(config) / "b.npy"
    np.save(path, np.zeros((7, 4, 5), np.float16))
    with pytest.raises(UsageError, match=r"b\.npy: has the shape \(7, 4, 5\), expected \(4, h, w\)"):
        make_subclasses(config, data, CPU)
    np.save(path, np.full((4, 4, 5), np.nan, np.float16))
    with pytest.raises(UsageError, match=r"b\.npy: holds values that are not finite"):
        make_subclasses(config, data, CPU)


def test_missing_maps_name_the_command_of_stage_3(config, data):
    with pytest.raises(UsageError, match="--clustering True"):
        read_subclass_table(config, data)


def test_table_of_other_classes_is_refused(config, data):
    make_subclasses(config, data, CPU)
    path = config.subclass_dir / "subclasses.json"
    contents = json.loads(path.read_text())
    path.write_text(json.dumps({**contents, "counts": [1, 1, 1]}))
    with pytest.raises(UsageError, match="3 classes"):
        read_subclass_table(config, data)


def test_nearest_neighbour_takes_the_source_at_or_before():
    assert resize_nearest(np.arange(6).reshape(1, 6), (1, 4)).tolist() == [[0, 1, 3, 4]]
    assert resize_nearest(np.arange(2).reshape(1, 2), (2, 5)).tolist() == [[0, 0, 0, 1, 1]] * 2


class Malicious:
    """Makes a folder where it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_feature_file_that_would_run_code_is_refused_and_runs_nothing(config, data, tmp_path):
    path, marker = features_dir(config) / "a.npy", tmp_path / "it-ran"
    np.save(path, np.array([Malicious(marker)], object), allow_pickle=True)
    with pytest.raises(UsageError, match=r"a\.npy: is no feature file"):
        make_subclasses(config, data, CPU)
    assert not marker.exists()
    np.load(path, allow_pickle=True)  # the same file does run code where loading is not safe
    assert marker.is_dir()


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "[1", '{"counts": 3}'])
def test_damaged_table_of_subclasses_is_named(config, data, text):
    make_subclasses(config, data, CPU)
    path = config.subclass_dir / "subclasses.json"
    table = json.loads(path.read_text())
    read_subclass_table(config, data)
    for damaged in (text, json.dumps({**table, "counts": [0, 4]}), json.dumps({**table, "counts": ["4", 1]})):
        path.write_text(damaged)
        with pytest.raises(UsageError, match=r"subclasses\.json: is no table of subclasses"):
            read_subclass_table(config, data)
