"""``--init_data --folds``: a study in which every image with a mask is validated once."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

import main as command_line
from dataloaders import open_data
from tests.trainer.planning.own_folders import folders, init, refused
from trainer.evaluation.statistics import mean_iou_of
from trainer.studies.description import Run, read_study, runs_of_seed
from trainer.studies.page import study_page
from trainer.studies.runner import jobs_of
from trainer.studies.study import recommendation_of_folds
from trainer.studies.table import collect, text_table
from utils.config_file import load_config

pytestmark = pytest.mark.usefixtures("workplace", "unplanned")
STUDY = Path("configs/mine_folds.json")


def study_and_runs():
    study = read_study(STUDY)
    return study, {part: runs_of_seed(STUDY, study, part[0], Path("saved"), (), part[1]) for part in study.parts}


def write_evaluation(run: Run, ids: list[str], right: int, n_classes: int = 3) -> np.ndarray:
    """The files of an evaluated run whose classes have so many of the ten pixels of each image right."""
    run.config.run_dir.mkdir(parents=True)
    counts = np.array([[[right] * n_classes, [10] * n_classes, [10] * n_classes]] * len(ids))
    np.savez(run.config.run_dir / "images.npz", ids=np.array(ids), counts=counts)
    results = {
        "mean_iou": 0.0,
        "iou": dict.fromkeys("abc"[:n_classes], 0.0),
        "confusion": [[0] * n_classes] * n_classes,
        "checkpoint": "x",
    }
    (run.config.run_dir / "results.json").write_text(json.dumps(results))
    return counts


def test_folds_are_disjoint_and_cover_the_images_with_masks_which_the_table_pools(monkeypatch, capsys):
    folders(12, 7)
    assert init("--folds", 3) == 0
    printed = capsys.readouterr().out
    assert "split: 4 labelled, 3 validation, 5 unlabelled" in printed
    assert "folds: 3 of 2 or 3 images" in printed
    assert "next: python3 main.py --study configs/mine_folds.json, which trains both on each of 3 folds" in printed

    study, runs = study_and_runs()
    validated, counts = [], {"baseline": [], "USRN": []}
    for of_part in runs.values():
        parts = [open_data(run.config) for run in of_part.values()]
        baseline, usrn = (sorted(sample.id for sample in data.validation) for data in parts)
        labelled, unlabelled = ({sample.id for sample in part} for part in (parts[1].labelled, parts[1].unlabelled))
        assert baseline == usrn
        assert len(labelled) == 4
        assert len(labelled | unlabelled | set(usrn)) == 12
        for right, (name, run) in enumerate(of_part.items(), len(validated)):
            counts[name].append(write_evaluation(run, usrn, right))
        validated += usrn
    assert sorted(validated) == sorted(f"{number:03d}" for number in range(7))

    jobs = jobs_of(run for of_part in runs.values() for run in of_part.values())
    assert len(jobs) == 3 * 6  # each fold has its own four stages and evaluations
    assert len({job.run.config.run_dir for job in jobs.values()}) == 3 * 2
    monkeypatch.setattr(Run, "is_complete", True)
    contents = collect(STUDY, study, runs)
    assert contents["images"] == 7
    means = {}
    for name, variant in contents["variants"].items():
        (seed,) = variant["seeds"].values()
        means[name] = float(mean_iou_of(np.concatenate(counts[name]).sum(0)))
        assert seed["mean_iou"] == means[name]
    assert contents["differences"]["USRN"]["mean"]["mean"] == means["USRN"] - means["baseline"]
    assert "| folds, their images pooled" in text_table(contents)

    recommended, model, use_it = recommendation_of_folds(study, runs, contents)
    page = study_page({**contents, "recommendation": [recommended, model, use_it]})
    assert "<p>recommended: USRN, the best over the images of all folds" in page
    assert recommended.startswith("recommended: USRN, the best over the images of all folds")
    assert "95 % interval over 7 images: more than chance" in recommended
    best = runs[study.parts[0]]["USRN"].config.run_dir / "best_model.pth"
    assert model.startswith(f"model to use: {best}, of the first fold")
    options = command_line.parse(shlex.split(use_it.rpartition("python3 main.py ")[2]))
    assert (options.predict, options.config, options.resume) == ("photos", "configs/mine_usrn.json", str(best))


def test_split_beside_a_study_is_its_first_fold():
    folders(12, 7)
    assert init("--folds", 3) == 0
    study, runs = study_and_runs()
    alone, of_study = (
        open_data(config) for config in (load_config("configs/mine_usrn.json"), runs[study.parts[0]]["USRN"].config)
    )
    for part in ("labelled", "validation"):
        assert {sample.id for sample in getattr(alone, part)} == {sample.id for sample in getattr(of_study, part)}


def test_fold_that_is_not_evaluated_leaves_its_seed_out_of_the_table(monkeypatch):
    folders(12, 7)
    assert init("--folds", 3) == 0
    study, runs = study_and_runs()
    for of_part in runs.values():
        for run in of_part.values():
            write_evaluation(run, ["a"], 5, n_classes=2)
        monkeypatch.setattr(Run, "is_complete", property(lambda run: run.config.fold != "2/3" or run.baseline is None))
    contents = collect(STUDY, study, runs)
    assert list(contents["variants"]["baseline"]["seeds"]) == ["42"]
    assert contents["variants"]["USRN"]["seeds"] == {}
    assert contents["differences"] == {}
    assert contents["groups"].keys() == {"rare", "medium"}  # two classes make no three groups
    assert "<h3>frequent" not in study_page(contents)
    assert recommendation_of_folds(study, runs, contents) == []


def test_description_with_folds_is_given_again_and_a_split_without_takes_the_study_away():
    folders(12, 7)
    assert init("--folds", 3) == 0
    before = STUDY.read_text()
    again = ["--init_data", "dataset/mine/dataset.json", "--name", "mine", "--force", "--device", "cpu"]
    assert command_line.main(again) == 0
    assert STUDY.read_text() == before
    assert init("--force") == 0
    assert not STUDY.exists()


def test_few_validation_images_are_said_with_the_way_to_folds(capsys):
    folders(12, 4)
    assert init() == 0
    printed = capsys.readouterr().out
    assert "--folds 4 makes a study in which each of the 4 images with a mask is validated once" in printed
    assert "only 1, so that scores depend on which these are; fewer than 6 cannot tell which model is better" in printed
    assert "too few for so many folds" in refused(capsys, "--folds", 9, "--force")
    assert init("--folds", 4, "--force") == 0
    assert "makes a study" not in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--folds", "1"], ["--folds", "5", "--labelled", "3"]])
def test_folds_that_make_no_sense_are_refused(options):
    with pytest.raises(SystemExit):
        command_line.parse(["--init_data", "x", "--masks", "y", "--name", "z", *options])
