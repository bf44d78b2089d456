"""Ranks that have different data before them."""

from dataclasses import replace
from pathlib import Path

import pytest

from dataloaders import open_data
from tests.trainer.runs import run_apart
from trainer.record import Record
from utils.config_file import load_config
from utils.distributed import rank


def compare(config_file: Path, what: str, device) -> None:
    data = open_data(load_config(config_file))
    labelled = list(data.labelled)
    if rank() == 1 and what == "fewer":
        data = replace(data, labelled=labelled[:-1])
    if rank() == 1 and what == "other masks":
        data = replace(data, labelled=[replace(labelled[0], label=labelled[0].image), *labelled[1:]])
    if rank() == 1 and what == "classes":
        data = replace(data, classes=(*data.classes[:-1], "other"))
    source = "another" if rank() == 1 and what == "checkpoint" else "one"
    Record(Path(), "train", data.fingerprints("labelled", "validation"), source).refuse_unlike_ranks()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("fewer", "rank 1 finds another content than rank 0 of the labelled images or masks"),
        ("other masks", "rank 1 finds another content than rank 0 of the labelled images or masks"),
        ("classes", "rank 1 finds another content than rank 0 of the classes"),
        ("checkpoint", "rank 1 finds another content than rank 0 of the checkpoint"),
        ("nothing", None),
    ],
)
def test_ranks_that_find_different_data_or_checkpoints_are_all_refused(tiny_configs, what, message):
    errors = run_apart(compare, tiny_configs[0], what, processes=2)
    assert len(errors) == (2 if message else 0)
    assert [error for error in errors if message not in error] == []
