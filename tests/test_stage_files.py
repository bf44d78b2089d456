"""Every stage opens only the lists and files of the data set that it uses: it runs where all others are gone."""

import shutil

import pytest

import main as command_line
from dataloaders import open_data
from utils.config_file import load_config


def files_of(data, part):
    return [file for sample in getattr(data, part) for file in (sample.image, sample.label) if file]


@pytest.mark.parametrize(
    ("kind", "arguments", "gone"),
    [
        ("baseline", [], ["unlabelled"]),
        ("baseline", ["--set", "trainer.val=false"], ["unlabelled", "validation"]),
        ("baseline", ["--save_feature"], ["unlabelled", "validation"]),
        ("baseline", ["--clustering"], ["unlabelled", "validation"]),
        ("usrn", ["--set", "trainer.val=false"], ["validation"]),
        ("usrn", ["--test"], ["labelled", "unlabelled", "lists", "subclass maps"]),
        ("usrn", ["--predict", "picture.jpg"], ["everything", "subclass maps"]),
        ("usrn", ["--export", "exported_program"], ["everything", "subclass maps"]),
    ],
    ids=["stage 1", "1 unvalidated", "2", "3", "4 unvalidated", "test", "predict", "export"],
)
def test_stage_runs_where_what_it_does_not_use_is_gone(
    finished_runs, demo_set, tmp_path, monkeypatch, kind, arguments, gone
):
    monkeypatch.setattr("trainer.stages.export_network", lambda *_: None)  # which takes long and opens no data
    folder = finished_runs
    root, saved = tmp_path / "data", tmp_path / "saved"
    shutil.copytree(demo_set, root)
    shutil.copytree(folder / "saved", saved)
    settings = [f"data_dir={root}", f"trainer.save_dir={saved}", f"trainer.log_dir={saved}", "trainer.epochs=1"]
    config_file = folder / f"tiny_{kind}.json"
    data = open_data(load_config(config_file, settings))
    picture = shutil.copy(data.validation[0].image, tmp_path / "picture.jpg")
    devkit = root / "VOCdevkit" / "VOC2012"
    files = [file for part in ("labelled", "unlabelled", "validation") if part in gone for file in files_of(data, part)]
    files += [devkit / "ImageSets" / "Segmentation" / "train.txt"] if "lists" in gone else []
    for file in files:
        file.unlink()
    if "everything" in gone:
        shutil.rmtree(root)
    if "subclass maps" in gone:
        shutil.rmtree(saved / "tiny_baseline")
    arguments = [str(picture) if argument == "picture.jpg" else argument for argument in arguments]
    overrides = [part for setting in settings for part in ("--set", setting)]
    assert command_line.main([*arguments, "--force", "--config", str(config_file), *overrides]) == 0
