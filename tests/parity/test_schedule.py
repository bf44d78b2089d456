"""Learning rates against those of the original implementation."""

import json
from pathlib import Path

import pytest

from trainer.loop.assembly import BACKBONE_LR
from utils.schedule import poly_factor

EXPECTED = json.loads((Path(__file__).parents[1] / "data" / "parity" / "poly_lr.json").read_text())


def test_learning_rates_of_heads_and_backbone_are_the_originals():
    iterations = EXPECTED["epochs"] * EXPECTED["iters_per_epoch"]
    rates = [[EXPECTED["base_lr"] * share * poly_factor(t, iterations) for share in (1, BACKBONE_LR)]
             for t in range(iterations)]  # fmt: skip
    expected = EXPECTED["lr_of_each_iteration[head,backbone]"]
    assert len(rates) == len(expected)
    for rate, original in zip(rates, expected, strict=True):
        assert rate == pytest.approx(original, rel=0, abs=1e-9)
