import os

import cv2
import numpy as np
import pytest
import torch

from trainer.subclasses import samples
from trainer.subclasses.features import features_dir
from trainer.subclasses.make import make_subclasses
from trainer.subclasses.samples import ImageSamples, resize_nearest
from trainer.subclasses.table import read_subclass_table
from utils.errors import UsageError
from utils.logger import log

CPU = torch.device("cpu")


def test_missing_features_name_the_command_of_stage_2(config, data):
    (features_dir(config) / "b.npy").unlink()
    with pytest.raises(UsageError, match=r"b\.npy.*--save_feature True --config"):
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
    (config.subclass_dir / "other.png").touch()
    assert read_subclass_table(published, data).n_subclasses == 177
    (config.subclass_dir / ".finished_classes").mkdir()
    with pytest.raises(UsageError, match="--clustering True"):
        read_subclass_table(published, data)


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


def test_feature_files_are_read_once_as_far_as_memory_allows_and_the_maps_are_the_same(config, data, monkeypatch):
    config = config.model_copy(update={"subclass_counts": [4, 3]})
    read = []
    monkeypatch.setattr(ImageSamples, "_feature", lambda self, feature=ImageSamples._feature: read.append(self.path)
                        or feature(self))  # fmt: skip

    def maps(limit):
        monkeypatch.setattr(samples.ClassSamples.__init__, "__defaults__", (limit,))
        read.clear()
        table = make_subclasses(config, data, CPU)
        return len(read) - 2, table, [path.read_bytes() for path in sorted(config.subclass_dir.glob("*.png"))]

    at_once, together, expected = maps(10**9)  # two images: their shapes are looked at first
    by_class, alone, found = maps(1)
    assert (at_once, by_class) == (2, 4)
    assert (alone, found) == (together, expected)
