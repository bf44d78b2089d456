"""``--study``: do what is missing of a study, then write its table: console, study.json, study.md, study.html."""

import json
import platform
import re
from pathlib import Path
from shlex import quote
from statistics import mean
from typing import Any

import torch

from dataloaders import make_ready, open_data
from trainer.evaluation.recommendation import Change
from trainer.loop.resume import BEST
from trainer.planning.plan import plan_run
from trainer.studies.description import STUDIES_DIR, Part, Run, Study, read_study, runs_of_seed
from trainer.studies.page import study_page
from trainer.studies.runner import Job, Runner, jobs_of
from trainer.studies.table import collect, interval_notes, quality_text, text_table
from utils.cores import cores
from utils.errors import UsageError
from utils.files import write_whole
from utils.logger import log, start_log
from utils.stop import Stopped


def run_study(
    path: Path, *, jobs: int = 1, part: tuple[int, int] = (1, 1), plan: bool = False, overrides: tuple[str, ...] = ()
) -> None:
    """Train and evaluate what is missing, and write the table of what there is.

    Parameters
    ----------
    path
        The study's file.
    jobs
        Stages at once.
    part
        ``(i, n)``: only every n-th seed, or fold of a seed, from the i-th on; for the jobs of a cluster's array, on
        one file system.
    plan
        Say what there is to do and how long it takes; do nothing.
    overrides
        ``--set`` options for every run.

    Raises
    ------
    UsageError
        The study's file is wrong. After all else is done: runs that failed.
    Stopped
        On a request to stop; the same command goes on.
    """
    study, folder = read_study(path), STUDIES_DIR / path.stem
    shared = STUDIES_DIR / (study.runs or path.stem)
    runs = {(seed, fold): runs_of_seed(path, study, seed, shared, overrides, fold) for seed, fold in study.parts}
    start_log(None if plan else folder / "log.txt")
    mine = [run for which in study.parts[part[0] - 1 :: part[1]] for run in runs[which].values()]
    todo = jobs_of(mine)
    log.info(f"{path.stem}: {study.question}")
    seeds = ", ".join(map(str, study.seeds)) + (f", {study.folds} folds each" if study.folds else "")
    log.info(f"{len(study.variants)} variants, seeds {seeds}; {len(todo)} stages to do")
    if plan:
        _plan(mine, todo, jobs)
        return
    runner = Runner(todo, jobs)
    if todo:
        make_ready(mine[0].config)  # once, before several want it
    finished = runner.run()
    contents = collect(path, study, runs)
    contents["recommendation"] = recommendation_of_folds(study, runs, contents)
    _write(path, contents, folder, overrides)
    if not finished:
        raise Stopped
    if runner.failed:
        listed = "\n  ".join(f"{name}: {why}" for name, why in runner.failed.items())
        raise UsageError(f"{len(runner.failed)} of {len(todo)} stages failed; the others are done:\n  {listed}")


def _plan(runs: list[Run], todo: dict[str, Job], jobs: int) -> None:
    """Each kind of training is timed once; stages 2 and 3 and evaluations are not."""
    trainings: dict[str, list[Run]] = {}
    for job in todo.values():
        if job.name.endswith("/train"):
            trainings.setdefault(job.run.name, []).append(job.run)
    total = 0.0
    for of_name in trainings.values():
        config = of_name[0].config
        make_ready(config)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        total += len(of_name) * (plan_run(config, open_data(config), device) or 0.0)
    count = sum(map(len, trainings.values()))
    log.info(
        f"{count} trainings: about {total / 60 / jobs:.0f} min, {jobs} at once, as the machine is now; stages 2 and 3 "
        "and evaluations not counted"
    )


def recommendation_of_folds(study: Study, runs: dict[Part, dict[str, Run]], contents: dict[str, Any]) -> list[str]:
    """What the end of a study over folds says: the best variant, how sure that is, and a model of it with its command.

    Empty for a study without folds, and while a seed of one of its variants is without scores. The model is that of
    the first fold, since to take the fold with the best score would be to take the easiest images.
    """
    scores = {
        name: [seed["mean_iou"] for seed in variant["seeds"].values()] for name, variant in contents["variants"].items()
    }
    if not study.folds or any(len(of_seeds) < len(study.seeds) for of_seeds in scores.values()):
        return []
    first, *others = scores
    best = max(scores, key=lambda name: mean(scores[name]))  # the first one, where they are level
    compared = best if best != first else max(others, key=lambda name: mean(scores[name]), default=None)
    said = f"recommended: {best}, the best over the images of all folds"
    if compared is not None:
        found = contents["differences"][compared]["mean"]
        change = Change(found["mean"], found["low"], found["high"], found["images"])
        sure = "more than chance" if change.is_clear else "no more than chance may give"
        said += (
            f". Difference of {compared} from {first}, mean IoU: {change}, 95 % interval over {change.n_images} "
            f"images: {sure}"
        )
    run = runs[study.parts[0]][best]
    model = run.config.run_dir / BEST
    predict = f"python3 main.py --predict photos --config {quote(str(run.file))} --resume {quote(str(model))}"
    return [
        said,
        f"model to use: {model}, of the first fold: it was trained without the images of that fold",
        f"to use it, on your folder photos: {predict}",
    ]


def _write(path: Path, contents: dict[str, Any], folder: Path, overrides: tuple[str, ...]) -> None:
    options = "".join(f" --set {override}" for override in overrides if not override.startswith("data_dir="))
    contents["command"] = f"python3 main.py --study {path}{options}"
    contents["machine"] = f"{cores()} cores, {platform.machine()}"
    notes = " ".join(interval_notes(contents))
    recommendation = "\n".join(contents["recommendation"])
    table = "\n\n".join(filter(None, (text_table(contents), notes, quality_text(contents), recommendation)))
    text = json.dumps(contents, indent=1)
    text = re.sub(r"\[\s+([-\d.,\s]+?)\s+\]", lambda numbers: f"[{' '.join(numbers[1].split())}]", text)  # on one line
    write_whole(folder / "study.json", text + "\n")
    write_whole(folder / "study.md", f"# {path.stem}\n\n{contents['question']}\n\n{table}\n")
    write_whole(folder / "study.html", study_page(contents))
    log.info(f"\n{table}\n\n{folder / 'study.html'}, study.md, study.json")
