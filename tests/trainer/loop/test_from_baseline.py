"""Stage 4 that starts from stage 1: ``"pretrained": "baseline"``."""

import shutil

import pytest
import torch

import main as command_line
from dataloaders import open_data
from tests.conftest import refused
from tests.trainer.runs import weights
from trainer.loop.trainer import Trainer
from utils.config_file import load_config
from utils.errors import UsageError

CPU = torch.device("cpu")
HERE = "pretrained=baseline"


@pytest.fixture
def folder(finished_runs, tmp_path):
    """A copy of the finished runs of stages 1 to 4, which write where they are."""
    shutil.copytree(finished_runs, tmp_path / "runs")
    for path in (tmp_path / "runs").glob("*.json"):
        path.write_text(path.read_text().replace(str(finished_runs), str(tmp_path / "runs")))
    shutil.rmtree(tmp_path / "runs" / "saved" / "tiny_usrn")
    return tmp_path / "runs"


def begin(folder, *overrides):
    """A trainer of a run that starts from its baseline."""
    config = load_config(folder / "tiny_usrn.json", [HERE, *overrides])
    return Trainer(config, open_data(config), CPU)


def test_both_branches_start_from_the_baseline_and_the_subclass_classifier_from_random_weights(folder):
    given = {name.removeprefix("module."): value for name, value in baseline_of(folder).items()}
    plain, started = begin(folder, "pretrained=false").network.state_dict(), begin(folder).network.state_dict()
    for name, value in started.items():
        if name.startswith("classifier_SubCls"):
            assert torch.equal(value, plain[name])
        else:
            assert torch.equal(value, given[name.replace("_SubCls", "").replace("_aux", "")])


def baseline_of(folder):
    return weights(folder / "saved" / "tiny_baseline" / "best_model.pth")


def test_fixmatch_and_its_teacher_start_from_the_baseline(folder):
    trainer = begin(folder, "name=FixMatch", "experim_name=tiny_fixmatch")
    for network in (trainer.network, trainer.teacher.network):
        state = network.state_dict()
        assert all(
            torch.equal(state[name.removeprefix("module.")], value) for name, value in baseline_of(folder).items()
        )


def options(folder, *more):
    settings = (part for setting in (HERE, *more) for part in ("--set", setting))
    return ("--config", str(folder / "tiny_usrn.json"), *settings)


def test_baseline_that_is_missing_is_refused_with_the_command_that_trains_it(folder, capsys):
    (folder / "saved" / "tiny_baseline" / "best_model.pth").unlink()
    message = refused(capsys, *options(folder))
    assert "best_model.pth: is missing" in message
    assert "tiny_baseline.json" in message


def test_baseline_that_is_not_trained_to_its_end_is_refused(folder, capsys):
    checkpoint = folder / "saved" / "tiny_baseline" / "checkpoint.pth"
    (folder / "saved" / "tiny_baseline" / "stages.json").unlink()
    contents = torch.load(checkpoint, weights_only=True)
    contents["resume"]["finished"] = False
    torch.save(contents, checkpoint)
    assert "tiny_baseline: its training is not finished" in refused(capsys, *options(folder))


def test_baseline_of_other_classes_is_refused(folder):
    path = folder / "saved" / "tiny_baseline" / "best_model.pth"
    contents = torch.load(path, weights_only=True)
    contents["classes"][1:3] = contents["classes"][2:0:-1]
    torch.save(contents, path)
    with pytest.raises(UsageError, match="is of other classes than this run"):
        begin(folder)


def test_run_does_not_go_on_from_another_baseline_than_it_began_with(folder, capsys):
    assert command_line.main([*options(folder, "trainer.epochs=1")]) == 0
    capsys.readouterr()
    path = folder / "saved" / "tiny_baseline" / "best_model.pth"
    contents = torch.load(path, weights_only=True)
    contents["epoch"] += 1
    torch.save(contents, path)
    assert "the baseline's best model" in refused(capsys, *options(folder, "trainer.epochs=1"))


def test_baseline_itself_cannot_start_from_one(folder):
    with pytest.raises(UsageError, match="is for stage 4"):
        load_config(folder / "tiny_baseline.json", [HERE])
