import json
import os
from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from dataloaders import Sample, SegmentationData
from dataloaders.reading import IGNORE, read_subclass_map
from tests.dataloaders.miniature import data_of
from trainer.subclasses import make as subclasses
from trainer.subclasses.features import features_dir
from trainer.subclasses.make import make_subclasses
from trainer.subclasses.samples import ImageSamples, resize_nearest
from trainer.subclasses.table import SubclassTable, read_subclass_table
from utils.config import Config
from utils.distributed import launch, rank, world_size
from utils.errors import UsageError
from utils.logger import log

CPU = torch.device("cpu")


def make_run(folder, names) -> tuple[Config, SegmentationData]:
    """Images of two classes with features of four clear modes in class 0, at an eighth of the label's size."""
    settings = {
        "name": "Baseline",
        "experim_name": "run_baseline",
        "dataset": "custom",
        "data_dir": str(folder),
        "n_labeled_examples": len(names),
        "num_images_all": len(names),
        "subclass_counts": [4, 1],
        "model": {"out_dim": 4},
        "trainer": {"epochs": 1, "save_dir": str(folder / "saved")},
    }
    config = Config.model_validate(settings)
    rng = np.random.default_rng(0)
    features_dir(config).mkdir(parents=True)
    samples = []
    for name in names:
        sample = Sample(name, folder / f"{name}.jpg", folder / f"{name}.png")
        mask = np.zeros((32, 40), np.uint8)
        mask[:, 24:] = 1
        mask[:8] = 255
        Image.fromarray(mask).save(sample.label)
        sample.image.touch()
        feature = 10 * np.eye(4)[rng.integers(0, 4, (4, 5))].transpose(2, 0, 1) + rng.normal(0, 0.1, (4, 4, 5))
        np.save(features_dir(config) / f"{name}.npy", feature.astype(np.float16))
        samples.append(sample)
    return config, data_of(samples, classes=("sky", "road"))


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, ("a", "b"))


@pytest.fixture
def config(run):
    return run[0]


@pytest.fixture
def data(run):
    return run[1]


def fail_at_class_1(clustered: list[int]):
    """In place of ``_cluster``: it notes the classes in ``clustered`` and is interrupted, once, at class 1."""
    cluster = subclasses._cluster

    def fails(config, images, index, *more):
        clustered.append(index)
        if clustered.count(1) == 1 and index == 1:
            raise KeyboardInterrupt
        return cluster(config, images, index, *more)

    return fails


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
    first = make_subclasses(config, data, CPU, checkpoint="c0ffee")
    maps = [(config.subclass_dir / sample.label.name).read_bytes() for sample in data.labelled]
    assert make_subclasses(config, data, CPU, checkpoint="c0ffee") == first
    assert [(config.subclass_dir / sample.label.name).read_bytes() for sample in data.labelled] == maps
    assert read_subclass_table(config, data) == first


def test_table_says_how_it_came_about_and_has_its_picture_beside_it(config, data):
    make_subclasses(config, data, CPU, checkpoint="c0ffee")
    contents = json.loads((config.subclass_dir / "subclasses.json").read_text())
    assert (contents["algorithm"], contents["seed"], contents["checkpoint"]) == ("balanced_kmeans", 42, "c0ffee")
    assert contents["source"] == str(features_dir(config))
    assert contents["seconds"] > 0
    assert Image.open(config.subclass_dir / "subclasses.png").format == "PNG"


def test_table_from_before_it_had_all_its_keys_is_read(config, data):
    table = replace(make_subclasses(config, data, CPU), checkpoint="", wanted={})
    contents = asdict(table)
    for key in ("checkpoint", "wanted", "seconds"):
        del contents[key]
    (config.subclass_dir / "subclasses.json").write_text(json.dumps(contents))
    assert read_subclass_table(config, data) == table


def test_normal_kmeans_follows_the_modes_instead_of_equal_sizes(config, data):
    normal = config.model_copy(update={"clustering_algorithm": "normal_kmeans"})
    table = make_subclasses(normal, data, CPU)
    assert normal.subclass_dir.name == "label_subcls_normal_kmeans"
    modes = [
        np.load(features_dir(config) / f"{sample.id}.npy")[:, 1:, :3].argmax(0).ravel() for sample in data.labelled
    ]
    assert sorted(table.sizes[:4]) == sorted(np.bincount(np.concatenate(modes), minlength=4))
    assert table.inertia[0] < 0.01 * make_subclasses(config, data, CPU).inertia[0]


def test_class_with_few_samples_gets_as_many_subclasses_and_the_table_says_so(config, data, capsys):
    many = config.model_copy(update={"subclass_counts": [18, 250]})
    table = make_subclasses(many, data, CPU)
    assert table.counts == [18, 12]
    assert table.sizes == [1] * 30
    assert read_subclass_table(config, data).wanted == table.wanted == {"road": 250}


def test_more_than_255_subclasses_take_16_bit_maps(config, data):
    image = ImageSamples(data.labelled[0], config, data)
    image.assign(0, np.array([0, 299] + [7] * 7))
    image.save_map(config.subclass_dir, 300)
    path = config.subclass_dir / "a.png"
    assert np.asarray(Image.open(path))[8, [0, 8, 16, 24]].tolist() == [0, 299, 7, 65535]
    assert read_subclass_map(path, 300)[8, [0, 8, 16, 24]].tolist() == [0, 299, 7, IGNORE]


def test_interrupted_clustering_goes_on_at_the_class_it_was_at(config, data, monkeypatch):
    both = config.model_copy(update={"subclass_counts": [4, 3]})
    expected, clustered = make_subclasses(both, data, CPU), []
    monkeypatch.setattr(subclasses, "_cluster", fail_at_class_1(clustered))
    with pytest.raises(KeyboardInterrupt):
        make_subclasses(both, data, CPU)
    assert make_subclasses(both, data, CPU) == expected
    assert clustered == [0, 1, 1]
    assert [path.name for path in both.subclass_dir.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("changed", ["feature", "label"])
def test_interrupted_clustering_starts_over_where_its_input_has_changed(config, data, monkeypatch, changed):
    clustered = []
    monkeypatch.setattr(subclasses, "_cluster", fail_at_class_1(clustered))
    with pytest.raises(KeyboardInterrupt):
        make_subclasses(config, data, CPU)
    path = features_dir(config) / "b.npy" if changed == "feature" else data.labelled[1].label
    path.touch()
    make_subclasses(config, data, CPU)
    assert clustered == [0, 1, 0, 1]


def clusters_in_each_process(config, data, folder, device) -> None:
    """Stage 3, interrupted at class 1 and done again; then with a feature that the last process finds damaged."""
    clustered = []
    subclasses._cluster = fail_at_class_1(clustered)
    with pytest.raises(KeyboardInterrupt):
        make_subclasses(config, data, device)
    table = make_subclasses(config, data, device)
    (folder / f"{rank()}.json").write_text(json.dumps({"table": asdict(table), "clustered": clustered}))
    if rank() == world_size() - 1:
        np.save(features_dir(config) / f"{data.labelled[-1].id}.npy", np.full((4, 4, 5), np.nan, np.float16))
    make_subclasses(config, data, device)


def test_three_processes_do_what_one_does(tmp_path):
    config, data = make_run(tmp_path, tuple("abcde"))
    config = config.model_copy(update={"subclass_counts": [7, 3]})
    alone = make_subclasses(config, data, CPU)
    maps = {path.name: path.read_bytes() for path in config.subclass_dir.glob("*.png")}
    with pytest.raises(UsageError, match=r"e\.npy: holds values that are not finite"):
        launch(clusters_in_each_process, (config, data, tmp_path), 3, "cpu")
    for number in range(3):
        found = json.loads((tmp_path / f"{number}.json").read_text())
        assert found["clustered"] == [0, 1, 1]
        table = SubclassTable(**found["table"])
        assert table.sizes == alone.sizes
        assert table.inertia == pytest.approx(alone.inertia, rel=1e-3)
        assert read_subclass_table(config, data) == table
    assert {path.name: path.read_bytes() for path in config.subclass_dir.glob("*.png")} == maps


def test_missing_features_name_the_command_of_stage_2(config, data):
    (features_dir(config) / "b.npy").unlink()
    with pytest.raises(UsageError, match=r"b\.npy.*--save_feature True --resume .*best_model\.pth"):
        make_subclasses(config, data, CPU)


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (
            np.zeros((7, 4, 5), np.float16),
            r"has the shape \(7, 4, 5\), but \(4, 4, 5\) is that of out_dim 4 and .*b\.png",
        ),
        (np.zeros((4, 5, 5), np.float16), r"has the shape \(4, 5, 5\), but \(4, 4, 5\) is .*b\.png, 40 x 32 pixels"),
        (np.full((4, 4, 5), np.nan, np.float16), "holds values that are not finite"),
        (np.full((4, 4, 5), 1e6, np.float32), "holds values that are not finite"),
    ],
    ids=["width", "size", "not finite", "beyond float16"],
)
def test_feature_that_does_not_fit_is_named(config, data, feature, message):
    np.save(features_dir(config) / "b.npy", feature)
    with pytest.raises(UsageError, match=r"b\.npy: " + message), np.errstate(over="ignore"):
        make_subclasses(config, data, CPU)


def test_damaged_feature_file_is_named(config, data):
    path = features_dir(config) / "b.npy"
    whole = path.read_bytes()
    for contents in (whole[:-10], b"", b"no array"):
        path.write_bytes(contents)
        with pytest.raises(UsageError, match=r"b\.npy: is no feature file, or a damaged one"):
            make_subclasses(config, data, CPU)


@pytest.mark.parametrize("gone", ["image", "label"])
def test_feature_whose_image_or_label_is_gone_is_named(config, data, gone):
    getattr(data.labelled[1], gone).unlink()
    with pytest.raises(UsageError, match=rf"the {gone} that belongs to .*b\.npy is gone"):
        make_subclasses(config, data, CPU)


def test_features_of_no_labelled_image_are_left_out_with_a_warning(config, data, monkeypatch):
    warnings = []
    monkeypatch.setattr(log, "warning", warnings.append)
    expected = make_subclasses(config, data, CPU)
    assert warnings == []
    np.save(features_dir(config) / "other.npy", np.zeros((4, 4, 5), np.float16))
    assert make_subclasses(config, data, CPU) == expected
    assert [text.partition(": ")[2] for text in warnings] == [
        "1 features belong to no labelled image and are left out: other.npy"
    ]


def test_missing_maps_name_the_command_of_stage_3(config, data):
    with pytest.raises(UsageError, match="--clustering True"):
        read_subclass_table(config, data)


def test_unfinished_maps_of_a_published_split_are_not_taken_for_the_originals(config, data):
    published = config.model_copy(update={"dataset": "voc", "n_labeled_examples": 331})
    config.subclass_dir.mkdir(parents=True)
    (config.subclass_dir / "a.png").touch()
    assert read_subclass_table(published, data).n_subclasses == 177
    (config.subclass_dir / ".finished_classes").mkdir()
    with pytest.raises(UsageError, match="--clustering True"):
        read_subclass_table(published, data)


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


def test_nearest_neighbour_is_opencvs_between_every_side_and_an_eighth_of_it():
    for side in range(8, 2049, 8):
        for old, new in ((side, side // 8), (side // 8, side), (side - 3, side // 8), (side // 8, side - 3)):
            values = np.arange(2 * old, dtype=np.uint16).reshape(2, old)
            expected = cv2.resize(values, (new, 3), interpolation=cv2.INTER_NEAREST)
            assert np.array_equal(resize_nearest(values, (3, new)), expected), (old, new)


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
