"""The end of a run: its scores beside its baseline's, and the model to use (``saved/<name>/model.pth``)."""

from contextlib import nullcontext
from pathlib import Path

from dataloaders import SegmentationData
from trainer.evaluation.comparison import save_comparison
from trainer.evaluation.evaluate import column, scores_table
from trainer.evaluation.image_scores import IMAGE_COUNTS, read_image_counts
from trainer.evaluation.recommendation import Comparison, compare, recommendation
from trainer.evaluation.run_json import evaluate_again, read_results
from trainer.loop.resume import BEST
from trainer.record import Record
from trainer.trained import best_model
from utils.commands import command
from utils.config import BASELINE, Config
from utils.errors import UsageError
from utils.files import sweep, write_whole
from utils.fingerprint import fingerprint, sha256
from utils.lock import sole_use
from utils.logger import log

MODEL, RESULTS = "model.pth", "results.json"


def summarise(config: Config, data: SegmentationData) -> list[str]:
    """Print the table of both runs, and where everything is; write the picture and the recommended model.

    What it says of the two models is given back for the run's page; empty where it recommends none.

    Raises
    ------
    UsageError
        A run is not evaluated, or was trained or got other data since.
    """
    runs = {"baseline": config.baseline_dir, config.name: config.run_dir}
    for run_dir in runs.values():
        if not (run_dir / RESULTS).is_file():
            raise UsageError(f"{run_dir / RESULTS}: is missing. {evaluate_again(run_dir)}")
        Record(run_dir, "test", data.fingerprints("validation")).refuse_stale(evaluate_again(run_dir))
    picture = config.run_dir / "comparison.png"
    save_comparison(picture, data, runs)
    columns = {}
    for name, run_dir in runs.items():
        results = read_results(run_dir / RESULTS)
        if tuple(results["iou"]) != data.classes:
            raise UsageError(f"{run_dir / RESULTS}: is of other classes. {evaluate_again(run_dir)}")
        columns[name] = column(results)
    log.info(f"\n{config.own_name}, {len(data.validation)} validation images")
    log.info(scores_table(data.classes, columns))
    found = _compare(config, data)
    said = [] if isinstance(found, str) else recommendation(found, config)
    last = f"no recommendation: {found}" if isinstance(found, str) else _write_recommended(config, found)
    log.info("\n" + "\n".join([*said, last]))
    log.info(f"\npictures:    {picture} (image, target, baseline, {config.name})")
    for what, name in (("predictions", "preds/"), ("checkpoint", BEST), ("log", "log.txt")):
        log.info(f"{what + ':':13}{config.baseline_dir / name}, {config.run_dir / name}")
    log.info(f"curves:      tensorboard --logdir {config.trainer.log_dir}")
    return said


def recommendation_of_test(config: Config, data: SegmentationData, source: str) -> list[str]:
    """What the summary will say of the two models, where that is known when a run has been evaluated: for its page.

    Empty for a baseline, and where the baseline's scores are missing, or those of either run are of another model.

    Parameters
    ----------
    source
        Fingerprint of the checkpoints that were evaluated.
    """
    if config.name == BASELINE or not (config.baseline_dir / RESULTS).is_file():
        return []
    baseline = Record(config.baseline_dir, "test", data.fingerprints("validation"))
    try:
        baseline.refuse_stale(evaluate_again(config.baseline_dir))
        found = _compare(config, data, source)
    except UsageError as error:
        found = str(error)
    if isinstance(found, str):
        log.info(f"not compared with its baseline: {found}")
        return []
    return recommendation(found, config)


def _compare(config: Config, data: SegmentationData, source: str | None = None) -> Comparison | str:
    """The run against its baseline by the pixels of ``--test``; or why not: scores of another model.

    ``source`` is that of the run's own evaluation where it is not recorded yet.
    """
    run_dirs = config.baseline_dir, config.run_dir
    for run_dir, given in zip(run_dirs, (None, source), strict=True):
        entry, model = Record(run_dir, "test").entry, run_dir / BEST
        evaluated = given if given is not None else entry["source"] if entry is not None else ""
        if not model.is_file() or not evaluated.startswith(sha256(model)):
            return f"the scores are not those of {model}. {evaluate_again(run_dir)}"
    baseline, own = (read_image_counts(run_dir / IMAGE_COUNTS) for run_dir in run_dirs)
    for run_dir, counts in zip(run_dirs, (baseline, own), strict=True):
        if counts.shape != (len(data.validation), 3, len(data.classes)):
            raise UsageError(f"{run_dir / IMAGE_COUNTS}: is of other images. {evaluate_again(run_dir)}")
    return compare(baseline, own, data.classes)


def _write_recommended(config: Config, found: Comparison) -> str:
    """Write the better one of the two best models as ``model.pth``; where it is."""
    chosen = (config.baseline_dir, config.run_dir)[found.is_better] / BEST
    model = _folder(config) / MODEL
    with nullcontext() if model.parent == config.run_dir else sole_use(model.parent):  # the run's own is held already
        sweep(model.parent)
        record = Record(model.parent, "summary", _models(config))
        record.begin()
        write_whole(model, chosen.read_bytes())
        record.done(config, [model], record.how_made(config, run=config.experim_name, recommended=str(chosen)))
    predict = command("--predict photos", config.run_dir, config)
    return f"model to use: {model}; it is {chosen}\nto use it, on your folder photos: {predict}"


def model_to_use(config: Config, resume: str | None) -> Path:
    """The checkpoint that ``resume`` names; for a run that was compared with its baseline, the recommended model of
    the two; else the run's best one.

    Raises
    ------
    UsageError
        There is none, or one of the two runs was trained again since they were compared.
    """
    folder = _folder(config)
    recommended = Record(folder, "summary", _models(config))
    compared = recommended.made.get("run") == config.experim_name
    if resume or config.name == BASELINE or not (compared or recommended.is_begun):
        return best_model(config, resume)
    way_out = f"Compare the two again (sh main.sh {config.own_name} does), or name a model with --resume."
    recommended.refuse_stale(way_out)
    if not (folder / MODEL).is_file():
        raise UsageError(f"{folder / MODEL}: is gone. {way_out}")
    log.info(f"recommended model: {folder / MODEL}, which is {recommended.made['recommended']}")
    return folder / MODEL


def _models(config: Config) -> dict[str, str]:
    """Fingerprints of the best models that are compared; of one that is not there, what was known of it.

    A run that is being trained has none yet.
    """
    entry = Record(_folder(config), "summary").entry
    known = entry.get("made_from", {}) if entry is not None else {}
    found = {}
    for run_dir in (config.baseline_dir, config.run_dir):
        name, model = f"the best model of {run_dir.name}", run_dir / BEST
        if model.is_file():
            found[name] = fingerprint(model)
        elif name in known and not Record(run_dir, "train").is_begun:
            found[name] = known[name]
    return found


def _folder(config: Config) -> Path:
    """Of what is of a run and its baseline together: ``<save_dir>/<name>``."""
    return Path(config.trainer.save_dir) / config.own_name
