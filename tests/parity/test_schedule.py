"""Learning rates against those of the original implementation."""

import json
from pathlib import Path

import pytest

from utils.config_sections import OptimizerConfig
from utils.schedule import Schedule

EXPECTED = json.loads((Path(__file__).parents[1] / "data" / "parity" / "poly_lr.json").read_text())


def test_learning_rates_of_heads_and_backbone_are_the_originals():
    schedule = Schedule(EXPECTED["iters_per_epoch"], EXPECTED["iters_per_epoch"], EXPECTED["epochs"], early_stop=1)
    shares = (1, OptimizerConfig().backbone_lr_factor)
    rates = [[EXPECTED["base_lr"] * share * schedule.lr_factor(t) for share in shares]
             for t in range(schedule.iterations)]  # fmt: skip
    expected = EXPECTED["lr_of_each_iteration[head,backbone]"]
    assert len(rates) == len(expected)
    for rate, original in zip(rates, expected, strict=True):
        assert rate == pytest.approx(original, rel=0, abs=1e-9)
