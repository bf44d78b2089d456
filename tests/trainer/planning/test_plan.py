import json
import re

import pytest
import torch
from torch import nn

import main as command_line
from dataloaders import open_data
from trainer.loop.assembly import describe
from trainer.loop.trainer import Trainer
from trainer.planning import memory, plan, rehearsal
from utils.config_file import load_config
from utils.schedule import Schedule


def printed_plan(path, capsys, *more) -> str:
    assert command_line.main(["--plan", "True", "-c", str(path), "--device", "cpu", *more]) == 0
    return capsys.readouterr().out


def test_plan_says_counts_schedule_subclasses_parameters_memory_and_time(tiny_configs, capsys):
    text = printed_plan(tiny_configs[1], capsys, "--set", "model.epoch_start_unsup=1")
    assert "8 labelled, 8 unlabelled, 5 validation images; 8 classes" in text
    assert "8 iterations: 4 epochs of 2, 4 validations" in text
    assert "4 labelled + 4 unlabelled crops of 32 pixels; the unlabelled ones from epoch 2 on" in text
    assert re.search(r"memory: +about \d+ MB, estimated", text)
    assert re.search(r"2 iterations of [\d.]+ s with labelled images only \(\d timed\); 6 iterations", text)
    assert "4 validations of 5 images" in text


def test_plan_writes_nothing(tiny_configs, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    for path in tiny_configs:
        printed_plan(path, capsys)
    assert sorted(tmp_path.rglob("*")) == before


def test_plan_counts_subclasses_and_parameters_as_the_run_does(tiny_configs, tmp_path, capsys):
    config, usrn = map(load_config, tiny_configs)
    data = open_data(config)
    planned = printed_plan(tiny_configs[1], capsys)
    for stage in ("train", "save_feature", "clustering"):
        command_line.main([*(["--" + stage] if stage != "train" else []), "-c", str(tiny_configs[0])])
    table = json.loads((config.subclass_dir / "subclasses.json").read_text())
    trainer = Trainer(usrn, data, torch.device("cpu"))
    parameters = sum(parameter.numel() for parameter in trainer.network.parameters())
    capsys.readouterr()
    after = printed_plan(tiny_configs[1], capsys)
    assert "by the labelled pixels" in planned
    assert "made by stage 3" in after
    for text in (planned, after):
        assert f"{sum(table['counts'])} (" in text
        assert f"USRN {parameters / 1e6:.1f} M" in text


def test_time_without_and_with_unlabelled_images_is_measured_apart(tiny_configs, capsys, monkeypatch):
    def seconds(trainer) -> tuple[float, int]:
        return (1000.0 if "u_weak" in next(iter(trainer.batches)) else 1.0), 1

    monkeypatch.setattr(rehearsal, "_seconds_per_iteration", seconds)
    text = printed_plan(tiny_configs[1], capsys, "--set", "model.epoch_start_unsup=1", "--set", "trainer.val=false")
    assert "2 iterations of 1 s with labelled images only (1 timed); 6 iterations of 1e+03 s with unlabelled" in text
    assert "time:        about 1.7 h" in text


@pytest.mark.parametrize("kind", [0, 1], ids=["baseline", "usrn"])
def test_memory_of_a_small_step_scales_to_that_of_a_whole_one(tiny_configs, capsys, monkeypatch, kind):
    def kept() -> float:
        number, unit = re.search(r"([\d.]+) (MB|GB) kept", printed_plan(tiny_configs[kind], capsys, *larger)).groups()
        return float(number) * {"MB": 1, "GB": 1000}[unit]

    larger = [part for key in ("train_supervised", "train_unsupervised") for part in ("--set", f"{key}.crop_size=128")]
    larger += ["--set", "model.base_width=16"]
    monkeypatch.setattr(rehearsal.Rehearsal, "times", lambda _: rehearsal.Times([], 0, 0, 0.0))
    scaled = kept()
    monkeypatch.setattr(memory, "SMALL_BATCH", 4)
    monkeypatch.setattr(memory, "SMALL_CROP", 128)
    assert scaled == pytest.approx(kept(), rel=0.03)
    larger += ["--set", "trainer.precision=bf16"]
    assert scaled == pytest.approx(kept(), rel=0.03)  # in 32 bit, which is what a GPU's share in 16 bit is taken of


def test_time_is_not_tried_where_the_memory_is_not_there(tiny_configs, capsys, monkeypatch):
    monkeypatch.setattr(plan, "available_memory", lambda: 1000.0)
    monkeypatch.setattr(rehearsal.Rehearsal, "times", None)
    assert "not measured: the machine has 0 MB of free memory" in printed_plan(tiny_configs[1], capsys)


@pytest.mark.parametrize(("start", "said"), [(3, False), (4, True)])
def test_training_that_ends_before_it_sees_unlabelled_images_says_so_and_so_does_its_plan(tiny_configs, start, said):
    for path, never in zip(tiny_configs, (False, said), strict=True):
        config = load_config(path, [f"model.epoch_start_unsup={start}"])
        text = describe(config, open_data(config), nn.Identity(), Schedule.from_config(config), torch.device("cpu"))
        assert ("NO unlabelled image is used" in text) == never
        assert ("the unlabelled ones never" in plan._start(config, start)) == never
