"""The four stages and the user's mistakes, through the command line."""

import io
import json
import shutil
from contextlib import redirect_stdout

import numpy as np
import pytest
from PIL import Image

import main as command_line
from tests.conftest import refused, write_tiny_configs
from trainer.loop.board import TAGS, UNLABELLED_PICTURE, VALIDATION_PICTURE
from utils.checkpoint import load_checkpoint
from utils.fingerprint import sha256


@pytest.fixture(scope="module")
def finished(demo_set, tmp_path_factory):
    """The folder of a run of all four stages, evaluation and summary; and what each command printed."""
    folder = tmp_path_factory.mktemp("run")
    write_tiny_configs(demo_set, folder, num_workers=1)
    printed = {}
    for title, arguments in {
        "1": ["--config", folder / "tiny_baseline.json"],
        "2": ["--save_feature", "True", "--config", folder / "tiny_baseline.json"],
        "3": ["--clustering", "--config", folder / "tiny_baseline.json"],
        "4": ["--config", folder / "tiny_usrn.json"],
        "test baseline": ["--test", "True", "--config", folder / "tiny_baseline.json"],
        "test": ["--test", "--config", folder / "tiny_usrn.json"],
        "summary": ["--summary", "True", "--config", folder / "tiny_usrn.json"],
    }.items():
        with redirect_stdout(io.StringIO()) as out:
            assert command_line.main([str(argument) for argument in arguments]) == 0, title
        printed[title] = out.getvalue()
    return folder, printed


def test_four_stages_leave_what_the_method_says(finished, demo_set):
    folder, _ = finished
    baseline, usrn = folder / "saved" / "tiny_baseline", folder / "saved" / "tiny_usrn"
    features = sorted((baseline / "features").glob("*.npy"))
    maps = sorted((baseline / "label_subcls_balanced_kmeans").glob("*.png"))
    assert len(features) == 8
    assert [path.stem for path in maps] == ["subclasses", *(path.stem for path in features)]
    feature = np.load(features[0])
    height, width = np.asarray(Image.open(demo_set / f"VOCdevkit/VOC2012/SegmentationClass/{maps[1].name}")).shape
    assert feature.dtype == np.float16
    assert feature.shape == (8, -(-height // 8), -(-width // 8))
    assert np.asarray(Image.open(maps[1])).shape == (height, width)
    table = json.loads((baseline / "label_subcls_balanced_kmeans" / "subclasses.json").read_text())
    assert table["checkpoint"] == sha256(baseline / "best_model.pth")
    checkpoint = load_checkpoint(usrn / "best_model.pth")
    assert len(checkpoint["state_dict"]["classifier_SubCls.1.weight"]) == sum(table["counts"])
    assert any((usrn / "tensorboard").iterdir())
    assert len(list((usrn / "preds").glob("*.png"))) == 5
    assert Image.open(usrn / "comparison.png").width > 2 * 4 * 40  # two blocks of image, target, baseline, USRN


def test_tensorboard_has_every_loss_rate_score_and_picture(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, _ = finished
    events = EventAccumulator(str(folder / "saved" / "tiny_usrn" / "tensorboard")).Reload()
    tags = set(events.Tags()["scalars"])
    assert set(TAGS.values()) - {TAGS["mask_ratio"]} <= tags  # that one is of FixMatch and UniMatch alone
    assert {"learning rate/heads", "learning rate/backbone", "mIoU/train", "mIoU/val", "mIoU/best val"} <= tags
    assert {"val IoU of classes/disk", "class shares of labels/disk"} <= tags
    assert [event.step for event in events.Scalars("mIoU/val")] == [2, 4, 6, 8]
    pictures = set(events.Tags()["images"])
    assert {f"{UNLABELLED_PICTURE}/{number}" for number in range(4)} <= pictures
    assert any(tag.startswith(f"{VALIDATION_PICTURE}/val_") for tag in pictures)


def test_both_runs_end_with_a_report_of_their_own(finished):
    folder, _ = finished
    baseline, usrn = ((folder / "saved" / run / "report.html").read_text() for run in ("tiny_baseline", "tiny_usrn"))
    for page in (baseline, usrn):
        for heading in ("Classes", "Curves", "Confusion", "Subclasses", "Images", "Run"):
            assert f"<h2>{heading}</h2>" in page
        assert str(folder) not in page
        assert "entropy, val_" in page
    assert "of its baseline" in usrn
    assert "baseline, val_" in usrn
    assert "of its baseline" not in baseline


def test_a_stage_is_done_where_its_report_fails(finished, capsys, monkeypatch):
    folder, _ = finished
    monkeypatch.setattr("trainer.stages.write_report", lambda *_, **__: 1 / 0)
    assert command_line.main(["-c", str(folder / "tiny_usrn.json"), "--test"]) == 0
    printed = capsys.readouterr()
    assert "mean" in printed.out
    assert "report.html: could not be written (ZeroDivisionError" in printed.err


def test_summary_sets_the_baseline_beside_usrn(finished):
    folder, printed = finished
    mean = [line.split() for line in printed["summary"].splitlines() if line.startswith("mean")]
    for column, run_name in ((1, "tiny_baseline"), (2, "tiny_usrn")):
        result = json.loads((folder / "saved" / run_name / "results.json").read_text())
        assert mean[0][column] == f"{100 * result['mean_iou']:.2f}"
    assert "checkpoint" in printed["summary"]
    assert "cross" in printed["test"]  # a row for every class


def test_finished_stages_are_not_repeated_unless_forced(finished, capsys):
    folder, _ = finished
    baseline, usrn = folder / "tiny_baseline.json", folder / "tiny_usrn.json"
    best = folder / "saved" / "tiny_usrn" / "best_model.pth"
    before = best.stat().st_mtime_ns
    for arguments in (
        ["-c", baseline], ["-c", baseline, "--save_feature"], ["-c", baseline, "--clustering"], ["-c", usrn],
        ["-c", usrn, "--test"],
    ):  # fmt: skip
        assert command_line.main([str(argument) for argument in arguments]) == 0
        printed = capsys.readouterr().out
        assert "is done" in printed
        assert "--force" in printed
    assert best.stat().st_mtime_ns == before
    assert command_line.main(["-c", str(usrn), "--force"]) == 0
    assert best.stat().st_mtime_ns != before


def test_result_of_another_configuration_is_not_overwritten(finished, capsys):
    folder, _ = finished
    message = refused(capsys, "-c", folder / "tiny_baseline.json", "--set", "trainer.epochs=3")
    assert "trainer.epochs: 2 → 3" in message
    assert "--force" in message


def test_features_are_made_again_when_the_model_has_changed(finished, tmp_path, capsys):
    folder, _ = finished
    shutil.copytree(folder / "saved", tmp_path / "saved")
    here = ["--set", f"trainer.save_dir={tmp_path}/saved"]
    network = folder / "tiny_baseline.json"
    assert command_line.main(["-c", str(network), "--force", "--set", "trainer.tensorboardX=false", *here]) == 0
    path = tmp_path / "saved" / "tiny_baseline" / "best_model.pth"
    import torch

    contents = torch.load(path, weights_only=True)
    contents["state_dict"]["module.classifier.1.bias"] += 1
    torch.save(contents, path)
    assert command_line.main(["-c", str(network), "--save_feature", *here]) == 0
    assert "has changed since" in capsys.readouterr().out


def test_subclass_maps_of_another_run_are_used_with_a_warning(finished, tmp_path, capsys):
    folder, _ = finished
    maps = folder / "saved" / "tiny_baseline" / "label_subcls_balanced_kmeans"
    arguments = ["-c", str(folder / "tiny_usrn.json"), "--set", "experim_name=other_usrn"]
    arguments += ["--set", f"trainer.save_dir={tmp_path}", "--set", f"trainer.log_dir={tmp_path}"]
    assert command_line.main([*arguments, "--set", f"label_subcls={maps}"]) == 0
    assert "subclass maps of another run" in capsys.readouterr().err
    assert (tmp_path / "other_usrn" / "best_model.pth").is_file()


def test_missing_data_set_names_the_place_and_the_readme(tiny_configs, capsys):
    message = refused(capsys, "-c", tiny_configs[0], "--set", "data_dir=dataset/nowhere")
    assert "dataset/nowhere" in message
    assert "README" in message


def test_missing_checkpoint_is_named(tiny_configs, capsys):
    for flags in (["--test"], ["--save_feature"], []):
        assert "gone.pth" in refused(capsys, "-c", tiny_configs[0], "--resume", "gone.pth", *flags)


def test_stages_out_of_order_name_the_command_to_run(tiny_configs, capsys):
    assert "--clustering True" in refused(capsys, "-c", tiny_configs[1])
    assert "--save_feature True" in refused(capsys, "-c", tiny_configs[0], "--clustering")
    assert "Train the run first" in refused(capsys, "-c", tiny_configs[0], "--save_feature")


def test_label_id_outside_the_classes_names_file_and_id(tiny_configs, demo_set, tmp_path, capsys):
    shutil.copytree(demo_set, tmp_path / "data")
    folder = tmp_path / "data" / "VOCdevkit" / "VOC2012"
    for path in (folder / "SegmentationClass").glob("train_*.png"):
        Image.fromarray(np.full(np.asarray(Image.open(path)).shape, 77, np.uint8)).save(path)
    for workers in (0, 1):
        message = refused(
            capsys, "-c", tiny_configs[0], "--set", f"data_dir={tmp_path / 'data'}",
            "--set", f"train_supervised.num_workers={workers}",
        )  # fmt: skip
        assert "label id 77" in message
        assert "train_00" in message
        assert message.count("\n") == 1


def test_mistakes_in_the_configuration_are_named(tiny_configs, tmp_path, capsys):
    broken = tmp_path / "broken.json"
    broken.write_text('{"name": "Baseline",\n "experim_name" "x"}')
    assert "line 2, column 17" in refused(capsys, "-c", broken)
    assert "trainer.epochs" in refused(capsys, "-c", tiny_configs[0], "--set", "trainer.epochs=many")
    assert "did you mean trainer.epochs" in refused(capsys, "-c", tiny_configs[0], "--set", "trainer.epoch=3")


@pytest.mark.parametrize("key", ["save_dir", "log_dir"])
def test_folder_that_cannot_be_made_is_named(tiny_configs, tmp_path, capsys, key):
    (tmp_path / "file").touch()
    message = refused(capsys, "-c", tiny_configs[0], "--set", f"trainer.{key}={tmp_path}/file/saved")
    assert f"{tmp_path}/file" in message
