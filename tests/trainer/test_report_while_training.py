"""The page of a run while it trains: written at every validation, and never able to end the training."""

import errno

import pytest
import torch

import trainer.stages as stages
from dataloaders import open_data
from tests.trainer.evaluation.report.test_page import Page
from tests.trainer.runs import weights
from trainer.evaluation.report import write_report
from trainer.loop.resume import Origin
from trainer.loop.trainer import Trainer
from utils.config_file import load_config
from utils.errors import NotWrittenError
from utils.stop import Stopped

CPU = torch.device("cpu")

FEW = ("trainer.epochs=1", "trainer.tensorboardX=false")  # two validations


def train(config_file, name, monkeypatch, write):
    """The run's folder; ``write`` takes the place of ``write_report``."""
    config = load_config(config_file, [*FEW, f"experim_name={name}"])
    monkeypatch.setattr(stages, "write_report", write)
    stages.run_stage("train", config, stages.Options(), CPU)
    return config.run_dir


def test_page_is_written_at_every_validation_with_classes_and_pictures(tiny_configs, monkeypatch):
    pages = []

    def write(*arguments, **options):
        path = write_report(*arguments, **options)
        pages.append(Page(path.read_text()))
        return path

    train(tiny_configs[0], "watched_baseline", monkeypatch, write)
    first, second, last = pages
    for iteration, page in ((2, first), (4, second)):
        assert f"in training: iteration {iteration} of 4" in page.text
        assert f"At iteration {iteration}." in page.text
        assert "Last validation" in page.headings
        assert "cross" in page.text
        assert len(list(page.images())) == 3 * 4  # image, target, prediction
    assert "in training" not in last.text
    assert len(list(last.images())) == 3 * 4


@pytest.mark.parametrize(
    "error",
    [NotWrittenError("report.html: cannot be written"), OSError(errno.ENOSPC, "No space left"), ZeroDivisionError()],
)
def test_page_that_fails_is_a_warning_and_the_training_is_the_same(tiny_configs, monkeypatch, capsys, error):
    def fail(config, data, *, progress="", **options):
        if progress:
            raise error
        return write_report(config, data, **options)

    plain = train(tiny_configs[0], "plain_baseline", monkeypatch, write_report)
    capsys.readouterr()
    broken = train(tiny_configs[0], "broken_baseline", monkeypatch, fail)
    assert capsys.readouterr().err.count("report.html: is not written this time") == 2
    one, other = (weights(run_dir / "best_model.pth") for run_dir in (plain, broken))
    assert all(torch.equal(one[name], other[name]) for name in one)


def finished(config_file):
    """A trainer that goes on from the end of a training, as after a kill between its last save and its page."""
    config = load_config(config_file, [*FEW, "experim_name=killed_baseline"])
    data = open_data(config)
    Trainer(config, data, CPU).train()
    return Trainer(config, data, CPU, Origin.read(config.run_dir / "checkpoint.pth"))


def test_training_that_goes_on_from_its_end_knows_what_it_predicts(tiny_configs):
    trainer = finished(tiny_configs[0])
    before = (trainer.config.run_dir / "history.jsonl").read_text()
    trainer.train()
    assert len(trainer.board.scenes) == 4
    assert (trainer.config.run_dir / "history.jsonl").read_text() == before


def test_training_that_is_stopped_there_is_not_taken_for_done(tiny_configs, monkeypatch):
    trainer = finished(tiny_configs[0])
    monkeypatch.setattr(trainer.board, "keep_scene", lambda *_: setattr(trainer.stop, "asked", True))
    with pytest.raises(Stopped):
        trainer.train()
