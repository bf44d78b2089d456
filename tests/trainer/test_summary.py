"""The model to use: written by the summary, taken by --predict, noticed where one of the two was trained again."""

import json
import re
import shlex
import shutil
from html import escape

import numpy as np
import pytest
import torch

import main as command_line
from tests.conftest import refused


@pytest.fixture(scope="module")
def evaluated(finished_runs, tmp_path_factory):
    """A finished and evaluated pair of runs; to be copied."""
    folder = tmp_path_factory.mktemp("evaluated") / "runs"
    shutil.copytree(finished_runs, folder)
    for kind in ("baseline", "usrn"):
        assert command_line.main(["--test", *arguments(folder, kind)]) == 0
    return folder


@pytest.fixture
def folder(evaluated, tmp_path, demo_set):
    shutil.copytree(evaluated, tmp_path / "runs")
    shutil.copy(next((demo_set / "VOCdevkit/VOC2012/JPEGImages").iterdir()), tmp_path / "runs" / "image.jpg")
    return tmp_path / "runs"


def arguments(folder, kind, *more):
    settings = (f"trainer.save_dir={folder}/saved", f"trainer.log_dir={folder}/saved", "trainer.epochs=1")
    overrides = [part for setting in settings for part in ("--set", setting)]
    return ["--config", str(folder / f"tiny_{kind}.json"), *overrides, *more]


def make_right(folder, kind, share):
    """Have a run's counts say that this share of the pixels of every class is right, and its record agree."""
    path = folder / "saved" / f"tiny_{kind}" / "images.npz"
    with np.load(path) as file:
        ids, counts = file["ids"], file["counts"]
    counts[:, 0] = (counts[:, 1] * share).astype(int)
    counts[:, 2] = counts[:, 1]
    np.savez_compressed(path, ids=ids, counts=counts)
    stages = path.with_name("stages.json")
    entry = json.loads(stages.read_text())
    del entry["test"]["outputs"]["images.npz"]
    stages.write_text(json.dumps(entry))


def summarise(folder, capsys):
    capsys.readouterr()
    assert command_line.main(["--summary", *arguments(folder, "usrn")]) == 0
    return capsys.readouterr().out


def predict(folder, kind="usrn", *more):
    return ["--predict", str(folder / "image.jpg"), *arguments(folder, kind, *more)]


@pytest.mark.parametrize(("better", "other"), [("baseline", "usrn"), ("usrn", "baseline")])
def test_model_is_that_of_the_better_run_and_predict_takes_it(folder, capsys, better, other):
    make_right(folder, better, 0.9)
    make_right(folder, other, 0.5)
    printed = summarise(folder, capsys)
    title = {"baseline": "the baseline", "usrn": "USRN"}[better]
    assert f"recommended: {title}." in printed
    (use_it,) = re.findall(r"^to use it, .*?: python3 main.py (--predict photos .*)$", printed, re.MULTILINE)
    command = [str(folder / "image.jpg") if word == "photos" else word for word in shlex.split(use_it)]
    assert command_line.main(command) == 0
    model = folder / "saved" / "tiny" / "model.pth"
    assert model.read_bytes() == (folder / "saved" / f"tiny_{better}" / "best_model.pth").read_bytes()
    for kind, taken in (("usrn", model), ("baseline", folder / "saved" / "tiny_baseline" / "best_model.pth")):
        assert command_line.main(predict(folder, kind)) == 0
        said = json.loads((folder / "saved" / f"tiny_{kind}" / "predictions" / "predictions.json").read_text())
        assert said["checkpoint"] == str(taken)


def test_report_recommends_what_the_summary_does_from_the_evaluation_on(folder, capsys):
    page = folder / "saved" / "tiny_usrn" / "report.html"
    by_test = page.read_text()
    printed = summarise(folder, capsys)
    said = printed[printed.index("recommended: ") : printed.index("model to use: ")].splitlines()
    assert any(line.startswith("classes that gained") for line in said)
    assert all(f"<p>{escape(line)}</p>" in by_test for line in said)
    assert page.read_text() == by_test
    assert "recommended: " not in (folder / "saved" / "tiny_baseline" / "report.html").read_text()


def test_evaluation_against_a_baseline_of_other_weights_recommends_nothing(folder, capsys):
    best = folder / "saved" / "tiny_baseline" / "best_model.pth"
    contents = torch.load(best, weights_only=True)
    torch.save({**contents, "epoch": contents["epoch"] + 1}, best)
    assert command_line.main(["--test", *arguments(folder, "usrn")]) == 0
    assert "not compared with its baseline: " in capsys.readouterr().out
    assert "recommended: " not in (folder / "saved" / "tiny_usrn" / "report.html").read_text()


def test_predict_takes_the_best_model_of_a_run_that_was_not_compared(folder):
    assert command_line.main(predict(folder)) == 0
    said = json.loads((folder / "saved" / "tiny_usrn" / "predictions" / "predictions.json").read_text())
    assert said["checkpoint"] == str(folder / "saved" / "tiny_usrn" / "best_model.pth")


@pytest.mark.parametrize("kind", ["baseline", "usrn"])
def test_recommended_model_is_refused_where_a_run_was_trained_again(folder, capsys, kind):
    summarise(folder, capsys)
    best = folder / "saved" / f"tiny_{kind}" / "best_model.pth"
    contents = torch.load(best, weights_only=True)
    torch.save({**contents, "epoch": contents["epoch"] + 1}, best)
    message = refused(capsys, *predict(folder))
    assert f"the best model of tiny_{kind} changed" in message
    assert "sh main.sh tiny" in message
    assert command_line.main(predict(folder, "usrn", "--resume", str(best))) == 0


@pytest.mark.parametrize("kind", ["baseline", "usrn"])
def test_recommended_model_is_refused_while_a_run_is_being_trained_again(folder, capsys, kind):
    summarise(folder, capsys)
    run_dir = folder / "saved" / f"tiny_{kind}"
    (run_dir / "best_model.pth").unlink()  # as a training does that begins
    entry = json.loads((run_dir / "stages.json").read_text())
    (run_dir / "stages.json").write_text(json.dumps({**entry, "train": None}))
    assert f"the best model of tiny_{kind} changed" in refused(capsys, *predict(folder))


def test_recommended_model_that_is_damaged_or_gone_is_refused(folder, capsys):
    summarise(folder, capsys)
    model = folder / "saved" / "tiny" / "model.pth"
    model.write_bytes(model.read_bytes()[:-10])
    assert "is not what the stage summary wrote" in refused(capsys, *predict(folder))
    model.unlink()
    assert "model.pth: is gone" in refused(capsys, *predict(folder))


def test_recommended_model_needs_neither_run(folder, capsys):
    summarise(folder, capsys)
    for kind in ("baseline", "usrn"):
        shutil.rmtree(folder / "saved" / f"tiny_{kind}")
    assert command_line.main(predict(folder)) == 0


def test_scores_of_another_checkpoint_recommend_nothing(folder, capsys):
    other = shutil.copy(folder / "saved/tiny_usrn/best_model.pth", folder / "other.pth")
    contents = torch.load(other, weights_only=True)
    torch.save({**contents, "epoch": 7}, other)
    assert command_line.main(["--test", *arguments(folder, "usrn", "--resume", str(other), "--force")]) == 0
    printed = summarise(folder, capsys)
    assert "no recommendation: the scores are not those of" in printed
    assert "Which model to use" not in (folder / "saved/tiny_usrn/report.html").read_text()
    assert not (folder / "saved" / "tiny").exists()
