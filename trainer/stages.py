"""The stages of a run (docs/method.md section 1)."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from dataloaders import SegmentationData, make_ready, open_data, parts_of_training
from dataloaders.check import check_data as check_every_file
from dataloaders.check import lost_classes, refuse_leaks, refuse_void_masks
from dataloaders.sets.description import find_root
from dataloaders.sets.value_range import store_value_range
from trainer.evaluation.evaluate import PREDICTIONS, column, percent, save_results, scores_table, summary_lines
from trainer.evaluation.image_scores import IMAGE_COUNTS, IMAGE_SCORES
from trainer.evaluation.measures import measure
from trainer.evaluation.report import write_report
from trainer.evaluation.run_json import read_results
from trainer.loop.resume import BEST, checkpoint_to_go_on_from, is_lost, remove_earlier_run, training_inputs
from trainer.loop.trainer import Trainer
from trainer.planning.budget import as_stored, fit_plan, fit_training
from trainer.planning.plan import plan_run
from trainer.prediction import load_model
from trainer.prediction.export import SUFFIXES, export_network
from trainer.prediction.files import predict_files
from trainer.prediction.predictor import read_network
from trainer.record import Record
from trainer.stage_table import STAGES
from trainer.subclasses.agreement import check_subclass_maps
from trainer.subclasses.features import features_command, features_dir, save_features
from trainer.subclasses.table import PICTURE, TABLE
from trainer.summary import model_to_use, recommendation_of_test, summarise
from trainer.trained import best_model, last_beside_best, last_model, load_network, refuse_unfinished_baseline
from utils.commands import command_of_all_stages
from utils.config import Config
from utils.distributed import barrier, failing_together, is_main, restarts
from utils.errors import NotWrittenError, UsageError
from utils.files import sweep
from utils.fingerprint import sha256
from utils.lock import sole_use
from utils.logger import log, start_log
from utils.stop import Stopped


@dataclass(frozen=True)
class Options:
    """What the command line says beside the configuration.

    Attributes
    ----------
    resume
        A checkpoint, or "auto": the run's own, where there is one.
    force
        Do a finished stage again.
    predict
        An image, a folder or a list of images.
    export
        A format.
    output
        Where prediction and export write; None: to the run's folder.
    processes
        Processes that --check_data reads with; None: one per core.
    which
        Evaluate the "best" or the "last" model alone; None: both.
    """

    resume: str | None = None
    force: bool = False
    predict: str = ""
    export: str = ""
    output: str | None = None
    processes: int | None = None
    which: str | None = None


def run_stage(name: str, config: Config, options: Options, device: torch.device) -> int | None:
    """Run one stage in this process; its exit code where that is not 0.

    Raises
    ------
    Stopped
        On a request to stop a training, when it is saved.
    """
    if options.resume not in (None, "auto") and not Path(options.resume).is_file():
        raise UsageError(f"--resume {options.resume}: there is no such checkpoint.")
    stage = STAGES[name]
    with ExitStack() as until_the_end:
        with failing_together():
            if is_main() and stage.holds_run:
                until_the_end.enter_context(sole_use(config.run_dir))
                sweep(config.run_dir)
        start_log(config.run_dir / "log.txt" if stage.writes_log else None)
        if is_main() and name not in ("plan", "predict", "export"):  # plan writes nothing, the others open no data set
            make_ready(config)
        barrier()
        return globals()[name](config if name in ("train", "plan") else as_stored(config), options, device)


def train(config: Config, options: Options, device: torch.device) -> None:
    """Stages 1 and 4."""
    data = open_data(config)
    config = fit_training(config, data, device, anew=options.force and not restarts())
    parts = parts_of_training(config)
    record = Record(config.run_dir, "train", training_inputs(config, data))
    record.refuse_unlike_ranks()
    model = config.run_dir / BEST
    if record.is_done(config, [model], options.force and not restarts()):
        return
    if not options.force and not is_lost(model):  # a whole file that is shorter than what was written is another one
        record.refuse_other_outputs()
    if config.has_subclasses and config.baseline_dir.name.removesuffix("_baseline") != config.own_name:
        log.warning(
            f"label_subcls: {config.subclass_dir} holds the subclass maps of another run than {config.own_name}"
        )
    refuse_leaks(data, parts)
    refuse_void_masks(data, "labelled")
    if is_main() and (warning := lost_classes(data)):
        log.warning(warning)
    refuse_unfinished_baseline(config)
    if config.has_subclasses:
        check_subclass_maps(config, data)
    if config.trainer.val:
        refuse_void_masks(data, "validation")
    # Held by nobody once the trainer has taken what it needs: it is as large as the network and its momentum.
    trainer = Trainer(
        config, data, device, checkpoint_to_go_on_from(config, record.made_from, options.resume, options.force)
    )
    trainer.on_validation = _report_so_far
    record.begin()
    resumed_at = trainer.iteration
    if is_main() and resumed_at == 0:
        remove_earlier_run(config.run_dir, but=options.resume)
    try:
        best = trainer.train()
    except Stopped:
        log.info(
            f"stopped on request at iteration {trainer.iteration} of {trainer.schedule.iterations}; the same command "
            "with --resume auto goes on from there"
        )
        raise
    made = record.how_made(config, resumed_at=resumed_at, not_improved=trainer.not_improved)
    _report(config, data, evaluated=False, scenes=trainer.board.scenes, made={"train": made})
    record.done(config, [model], made)
    log.info(f"trained without validation; {model}" if best is None else f"best val mIoU {percent(best)}; {model}")


def save_feature(config: Config, options: Options, device: torch.device) -> None:
    """Stage 2."""
    _refuse_all_but_baselines(config)
    path = best_model(config, options.resume)
    data = open_data(config)
    record = Record(config.run_dir, "save_feature", data.fingerprints("labelled"), sha256(path))
    record.refuse_unlike_ranks()
    features = [features_dir(config) / f"{sample.id}.npy" for sample in data.labelled]
    if record.is_done(config, features, options.force):
        return
    network = load_network(config, data, path, device)
    record.begin()
    count = save_features(config, data, network, device)
    record.done(config, features, record.how_made(config, checkpoint=str(path)))
    log.info(f"features of {count} images; {features_dir(config)}")


def clustering(config: Config, options: Options, device: torch.device) -> None:
    """Stage 3."""
    _refuse_all_but_baselines(config)
    from trainer.subclasses.make import make_subclasses  # scikit-learn and matplotlib take seconds to import

    data = open_data(config)
    features = Record(config.run_dir, "save_feature", data.fingerprints("labelled"))
    source = features.entry["source"] if features.entry else ""
    record = Record(config.run_dir, f"clustering by {config.clustering_algorithm}", features.made_from, source)
    record.refuse_unlike_ranks()
    maps = [config.subclass_dir / sample.mask.name for sample in data.labelled]
    outputs = [*maps, config.subclass_dir / TABLE, config.subclass_dir / PICTURE]
    done = record.is_done(config, outputs, options.force)
    features.refuse_stale(f"Run stage 2 again: {features_command(config)} --force")  # what is done from them is, too
    if done:
        return
    record.begin()
    table = make_subclasses(config, data, device, checkpoint=source)
    record.done(config, outputs, record.how_made(config))
    log.info(f"{table.n_subclasses} subclasses of {len(table.classes)} classes; {config.subclass_dir}")


def _refuse_all_but_baselines(config: Config) -> None:
    if config.uses_unlabelled:
        raise UsageError(
            f"{config.experim_name}: is a {config.name} run; stages 2 and 3 are its baseline's, whose features and "
            f"maps they would replace. Give them the configuration of the run in {config.baseline_dir}."
        )


def test(config: Config, options: Options, device: torch.device) -> None:
    """Evaluation of a checkpoint: the table, and a palette PNG per validation image.

    Without one that is named, it is that of the best model, beside which the last one's scores are given.
    """
    path = last_model(config) if options.which == "last" else best_model(config, options.resume)
    last = None if options.resume or options.which else last_beside_best(config)
    data, network = open_data(config), None
    record = Record(
        config.run_dir, "test", data.fingerprints("validation"), "".join(map(sha256, filter(None, (path, last))))
    )
    record.refuse_unlike_ranks()
    results = config.run_dir / "results.json"
    predictions = [config.run_dir / PREDICTIONS / f"{sample.id}.png" for sample in data.validation]
    outputs = [results, *(config.run_dir / name for name in (IMAGE_SCORES, IMAGE_COUNTS)), *predictions]
    is_done = record.is_done(config, outputs, options.force)
    if not is_done:
        refuse_void_masks(data, "validation")
        network = load_network(config, data, path, device)
        record.begin()
        found = measure(config, data, network, device, name=str(path), write_to=config.run_dir)
        if last is not None:
            last_network = load_network(config, data, last, device)
            found["last"] = measure(config, data, last_network, device, name=str(last), write_to=None)
            del found["last"]["confusion"]
        if is_main():
            save_results(results, found)
    if is_main():
        saved = read_results(results)
        log.info("\n" + scores_table(tuple(saved["iou"]), {config.experim_name: column(saved)}))
        log.info("\n".join(summary_lines(saved)))
        log.info(f"predictions: {config.run_dir / PREDICTIONS}")
    made = record.how_made(config, checkpoint=str(path))
    said = recommendation_of_test(config, data, record.source) if is_main() else []
    _report(config, data, network=network, device=device, made={} if is_done else {"test": made}, recommended=said)
    if not is_done:
        record.done(config, outputs, made)


def summary(config: Config, options: Options, device: torch.device) -> None:
    """The end of a run: the baseline's scores beside its own, which model to use, and where everything is."""
    data = open_data(config)
    _report(config, data, recommended=summarise(config, data))


def _report(config: Config, data: SegmentationData, **more) -> None:
    """Write the run's page. Where what it shows cannot be read, the stage is done all the same; not on a full disk."""
    if not is_main():
        return
    try:
        log.info(f"report:      {write_report(config, data, **more)}")
    except NotWrittenError:
        raise
    except UsageError as error:
        log.warning(f"{config.run_dir / 'report.html'}: is not written. {error}")
    except Exception as error:
        log.warning(
            f"{config.run_dir / 'report.html'}: could not be written ({type(error).__name__}: {error})", exc_info=True
        )


def _report_so_far(trainer: Trainer) -> None:
    """Write the page of a training that goes on: whatever goes wrong with that, a full disk as well, the training does
    go on."""
    at = f"in training: iteration {trainer.iteration:,} of {trainer.schedule.iterations:,}"
    try:
        write_report(trainer.config, trainer.data, evaluated=False, scenes=trainer.board.scenes, progress=at)
    except Exception as error:
        log.warning(f"{trainer.config.run_dir / 'report.html'}: is not written this time ({error})")


def check_data(config: Config, options: Options, device: torch.device) -> int:
    """Every file of the run read once; 1 where one of them is wrong."""
    data = open_data(config)
    report = check_every_file(config, data, options.processes)
    print(report.text())
    if report.value_range and data.value_range is None:
        where = store_value_range(find_root(config.data_dir, config.dataset), report.value_range)
        print(f"stored: the range of the 16-bit images, {report.value_range[0]} to {report.value_range[1]}, in {where}")
    if report.wrong:
        return 1
    if run := command_of_all_stages(config):
        print(f"next: {run}")
    return 0


def plan(config: Config, options: Options, device: torch.device) -> None:
    """What the run will do, before it does it."""
    data = open_data(config)
    plan_run(fit_plan(config, data, device), data, device)


def predict(config: Config, options: Options, device: torch.device) -> None:
    """Prediction of any images."""
    path = model_to_use(config, options.resume)
    output = Path(options.output) if options.output else config.run_dir / "predictions"
    count = predict_files(load_model(path, config, device=device), options.predict, output, path)
    log.info(f"predictions of {count} images; {output}")


def export(config: Config, options: Options, device: torch.device) -> None:
    """The network for other programs."""
    path = model_to_use(config, options.resume)
    output = Path(options.output) if options.output else config.run_dir / f"model{SUFFIXES[options.export]}"
    network, classes, _, _ = read_network(path, config)
    export_network(network, classes, options.export, output)
    log.info(f"exported network; {output}")
