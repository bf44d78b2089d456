"""The counts of a run that goes on."""

import pytest
import torch

from tests.trainer.runs import CPU
from trainer.loop import tally
from trainer.loop.tally import Tally


@pytest.mark.parametrize(("is_main", "loss"), [(True, 2.0), (False, 0.0)])
def test_every_process_goes_on_with_the_same_names_and_the_first_alone_with_the_sums(monkeypatch, is_main, loss):
    before = Tally(2, CPU)
    target = torch.ones(1, 2, 2, dtype=torch.int64)
    before.update({"prediction": target, "Ls": torch.tensor(2.0)}, target, torch.tensor(True))
    monkeypatch.setattr(tally, "is_main", lambda: is_main)
    after = Tally(2, CPU)
    after.load(before.state())
    # A process that lacked a name would leave the others waiting for it in the next checkpoint's sums.
    assert {name: value.tolist() for name, value in after.running.items()} == {"Ls": [loss, float(is_main)]}
    assert after.confusion.counts[1, 1] == 4 * is_main
