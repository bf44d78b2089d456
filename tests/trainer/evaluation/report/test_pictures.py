import numpy as np
import torch
from PIL import Image

from dataloaders import open_data
from trainer.evaluation.report.pictures import choose, save_entropy_maps
from utils.config_file import load_config

CPU = torch.device("cpu")


class SureOnTheLeft(torch.nn.Module):
    """All for class 0 in the left half, equal logits in the right one."""

    def forward(self, images):
        logits = images.new_zeros(len(images), 8, *images.shape[2:])
        logits[:, 0, :, : images.shape[3] // 2] = 100
        return logits


def test_images_that_gained_and_lost_most_come_first():
    baseline = {f"{number:02}": 0.5 for number in range(20)}
    own = {id_: 0.5 + 0.01 * (int(id_) - 10) for id_ in baseline}
    gained, lost, spread = choose(own, baseline)
    assert gained.ids == ["19", "18", "17", "16"]
    assert lost.ids == ["00", "01", "02", "03"]
    assert spread.ids == ["04", "07", "10", "13"]


def test_without_a_change_nothing_is_called_gained_or_lost():
    assert [group.title for group in choose({"a": 0.5}, {"a": 0.5})] == ["From all over the list"]


def test_without_a_baseline_the_best_and_the_worst_are_shown_once():
    best, worst = choose({"a": 0.1, "b": 0.9, "c": 0.5, "d": 0.2, "e": 0.0, "f": 0.3}, {})
    assert best.ids == ["b", "c", "f", "d"]
    assert worst.ids == ["e", "a"]


def test_images_that_only_one_run_has_are_not_compared():
    (gained,) = choose({"a": 0.5, "b": 0.9}, {"a": 0.4, "c": 0.1})
    assert gained.ids == ["a"]


def test_entropy_maps_are_of_the_images_size_and_those_of_an_earlier_network_go(tiny_configs, tmp_path):
    config = load_config(tiny_configs[0])
    data = open_data(config)
    first, second = data.validation[:2]
    save_entropy_maps(tmp_path, config, data, {second.id}, SureOnTheLeft(), CPU)
    save_entropy_maps(tmp_path, config, data, {first.id}, SureOnTheLeft(), CPU)
    assert [path.stem for path in (tmp_path / "entropy").iterdir()] == [first.id]
    with Image.open(tmp_path / "entropy" / f"{first.id}.png") as values, Image.open(first.image) as image:
        assert values.size == image.size
        values = np.asarray(values)
    assert (values[:, : values.shape[1] // 3] == 0).all()
    assert (values[:, -values.shape[1] // 3 :] == 255).all()
