"""What ``--test`` says: every score, and the last model beside the best."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import main as command_line
from dataloaders import open_data
from dataloaders.reading import IGNORE
from trainer.evaluation.measures import measure
from utils.config_file import load_config
from utils.metrics import BoundaryCounts, ConfusionMatrix, scores


class Brightest(torch.nn.Module):
    """A network of three classes by colour, with confidences between a third and one."""

    def forward(self, images):
        return 2 * images


def test_scores_are_those_of_the_predictions_that_it_writes(tiny_configs, tmp_path):
    config = load_config(tiny_configs[0])
    data = open_data(config)
    network = torch.nn.Sequential(Brightest(), torch.nn.ZeroPad3d((0, 0, 0, 0, 0, len(data.classes) - 3)))
    found = measure(config, data, network, torch.device("cpu"), name="it", write_to=tmp_path)
    confusion, boundaries = ConfusionMatrix(8), BoundaryCounts(8)
    for sample in data.validation:
        predicted = torch.from_numpy(np.array(Image.open(tmp_path / "preds" / f"{sample.id}.png")))
        target = torch.from_numpy(data.read_mask(sample.label))
        confusion.update(predicted, target)
        boundaries.update(predicted, target)
    expected = scores(confusion.counts)
    assert found["mean_iou"] == expected.mean_iou
    assert found["mean_accuracy"] == expected.mean_accuracy
    assert found["mean_iou_by_frequency"] == pytest.approx(expected.mean_iou_by_frequency)
    assert found["boundary_iou"] == float(BoundaryCounts.iou(boundaries.counts).nanmean())
    assert sum(found["calibration"]["pixels"]) == sum(
        (data.read_mask(s.label) != IGNORE).sum() for s in data.validation
    )
    assert sum(found["calibration"]["right"]) == expected.correct
    assert 0 < found["expected_calibration_error"] < 1


def test_last_model_is_given_beside_the_best_and_each_alone(tiny_configs, tmp_path, capsys):
    def run(*arguments):
        assert command_line.main(["-c", str(tiny_configs[0]), *arguments]) == 0
        return json.loads((tmp_path / "saved" / "tiny_baseline" / "results.json").read_text())

    assert command_line.main(["-c", str(tiny_configs[0]), "--test", "--which", "last"]) == 2
    assert "is not finished" in capsys.readouterr().err
    command_line.main(["-c", str(tiny_configs[0]), "--set", "random_seed=1"])
    checkpoint = torch.load(tmp_path / "saved" / "tiny_baseline" / "checkpoint.pth", weights_only=True)
    both = run("--test", "--set", "random_seed=1")
    best, last = (run("--test", "--set", "random_seed=1", "--which", which) for which in ("best", "last"))
    assert both["mean_iou"] == best["mean_iou"]
    if checkpoint["resume"]["not_improved"]:
        assert both["last"]["mean_iou"] == last["mean_iou"]
        assert "is optimistic" in capsys.readouterr().out
    else:
        assert "last" not in both
        assert last["mean_iou"] == best["mean_iou"]
