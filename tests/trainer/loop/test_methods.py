"""FixMatch, UniMatch and the shared settings through the trainer."""

import json

import pytest
import torch

import main as command_line
from dataloaders import open_data
from tests.conftest import write_tiny_configs
from tests.trainer.loop.test_trainer import train
from tests.trainer.runs import history, prepare_subclasses, run_apart, weights
from trainer.loop.resume import Origin
from trainer.loop.trainer import Trainer
from trainer.methods.fixmatch import FixMatchStep
from utils.config_file import load_config
from utils.distributed import rank
from utils.errors import UsageError

CPU = torch.device("cpu")
EASY = "model.pos_thresh_value=0.2"
METHODS = {
    "fixmatch": ("name=FixMatch", EASY),
    "unimatch": ("name=UniMatch", EASY, "model.cutmix=0"),
    "usrn": ("name=USRN", EASY, "model.teacher=ema", "model.cutmix=0.9", "model.strong_view=unimatch"),
    "baseline": ("name=Baseline", "model.teacher=ema"),
}


@pytest.fixture(scope="module")
def configs(demo_set, tmp_path_factory):
    """The tiny USRN's configuration, whose subclasses are there."""
    baseline, usrn = write_tiny_configs(demo_set, tmp_path_factory.mktemp("methods"), num_workers=0)
    prepare_subclasses(baseline)
    return usrn


@pytest.mark.parametrize("method", METHODS)
def test_run_with_a_teacher_that_goes_on_ends_as_an_unbroken_one(configs, method):
    maps = f"label_subcls={configs.parent}/saved/tiny_baseline/label_subcls_balanced_kmeans"
    options = (*METHODS[method], maps, "trainer.epochs=1")
    _, whole = train(configs, *options, f"experim_name=whole_{method}")
    _, broken = train(configs, *options, f"experim_name=broken_{method}", stop_after=3)
    train(configs, *options, f"experim_name=broken_{method}", resume=broken / "checkpoint.pth")
    for name in ("best_model.pth", "checkpoint.pth"):
        expected, found = weights(whole / name), weights(broken / name)
        assert all(torch.equal(expected[key], found[key]) for key in expected)
    students = [torch.load(run / "checkpoint.pth", weights_only=True)["resume"]["student"] for run in (whole, broken)]
    assert all(torch.equal(students[0][key], students[1][key]) for key in students[0])
    assert any(not torch.equal(students[0][key], expected[f"module.{key}"]) for key in students[0])
    assert history(whole) == history(broken)
    assert method == "baseline" or any(entry.get("Lu_reg", 0) > 0 for entry in history(whole))


def two_iterations(config_file, folder, device):
    config = load_config(config_file, ["name=UniMatch", EASY, "experim_name=two_unimatch"])
    trainer = Trainer(config, open_data(config), device)
    trainer.step.train()
    for batch, _ in zip(trainer.batches, range(2), strict=False):
        trainer._iterate(batch)
        trainer.iteration += 1
    states = {"teacher": trainer.teacher.network.state_dict(), "student": trainer.network.state_dict()}
    torch.save(states, folder / f"{rank()}.pth")


def test_processes_have_the_same_teacher(configs, tmp_path):
    assert run_apart(two_iterations, configs, tmp_path, processes=2) == []
    first, second = (torch.load(tmp_path / f"{number}.pth", weights_only=True) for number in range(2))
    assert all(torch.equal(first["teacher"][name], second["teacher"][name]) for name in first["teacher"])
    assert any(not torch.equal(first["teacher"][name], first["student"][name]) for name in first["teacher"])


def test_what_is_validated_and_kept_as_the_best_model_is_the_teacher(configs):
    config = load_config(configs, ["name=FixMatch", EASY, "experim_name=tiny_fixmatch"])
    data = open_data(config)
    Trainer(config, data, CPU).train()
    options = ("--config", str(configs), "--set", "name=FixMatch", "--set", EASY, "--set", "experim_name=tiny_fixmatch")
    assert command_line.main([*options, "--test"]) == 0
    results = json.loads((config.run_dir / "results.json").read_text())
    validated = [entry["val_mean_iou"] for entry in history(config.run_dir) if "val_mean_iou" in entry]
    assert results["mean_iou"] == pytest.approx(max(validated))
    assert command_line.main([*options, "--predict", str(data.validation[0].image)]) == 0


def test_skipped_step_leaves_network_and_teacher_alone(configs, monkeypatch):
    config = load_config(configs, ["name=FixMatch", EASY, "experim_name=skipped_fixmatch"])
    trainer = Trainer(config, open_data(config), CPU)
    batches = iter(trainer.batches)
    trainer.step.train()
    trainer._iterate(next(batches))
    forward = FixMatchStep.forward
    spoilt = lambda self, **batch: (out := forward(self, **batch)) | {"total": out["total"] * torch.nan}  # noqa: E731
    monkeypatch.setattr(FixMatchStep, "forward", spoilt)
    trained = (trainer.network, trainer.teacher.network)
    before = [{name: value.clone() for name, value in network.state_dict().items()} for network in trained]
    trainer.iteration = 1
    trainer._iterate(next(batches))
    for network, state in zip(trained, before, strict=True):
        floats = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
        assert all(torch.equal(value, state[name]) for name, value in floats.items())


def test_weights_alone_are_where_network_and_teacher_start(configs):
    config = load_config(configs, ["name=FixMatch", EASY, "experim_name=first_fixmatch", "trainer.epochs=1"])
    Trainer(config, open_data(config), CPU).train()
    started = Trainer(config, open_data(config), CPU, Origin.read(config.run_dir / "best_model.pth"))
    given = weights(config.run_dir / "best_model.pth")
    for network in (started.network, started.teacher.network):
        assert all(torch.equal(value, given[f"module.{name}"]) for name, value in network.state_dict().items())


def test_comparison_methods_have_their_authors_settings_unless_said_otherwise(configs):
    settings = load_config(configs, ["name=UniMatch", "model.cutmix=0.25"]).model
    assert (settings.teacher, settings.cutmix, settings.strong_view) == ("ema", 0.25, "unimatch")
    assert settings.pos_thresh_value == 0.95
    settings = load_config(configs).model
    assert (settings.teacher, settings.cutmix, settings.strong_view) == ("student", 0, "usrn")


def test_stages_2_and_3_are_not_of_a_comparison_method(configs, capsys):
    options = ["--config", str(configs), "--set", "name=FixMatch", "--set", "experim_name=tiny_fixmatch"]
    assert command_line.main([*options, "--save_feature"]) == 2
    assert "is a FixMatch run" in capsys.readouterr().err


def test_plan_of_a_comparison_method_counts_the_teacher(configs, capsys):
    options = ["--config", str(configs), "--set", "name=FixMatch", "--set", "experim_name=planned_fixmatch"]
    assert command_line.main([*options, "--plan"]) == 0
    said = capsys.readouterr().out
    assert "4 labelled + 4 unlabelled crops" in said
    assert "gradients and momentum and the teacher" in said
    assert "subclasses" not in said


def test_checkpoint_whose_student_is_of_another_network_is_refused(configs):
    config = load_config(configs, ["name=FixMatch", EASY, "experim_name=other_fixmatch", "trainer.epochs=1"])
    Trainer(config, open_data(config), CPU).train()
    path = config.run_dir / "checkpoint.pth"
    contents = torch.load(path, weights_only=True)
    del contents["resume"]["student"]["classifier.1.bias"]
    torch.save(contents, path)
    with pytest.raises(UsageError, match=r"missing: classifier\.1\.bias"):
        Trainer(config, open_data(config), CPU, Origin.read(path))
