import json
import re

import torch

import main as command_line
from dataloaders import open_data
from trainer.trainer import Trainer
from utils.config_file import load_config


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
