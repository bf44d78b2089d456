"""`--check_data` through the command line."""

import shutil

import numpy as np

import main as command_line
from dataloaders import open_data
from tests.conftest import refused
from tests.dataloaders.miniature import write_lines, write_mask
from utils.config_file import load_config
from utils.fingerprint import changed


def test_check_of_the_data_says_by_its_exit_code_whether_something_is_wrong(tiny_configs, demo_set, tmp_path, capsys):
    shutil.copytree(demo_set, tmp_path / "data")
    arguments = ["-c", str(tiny_configs[1]), "--check_data", "True", "--set", f"data_dir={tmp_path / 'data'}"]
    assert command_line.main(arguments) == 0
    assert "wrong: 0" in capsys.readouterr().out
    assert not (tmp_path / "saved").exists()
    bad = next((tmp_path / "data").rglob("val_0001.jpg"))
    bad.write_bytes(bad.read_bytes()[:-100])
    assert command_line.main(arguments) == 1
    assert f"wrong: 1\n  {bad}: cannot be read" in capsys.readouterr().out
    bad.unlink()
    assert "the image val_0001 is missing" in refused(capsys, *arguments)


def test_check_of_the_data_stores_the_range_of_16_bit_images(tiny_configs, tmp_path, capsys):
    root, deep = tmp_path / "data", np.full((16, 16), 100, np.uint16)
    write_lines(root / "classes.txt", "a", "b")
    write_lines(root / "ImageSets/Segmentation/val.txt", "c")
    for name in "abc":
        write_mask(root / f"JPEGImages/{name}.png", deep * (40 if name == "b" else 1))
        write_mask(root / f"SegmentationClass/{name}.png", 1, (16, 16))
    settings = ["dataset=custom", f"data_dir={root}", "n_labeled_examples=1"]
    arguments = ["-c", str(tiny_configs[0]), *(part for setting in settings for part in ("--set", setting))]
    unsaid = open_data(load_config(tiny_configs[0], settings))
    assert unsaid.value_range is None
    assert command_line.main([*arguments, "--check_data"]) == 0
    assert f"100 to 4000, in {root / 'value_range.json'}" in capsys.readouterr().out
    stored = open_data(load_config(tiny_configs[0], settings))
    assert stored.value_range == (100, 4000)
    other = changed(unsaid.fingerprints("labelled"), stored.fingerprints("labelled"))
    assert other == ["the range of 16-bit values"], "stages done before and after would see other images unnoticed"
    assert open_data(load_config(tiny_configs[0], [*settings, "data.value_range=[0,9]"])).value_range == (0, 9)
    write_mask(root / "JPEGImages/a.png", deep * 50)
    assert command_line.main([*arguments, "--check_data"]) == 0
    assert "values from 100 to 5000, but data.value_range is 100 to 4000" in capsys.readouterr().out
    (root / "value_range.json").write_text("[1]")
    assert "must read" in refused(capsys, *arguments, "--check_data")
