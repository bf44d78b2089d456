"""Ranks that have different data before them."""

from dataclasses import replace
from pathlib import Path

import pytest

from dataloaders import open_data
from tests.trainer.runs import run_apart
from trainer.alike import refuse_other_data
from utils.config_file import load_config
from utils.distributed import rank


def compare(config_file: Path, what: str, device) -> None:
    data = open_data(load_config(config_file))
    labelled = list(data.labelled)
    if rank() == 1 and what == "fewer":
        data = replace(data, labelled=labelled[:-1])
    if rank() == 1 and what == "another size":
        data = replace(data, labelled=[replace(labelled[0], label=labelled[0].image), *labelled[1:]])
    if rank() == 1 and what == "classes":
        data = replace(data, classes=(*data.classes[:-1], "other"))
    refuse_other_data(data, ["labelled", "validation"])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("fewer", "rank 1 finds other labelled images than rank 0 (7, not 8)"),
        ("another size", "other labelled images than rank 0 (other ids or files of other sizes)"),
        ("classes", "rank 1 finds other classes"),
        ("nothing", None),
    ],
)
def test_ranks_that_find_different_data_are_all_refused(tiny_configs, what, message):
    errors = run_apart(compare, tiny_configs[0], what, processes=2)
    assert len(errors) == (2 if message else 0)
    assert all(message in error for error in errors)
