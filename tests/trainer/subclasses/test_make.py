import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image

from dataloaders.reading import IGNORE, read_subclass_map
from tests.trainer.subclasses.small_run import make_run
from trainer.subclasses import make as subclasses
from trainer.subclasses.features import features_dir
from trainer.subclasses.make import make_subclasses
from trainer.subclasses.samples import ImageSamples
from trainer.subclasses.table import SubclassTable, read_subclass_table
from utils.distributed import launch, rank, world_size
from utils.errors import UsageError

CPU = torch.device("cpu")


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
