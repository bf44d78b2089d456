"""``trainer.minutes``: schedules that fit into a time, made once and kept."""

import json

import pytest
import torch

import main as command_line
from dataloaders import open_data
from tests.conftest import refused
from tests.trainer.runs import CPU, run_apart, weights
from trainer import stages
from trainer.planning import rehearsal
from trainer.planning.budget import fit_to_minutes, scaled
from trainer.planning.rehearsal import Part, Rehearsal, Times, planned_start, planned_validations
from utils.config_file import load_config
from utils.schedule import Schedule

SECONDS = {"Baseline": 0.5, "USRN": 1.0}


@pytest.fixture
def machine(monkeypatch):
    """A machine that takes these seconds an iteration, whose speed can be changed; it counts how often it was timed."""
    state = {"speed": 1.0, "timed": 0}

    def times(of_one):
        state["timed"] += 1
        config = of_one.config
        schedule, start = Schedule.from_config(config), planned_start(config)
        seconds, before = SECONDS[config.name] / state["speed"], start * schedule.iterations_per_epoch
        parts = [Part(before, seconds / 2, 1, False), Part(schedule.iterations - before, seconds, 1, True)]
        return Times(parts, planned_validations(config), 5, 0.1 / state["speed"])

    monkeypatch.setattr(Rehearsal, "times", times)
    return state


def seconds_of(config, machine) -> float:
    """What the baseline and the method take with the schedule of a configuration."""
    pair = (config.model_copy(update={"name": name}) for name in ("Baseline", "USRN"))
    return sum(Rehearsal.times(_Of(of_kind)).total for of_kind in pair)


class _Of:
    def __init__(self, config):
        self.config = config


@pytest.mark.parametrize("minutes", [1, 10, 90])
@pytest.mark.parametrize("overrides", [(), ("model.epoch_start_unsup=20",), ("trainer.val=false",)])
def test_both_stages_fit_into_the_time_and_fill_most_of_it(tiny_configs, machine, minutes, overrides):
    settings = [f"trainer.minutes={minutes}", "trainer.epochs=20", *overrides]
    config = load_config(tiny_configs[1], settings)
    fit, _ = fit_to_minutes(config, open_data(config), CPU)
    after = scaled(config, fit)
    assert 0.3 * 60 * minutes < seconds_of(after, machine) < 60 * minutes
    assert planned_start(after) / Schedule.from_config(after).epochs == pytest.approx(
        planned_start(config) / Schedule.from_config(config).epochs, abs=0.02
    )


def test_slow_validations_become_fewer_and_one_stays(tiny_configs, machine):
    config = load_config(tiny_configs[1], ["trainer.minutes=1", "trainer.epochs=20"])
    assert planned_validations(config) == 40
    fit, _ = fit_to_minutes(config, open_data(config), CPU)
    assert 1 < planned_validations(scaled(config, fit)) <= 10  # of a second each, with a fifth of 30 seconds for them
    machine["speed"] = 0.01
    fit, _ = fit_to_minutes(config, open_data(config), CPU)
    assert planned_validations(scaled(config, fit)) == 1


def test_time_below_one_pass_is_a_warning_and_one_pass(tiny_configs, machine, caplog):
    config = load_config(tiny_configs[1], ["trainer.minutes=0.01"])
    fit, _ = fit_to_minutes(config, open_data(config), CPU)
    assert scaled(config, fit).trainer.epochs == 1
    assert "less than the shortest schedule" in caplog.text


def commands(tiny_configs, *more):
    baseline, usrn = (["-c", str(path), *more] for path in tiny_configs)
    return {
        "1": [*baseline, "--resume", "auto"], "2": [*baseline, "--save_feature"], "3": [*baseline, "--clustering"],
        "4": [*usrn, "--resume", "auto"], "test baseline": [*baseline, "--test"], "test": [*usrn, "--test"],
        "summary": [*usrn, "--summary"],
    }  # fmt: skip


def test_every_stage_has_the_schedule_that_stage_1_made_whatever_the_machine_does_later(tiny_configs, machine, capsys):
    steps = commands(tiny_configs, "--minutes", "0.2", "--set", "trainer.tensorboardX=false")
    for number, step in enumerate(steps.values()):
        assert command_line.main(step) == 0
        machine["speed"] = 1.0 + number
    assert machine["timed"] == 2  # baseline and method, once
    capsys.readouterr()
    for title in ("1", "2", "3", "4", "test baseline", "test"):
        assert command_line.main(steps[title]) == 0
        assert " is done: " in capsys.readouterr().out
    saved = load_config(tiny_configs[0]).run_dir.parent
    records = [json.loads((saved / f"tiny_{kind}" / "stages.json").read_text()) for kind in ("baseline", "usrn")]
    epochs = {record["train"]["config"]["trainer"]["epochs"] for record in records}
    assert len(epochs) == 1
    assert epochs != {2}
    for kind in (0, 1):
        other = ["-c", tiny_configs[kind], "--resume", "auto", "--minutes"]
        assert "minutes" in refused(capsys, *other, "7")
    assert command_line.main([*steps["1"], "--force"]) == 0
    assert machine["timed"] == 4


def test_run_that_was_stopped_goes_on_exactly_on_a_machine_of_another_speed(tiny_configs, machine):
    settings = ["trainer.minutes=0.2", "trainer.tensorboardX=false"]

    def train(name, stop_at=None):
        config = load_config(tiny_configs[0], [*settings, f"experim_name={name}_baseline"])
        iterate = stages.Trainer._iterate

        def iterate_and_ask(self, batch):
            self.stop.asked = self.iteration + 1 == stop_at
            return iterate(self, batch)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stages.Trainer, "_iterate", iterate_and_ask)
            if stop_at is None:
                stages.run_stage("train", config, stages.Options(resume="auto"), CPU)
            else:
                with pytest.raises(stages.Stopped):
                    stages.run_stage("train", config, stages.Options(resume="auto"), CPU)
        return config.run_dir

    whole = train("whole")
    train("broken", stop_at=3)
    machine["speed"] = 50.0
    broken = train("broken")
    one, other = (weights(folder / "checkpoint.pth") for folder in (whole, broken))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_stage_4_without_the_schedule_of_stage_1_is_refused(tiny_configs, machine, capsys):
    for step in list(commands(tiny_configs).values())[:3]:
        assert command_line.main(step) == 0
    message = refused(capsys, "-c", tiny_configs[1], "--minutes", "1")
    assert "schedule.json: is missing" in message
    message = refused(capsys, "-c", tiny_configs[0], "--minutes", "1")  # done without
    assert "trainer.minutes: None → 1.0" in message
    assert machine["timed"] == 0


def test_plan_says_the_schedule_and_writes_nothing(tiny_configs, machine, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert command_line.main(["--plan", "-c", str(tiny_configs[1]), "--minutes", "3"]) == 0
    printed = capsys.readouterr().out
    assert "3 minutes for all stages" in printed
    assert sorted(tmp_path.rglob("*")) == before


def _train_timed_shortly(config, device):
    rehearsal.TIMED_ITERATIONS = 1
    stages.run_stage("train", config, stages.Options(), device)


def test_two_processes_time_together_and_have_one_schedule(tiny_configs):
    """Really timed: the processes must not wait for each other."""
    config = load_config(tiny_configs[0], ["trainer.minutes=0.02", "trainer.tensorboardX=false"])
    assert run_apart(_train_timed_shortly, config, processes=2) == []
    assert json.loads((config.run_dir / "schedule.json").read_text())["validations"] > 0
