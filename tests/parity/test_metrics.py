"""Scores against numbers of the original implementation."""

from pathlib import Path

import numpy as np
import torch

from utils.metrics import ConfusionMatrix, scores

DATA = Path(__file__).parents[1] / "data" / "parity"


def test_scores_are_exactly_the_originals():
    with np.load(DATA / "metrics.npz") as arrays:
        expected = dict(arrays)
    confusion = ConfusionMatrix(21)
    for prediction, target in zip(expected["prediction"], expected["target"], strict=True):
        confusion.update(torch.from_numpy(prediction), torch.from_numpy(target))
    result = scores(confusion.counts)
    assert result.correct == expected["correct"]
    assert result.labelled == expected["labeled"]
    assert result.intersection.tolist() == expected["intersection"].tolist()
    assert result.union.tolist() == expected["union"].tolist()
    assert result.iou.tolist() == expected["iou"].tolist()
    np.testing.assert_array_max_ulp(np.float64(result.mean_iou), expected["miou"], 1)  # a sum: its order may differ
