import json

import pytest

from utils.commands import command
from utils.config_file import load_config

RUN = {"name": "Baseline", "experim_name": "mine_baseline", "dataset": "voc", "data_dir": "d",
       "n_labeled_examples": 1, "num_images_all": 8, "trainer": {"epochs": 1}}  # fmt: skip


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my settings" / "first.json"
    path.parent.mkdir()
    path.write_text(json.dumps(RUN))
    return path


def test_command_names_the_file_that_was_read_and_repeats_what_overrode_it(file):
    config = load_config(file, ["experim_name=other", "data_dir=a b"])
    assert command("--test True", config.run_dir, config) == (
        f"python3 main.py --test True --config '{file}' --set experim_name=other --set 'data_dir=a b'"
    )


def test_command_for_another_run_is_the_one_that_it_was_made_with(file, tmp_path):
    config = load_config(file)
    run_dir = tmp_path / "saved" / "x_baseline"
    assert command("-f", run_dir, config).endswith(f"--config '{file.parent / 'x_baseline.json'}'")
    run_dir.mkdir(parents=True)
    entries = {"train": {"made": {"arguments": "--config a"}}, "test": {"made": {"arguments": "--config b"}}}
    (run_dir / "stages.json").write_text(json.dumps(entries))
    assert command("-f", run_dir, config) == command("-f", run_dir) == "python3 main.py -f --config b"


@pytest.mark.parametrize("record", ["", "{", "[]", "{}", '{"train": {"made": 3}}', '{"train": {"made": {}}}'])
def test_record_that_says_nothing_leaves_the_file_named_after_the_run(record, tmp_path):
    (tmp_path / "stages.json").write_text(record)
    assert command("-f", tmp_path) == f"python3 main.py -f --config configs/{tmp_path.name}.json"


def test_where_a_configuration_is_from_is_no_part_of_it(file, tmp_path):
    here, there = load_config(file), load_config(file, ["experim_name=mine_baseline"])
    assert here == there
    assert here.model_dump() == there.model_dump()
