"""A study of two variants and two seeds: what is missing is done, what is shared is done once, nothing twice."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import main as command_line
from tests.forks import FORKS
from trainer.evaluation.label_quality import COUNTED_PIXELS
from trainer.studies import runner, study
from trainer.studies.description import read_study, runs_of_seed
from trainer.studies.label_quality import QUARTERS, quality_by_quarter, quality_tables
from trainer.studies.runner import Runner, jobs_of, seconds_of
from utils.errors import UsageError


class Forked:
    """In the place of ``Popen``: main.py in a fork of a process that has imported everything."""

    started: Path

    def __init__(self, command, env, stdout, stderr):
        with open(self.started, "a") as file:
            file.write(" ".join(command[2:]) + "\n")
        self.process = FORKS.Process(target=run_main, args=(command[2:], stdout.name))
        self.process.start()

    def wait(self):
        self.process.join()
        return self.process.exitcode

    def terminate(self):
        self.process.terminate()


def run_main(arguments: list[str], log_file: str) -> None:
    torch.set_num_threads(1)
    with open(log_file, "a") as sys.stdout:
        sys.stderr = sys.stdout
        code = command_line.main(arguments)
    os._exit(code)


def use_forks(folder: Path, patch=setattr) -> None:
    patch(study, "STUDIES_DIR", folder / "studies")
    patch(runner, "Popen", Forked)
    patch(Forked, "started", folder / "started.txt")


def run_until_the_fifth_stage(path: Path) -> None:
    use_forks(path.parent)
    do = Runner._do

    def do_or_die(self, job):
        if Forked.started.exists() and len(started(path)) >= 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return do(self, job)

    Runner._do = do_or_die
    study.run_study(path)


@pytest.fixture
def tiny_study(tiny_configs, tmp_path, monkeypatch) -> Path:
    use_forks(tmp_path, lambda *patch: monkeypatch.setattr(*patch, raising=False))
    usrn = {"config": tiny_configs[1].name, "set": {"trainer.pseudo_label_quality": True}}
    contents = {
        "question": "Does it run?",
        "baseline": tiny_configs[0].name,
        "seeds": [1, 2],
        "set": {"trainer.tensorboardX": False},
        "variants": {"baseline": {"config": tiny_configs[0].name}, "USRN": usrn},
    }
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(contents))
    return path


def started(tiny_study: Path) -> list[str]:
    return (tiny_study.parent / "started.txt").read_text().splitlines()


def test_study_that_is_killed_goes_on_and_ends_with_its_table(tiny_study, capsys):
    first = FORKS.Process(target=run_until_the_fifth_stage, args=(tiny_study,))
    first.start()
    first.join()
    assert first.exitcode == -signal.SIGKILL
    study.run_study(tiny_study)
    assert (
        len(started(tiny_study)) <= 2 * 6 + 3
    )  # two seeds of six stages; those before the kill say that they are done
    folder = tiny_study.parent / "studies" / "tiny"
    contents = json.loads((folder / "study.json").read_text())
    for variant in contents["variants"].values():
        assert sorted(variant["seeds"]) == ["1", "2"]
        assert all(0 <= seed["mean_iou"] <= 1 for seed in variant["seeds"].values())
        judged = [seed.get("pseudo_labels") for seed in variant["seeds"].values()]
        assert all((counts is not None) == (variant["settings"]["name"] == "USRN") for counts in judged)
    assert contents["variants"]["USRN"]["seeds"]["1"] != contents["variants"]["USRN"]["seeds"]["2"]
    difference = contents["differences"]["USRN"]["mean"]
    before, after = (
        np.mean([seed["mean_iou"] for seed in variant["seeds"].values()]) for variant in contents["variants"].values()
    )
    assert difference["mean"] == pytest.approx(after - before)
    assert difference["low"] <= difference["mean"] <= difference["high"]
    assert "| **mean**" in (folder / "study.md").read_text()
    for page in ("study.md", "study.html"):
        assert all(quarter in (folder / page).read_text() for quarter in QUARTERS)
    assert (folder / "study.html").read_text().count("<circle") >= 4
    count = len(started(tiny_study))
    study.run_study(tiny_study)
    assert len(started(tiny_study)) == count  # nothing is left to do
    assert "0 stages to do" in capsys.readouterr().out

    # Another study over the same runs makes only what it has alone, and never takes a run for another one.
    of_another = json.loads(tiny_study.read_text()) | {"runs": "tiny", "seeds": [1]}
    other = tiny_study.with_name("other.json")
    other.write_text(json.dumps(of_another))
    study.run_study(other)
    assert len(started(tiny_study)) == count
    shared = json.loads((folder.with_name("other") / "study.json").read_text())
    assert shared["variants"]["USRN"]["seeds"]["1"] == contents["variants"]["USRN"]["seeds"]["1"]
    of_another["variants"]["USRN"]["set"]["model.pos_thresh_value"] = 0.5
    other.write_text(json.dumps(of_another))
    with pytest.raises(UsageError, match="1/usrn_usrn/train: exit code 2"):
        study.run_study(other)


def test_variants_share_their_baseline(tiny_study):
    contents = json.loads(tiny_study.read_text())
    contents["seeds"] = [1]
    contents["variants"]["no gate"] = contents["variants"]["USRN"] | {"set": {"model.entropy_gate": False}}
    tiny_study.write_text(json.dumps(contents))
    runs = runs_of_seed(tiny_study, read_study(tiny_study), 1, tiny_study.parent / "studies" / "tiny")
    assert runs["USRN"].baseline == runs["no gate"].baseline == runs["baseline"]
    assert [name.split("/", 1)[1] for name in jobs_of(runs.values())] == [
        "baseline_baseline/train", "baseline_baseline/test", "baseline_baseline/features",
        "baseline_baseline/subclasses", "usrn_usrn/train", "usrn_usrn/test", "no_gate_usrn/train", "no_gate_usrn/test",
    ]  # fmt: skip


def test_baseline_that_is_a_variant_is_the_one_that_others_build_on_wherever_it_stands(tiny_study):
    contents = json.loads(tiny_study.read_text())
    contents["variants"] = dict(reversed(contents["variants"].items()))
    tiny_study.write_text(json.dumps(contents))
    runs = runs_of_seed(tiny_study, read_study(tiny_study), 1, tiny_study.parent / "studies" / "tiny")
    assert list(runs) == ["USRN", "baseline"]
    assert runs["USRN"].baseline == runs["baseline"]
    assert runs["baseline"].name == "baseline_baseline"


def test_variant_with_another_baseline_or_clustering_has_its_own(tiny_study):
    contents = json.loads(tiny_study.read_text())
    usrn = contents["variants"]["USRN"]
    contents["variants"]["plain k-means"] = usrn | {"set": {"clustering_algorithm": "normal_kmeans"}}
    contents["variants"]["longer baseline"] = usrn | {"baseline_set": {"trainer.epochs": 4}}
    tiny_study.write_text(json.dumps(contents))
    runs = runs_of_seed(tiny_study, read_study(tiny_study), 1, tiny_study.parent / "studies" / "tiny")
    assert runs["plain k-means"].baseline != runs["USRN"].baseline
    assert runs["longer baseline"].baseline.config.trainer.epochs == 4
    assert len({run.config.run_dir for run in runs.values()}) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": [1, 1]}, "key seeds: a seed stands twice"),
        ({"seeds": []}, "key seeds"),
        ({"variants": {}}, "key variants"),
        ({"variants": {"a": {"config": "x.json", "sets": {}}}}, "key variants.a.sets"),
    ],
)
def test_mistake_in_a_studys_file_is_named(tiny_study, change, message):
    tiny_study.write_text(json.dumps(json.loads(tiny_study.read_text()) | change))
    with pytest.raises(UsageError, match=message.replace(".", r"\.")):
        read_study(tiny_study)


def test_part_of_a_study_is_every_nth_seed(tiny_study, capsys):
    contents = json.loads(tiny_study.read_text())
    contents["seeds"] = [1, 2, 3]
    contents["variants"].pop("USRN")
    tiny_study.write_text(json.dumps(contents))
    study.run_study(tiny_study, part=(2, 2))
    folder = tiny_study.parent / "studies" / "tiny"
    assert [path.name for path in sorted(folder.glob("seed_*"))] == ["seed_2"]


def test_no_two_stages_work_in_the_folder_of_one_run_at_once(tiny_study, monkeypatch):
    at_work, together = [], []

    class Slow:
        def __init__(self, command, **_):
            self.run = [part for part in command if part.startswith(("experim_name=", "random_seed="))]

        def wait(self):
            at_work.append(self.run)
            time.sleep(0.05)
            together.append(sorted(at_work))
            at_work.remove(self.run)
            return 0

    monkeypatch.setattr(runner, "Popen", Slow)
    runs = [runs_of_seed(tiny_study, read_study(tiny_study), seed, tiny_study.parent) for seed in (1, 2)]
    work = Runner(jobs_of(run for of_seed in runs for run in of_seed.values()), at_once=4)
    assert work.run()
    assert not work.failed
    assert all(names.count(name) == 1 for names in together for name in names)
    assert any(len(names) == 2 for names in together)  # other folders do not wait


def test_stages_that_need_one_that_failed_are_left_out_and_the_others_done(tiny_study, monkeypatch):
    class Failing:
        def __init__(self, command, **_):
            self.fails = "--save_feature" in command

        def wait(self):
            return 2 if self.fails else 0

    monkeypatch.setattr(runner, "Popen", Failing)
    runs = runs_of_seed(tiny_study, read_study(tiny_study), 1, tiny_study.parent / "studies" / "tiny")
    work = Runner(jobs_of(runs.values()), at_once=2)
    assert work.run()
    assert "exit code 2; " in work.failed.pop("1/baseline_baseline/features")
    assert work.failed == {
        "1/baseline_baseline/subclasses": "needs 1/baseline_baseline/features",
        "1/usrn_usrn/train": "needs 1/baseline_baseline/subclasses",
        "1/usrn_usrn/test": "needs 1/usrn_usrn/train",
    }
    baseline = runs["baseline"]
    taken = seconds_of(baseline, "train")
    assert taken > 0
    assert seconds_of(baseline, "subclasses") == 0  # it was never begun

    # What a start took that was killed is not known, and no later start makes it so.
    begun = []
    monkeypatch.setattr(Failing, "wait", lambda self: begun.append(seconds_of(baseline, "train")) or 0)
    job = work.jobs["1/baseline_baseline/train"]
    assert Runner({job.name: job}, at_once=1).run()
    assert begun == [None]
    assert seconds_of(baseline, "train") > taken
    (baseline.config.run_dir.parent / "logs" / "baseline_baseline_train.seconds").write_text("null")
    assert Runner({job.name: job}, at_once=1).run()
    assert seconds_of(baseline, "train") is None


def counts_of(used_right: int) -> dict[str, list[int]]:
    return {name: [10, 0] for name in COUNTED_PIXELS} | {"used_right": [used_right, 0], "vetoed": [0, 0]}


def test_quarters_are_those_of_a_schedule_that_was_scaled_to_minutes(tiny_study):
    settings = ("model.epoch_start_unsup=2", "trainer.minutes=5")
    run = runs_of_seed(tiny_study, read_study(tiny_study), 1, tiny_study.parent, settings)["USRN"]
    for folder in (run.config.run_dir, run.config.baseline_dir):
        folder.mkdir(parents=True)
    fit = {"factor": 2.0, "validations": 1, "config": run.config.model_dump()}  # 16 iterations, the last 8 with them
    (run.config.baseline_dir / "schedule.json").write_text(json.dumps(fit))
    lines = [{"iteration": at, "epoch": 1, "pseudo_label_quality": counts_of(at)} for at in (10, 16)]
    (run.config.run_dir / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [counts and counts["used_right"] for counts in quality_by_quarter(run)] == [[10, 0], None, None, [16, 0]]


def test_quality_is_summed_by_quarters_of_the_iterations_with_pseudo_labels(tiny_study):
    runs = runs_of_seed(tiny_study, read_study(tiny_study), 1, tiny_study.parent, ("model.epoch_start_unsup=2",))
    run = runs["USRN"]  # 4 epochs of 2 iterations, the last 2 with pseudo labels: a quarter is an iteration
    run.config.run_dir.mkdir(parents=True)
    history = run.config.run_dir / "history.jsonl"
    assert quality_by_quarter(run) is None
    rounds = {5: 1, 6: 2, 8: 3}
    history.write_text(
        "".join(
            json.dumps({"iteration": at, "epoch": 1, "pseudo_label_quality": counts_of(right)}) + "\n"
            for at, right in rounds.items()
        )
        + json.dumps({"iteration": 8, "epoch": 4, "pseudo_label_quality": counts_of(4)}) + "\n"
    )  # fmt: skip
    quarters = quality_by_quarter(run)
    assert [counts and (counts["used_right"], counts["used"]) for counts in quarters] == [
        ([1, 0], [10, 0]), ([2, 0], [10, 0]), None, ([7, 0], [20, 0]),
    ]  # fmt: skip
    seed = {"iou": {"sky": 0.5, "car": 0.5}, "pseudo_labels": quarters}
    contents = {"variants": {"a": {"seeds": {"1": seed, "2": seed}}, "b": {"seeds": {}}}, "groups": {"rare": ["car"]}}
    ((header, rows),) = quality_tables(contents)
    recall = {row[0]: row[header.index("recall")] for row in rows}
    assert header[0] == "a"
    assert recall == dict(zip(QUARTERS, ("10.0", "20.0", "–", "35.0"), strict=True)) | {
        "rare": "–", "sky": "35.0", "car": "–",
    }  # fmt: skip
    assert rows[0][header.index("rightly")] == "–"
