"""The studies that ship, and the page that is written from what they found."""

import re

import numpy as np
import pytest

from trainer.evaluation.recommendation import FROM_BASELINE
from trainer.studies.description import read_study, runs_of_seed
from trainer.studies.results import PAGE, read_studies, results_page
from trainer.studies.runner import ROOT, jobs_of
from utils.config import BASELINE

SHIPPED = ROOT / "configs" / "studies"


def test_results_page_is_what_its_studies_say():
    assert PAGE.read_text() == results_page(read_studies())


def test_what_a_proposal_quotes_is_what_the_study_found():
    (found,) = (study for study in read_studies() if study["study"] == "camvid_1over8_why")
    names = ("USRN from its baseline", "baseline, twice as long", "USRN", "baseline")
    start, longer, plain, baseline = (
        f"{100 * np.mean([seed['mean_iou'] for seed in found['variants'][name]['seeds'].values()]):.1f}"
        for name in names
    )
    assert start == longer
    assert FROM_BASELINE.startswith(f"{start} of 100 on 46 labelled")
    assert f"after {plain} from random weights and {baseline} of the baseline" in FROM_BASELINE


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.json")), ids=lambda path: path.stem)
def test_every_shipped_study_can_be_read_and_judges_its_pseudo_labels(path, tmp_path):
    contents = read_study(path)
    runs = [runs_of_seed(path, contents, seed, tmp_path) for seed in contents.seeds]
    assert len(runs) >= 3
    for of_seed in runs:
        assert of_seed.keys() == contents.variants.keys()
        for run in of_seed.values():
            assert run.config.name == BASELINE or run.config.trainer.pseudo_label_quality
        assert jobs_of(of_seed.values())


def test_shipped_studies_are_those_that_the_page_on_studies_names():
    page = (SHIPPED.parents[1] / "docs" / "studies.md").read_text()
    assert {path.stem for path in SHIPPED.glob("*.json")} == set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))


def test_shipped_studies_that_share_runs_mean_the_same_by_the_same_name(tmp_path):
    found = {}
    for path in sorted(SHIPPED.glob("*.json")):
        contents = read_study(path)
        for seed in contents.seeds:
            for run in runs_of_seed(path, contents, seed, tmp_path / (contents.runs or path.stem)).values():
                for made in filter(None, (run, run.baseline)):
                    assert found.setdefault(made.config.run_dir, made.config) == made.config
    assert len({folder.parent.parent for folder in found}) < len(list(SHIPPED.glob("*.json")))
