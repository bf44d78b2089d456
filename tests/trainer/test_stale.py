"""A finished run of which something is changed, lost or damaged, and the same commands again."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import main as command_line
from tests.conftest import write_tiny_configs
from tests.trainer.runs import weights

STAGES = (["--resume", "auto"], ["--save_feature"], ["--clustering"], ["--test"])


@pytest.fixture(scope="module")
def finished(demo_set, tmp_path_factory):
    """A baseline of all its stages, and its data set."""
    folder = tmp_path_factory.mktemp("stale")
    shutil.copytree(demo_set, folder / "data")
    config, _ = write_tiny_configs(folder / "data", folder, num_workers=0)
    for stage in STAGES:
        assert command_line.main([*stage, "-c", str(config)]) == 0
    return folder


@pytest.fixture
def again(finished, tmp_path, capsys):
    """A copy of the finished run, and what gives a command in it: exit code and what is printed."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    config, _ = write_tiny_configs(folder / "data", folder, num_workers=0)

    def run(*arguments: str) -> tuple[int, str]:
        code = command_line.main([*arguments, "-c", str(config)])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return folder, folder / "saved" / "tiny_baseline", run


def masks(folder: Path, kind: str) -> list[Path]:
    return sorted((folder / "data/VOCdevkit/VOC2012/SegmentationClass").glob(f"{kind}_*.png"))


def test_copy_of_run_and_data_is_done_in_every_stage(again):
    _, _, run = again
    for stage in STAGES:
        code, printed = run(*stage)
        assert (code, " is done: " in printed) == (0, True), stage


def test_evaluation_that_is_done_does_not_load_a_checkpoint(again, monkeypatch):
    _, _, run = again
    monkeypatch.setattr("trainer.loop.resume.load_checkpoint", None)
    code, printed = run("--test")
    assert (code, " is done: " in printed) == (0, True)


def change_masks(kind):
    def change(folder):
        for path in masks(folder, kind):
            with Image.open(path) as mask:
                changed = Image.fromarray(np.asarray(mask)[::-1].copy())
                changed.putpalette(mask.getpalette())
            changed.save(path)

    return change


def shorten_validation(folder):
    path = folder / "data/VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"
    path.write_text("\n".join(path.read_text().split()[:2]))


def exchange_images(folder):
    one, other, *_ = sorted((folder / "data/VOCdevkit/VOC2012/JPEGImages").glob("val_*.jpg"))
    contents = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(contents)


@pytest.mark.parametrize(
    ("change", "stages", "what"),
    [
        (change_masks("train"), STAGES[:3], "the labelled images or masks"),
        (change_masks("val"), (STAGES[0], STAGES[3]), "the validation images or masks"),
        (shorten_validation, (STAGES[0], STAGES[3]), "the validation images or masks"),
        (exchange_images, (STAGES[0], STAGES[3]), "the validation images or masks"),
    ],
    ids=["labelled masks", "validation masks", "val.txt", "images"],
)
def test_changed_data_is_refused_by_every_stage_made_from_it(again, change, stages, what):
    folder, _, run = again
    change(folder)
    for stage in stages:
        code, printed = run(*stage)
        assert code == 2, stage
        assert f"differs in {what}" in printed
        assert "--force" in printed


def test_features_and_scores_of_a_model_that_was_trained_again_are_refused(again):
    _, run_dir, run = again
    best = run_dir / "best_model.pth"
    for stage in STAGES[1], STAGES[3]:
        assert run(*stage, "--force")[0] == 0
    assert run("--clustering", "--force")[0] == run("--summary")[0] == 0
    contents = torch.load(best, weights_only=True)
    torch.save({**contents, "epoch": contents["epoch"] + 1}, best)
    clustering = ["--clustering"], ["--clustering", "--force"]
    for command, stage in (*((one, "save_feature") for one in clustering), (["--summary"], "test")):
        code, printed = run(*command)
        assert code == 2
        assert f"{run_dir}: {stage} was done before {best} changed" in printed


@pytest.mark.parametrize("damage", ["gone", "cut off"])
@pytest.mark.parametrize(
    ("stage", "output"),
    [
        (STAGES[1], "features/*.npy"),
        (STAGES[2], "label_subcls_balanced_kmeans/train_*.png"),
        (STAGES[2], "label_subcls_balanced_kmeans/subclasses.json"),
        (STAGES[3], "preds/*.png"),
        (STAGES[3], "results.json"),
    ],
)
def test_output_that_is_gone_or_cut_off_is_made_again(again, stage, output, damage):
    _, run_dir, run = again
    path = sorted(run_dir.glob(output))[0]
    before = path.read_bytes()
    path.unlink() if damage == "gone" else path.write_bytes(before[:50])
    code, printed = run(*stage)
    assert code == 0, printed
    assert f"gone or cut off: {path}; doing it again" in printed
    if path.suffix in (".png", ".npy"):
        assert path.read_bytes() == before


def test_output_that_is_another_file_is_refused_and_made_again_when_it_is_deleted(again):
    _, run_dir, run = again
    one, other, *_ = sorted((run_dir / "label_subcls_balanced_kmeans").glob("train_*.png"))
    before = one.read_bytes()
    one.write_bytes(other.read_bytes() + bytes(2 * len(before)))
    code, printed = run("--clustering")
    assert code == 2
    assert f"{one}: is not what the stage clustering by balanced_kmeans wrote" in printed
    one.unlink()
    assert run("--clustering")[0] == 0
    assert one.read_bytes() == before


def test_best_model_that_is_another_shorter_one_is_refused(again):
    _, run_dir, run = again
    best = run_dir / "best_model.pth"
    contents = torch.load(best, weights_only=True)
    torch.save({name: contents[name] for name in ("arch", "epoch", "state_dict", "monitor_best")}, best)
    code, printed = run("--resume", "auto")
    assert code == 2
    assert f"{best}: is not what the stage train wrote" in printed


@pytest.mark.parametrize("damage", ["gone", "cut off"])
def test_lost_best_model_is_written_again_from_a_checkpoint_that_has_its_weights(again, damage):
    _, run_dir, run = again
    best, newest = run_dir / "best_model.pth", run_dir / "checkpoint.pth"
    contents = torch.load(newest, weights_only=True)
    contents["resume"]["not_improved"] = 0
    torch.save(contents, newest)
    best.unlink() if damage == "gone" else best.write_bytes(best.read_bytes()[:5000])
    code, printed = run("--resume", "auto")
    assert code == 0, printed
    assert "is gone or damaged; it is written again from" in printed
    expected, found = weights(newest), weights(best)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_lost_best_model_of_earlier_weights_is_refused_until_forced(again):
    _, run_dir, run = again
    contents = torch.load(run_dir / "checkpoint.pth", weights_only=True)
    contents["resume"]["not_improved"] = 1
    torch.save(contents, run_dir / "checkpoint.pth")
    (run_dir / "best_model.pth").unlink()
    for _ in range(2):
        code, printed = run("--resume", "auto")
        assert code == 2
        assert "best_model.pth: is gone or damaged" in printed
        assert "--force" in printed
    assert run("--force")[0] == 0
    assert (run_dir / "best_model.pth").is_file()


@pytest.mark.parametrize(("lost", "stage"), [("features/train_*.npy", "--clustering"), ("best_model.pth", "--test")])
def test_advised_command_brings_back_what_is_missing_and_the_stage_goes_on(again, lost, stage):
    _, run_dir, run = again
    contents = torch.load(run_dir / "checkpoint.pth", weights_only=True)
    contents["resume"]["not_improved"] = 0
    torch.save(contents, run_dir / "checkpoint.pth")
    path = sorted(run_dir.glob(lost))[0]
    path.unlink()
    shutil.rmtree(run_dir / "label_subcls_balanced_kmeans")
    code, printed = run(stage)
    assert code == 2
    advised = re.search(r"python3 main\.py ([^\n)]+)", printed)[1]
    assert command_line.main(shlex.split(advised)) == 0
    assert path.is_file()
    code, printed = run(stage)
    assert code == 0, printed


def test_report_is_written_before_the_stage_is_done(again, monkeypatch):
    _, run_dir, run = again

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.stages.write_report", killed)
    assert run("--test", "--force")[0] == 75
    monkeypatch.undo()
    shutil.rmtree(run_dir / "entropy")
    assert run("--test")[0] == 0
    assert list((run_dir / "entropy").iterdir())
