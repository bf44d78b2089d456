"""The stages of a run (docs/method.md section 1)."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from dataloaders import SegmentationData, make_ready, open_data
from models import build_network
from trainer.evaluation import (
    PredictionWriter,
    evaluate,
    percent,
    read_results,
    save_results,
    scores_table,
    whole_image_loader,
)  # fmt: skip
from trainer.features import features_dir, save_features
from trainer.record import Record
from trainer.subclass_table import TABLE
from trainer.summary import save_comparison
from trainer.trainer import Trainer
from utils.checkpoint import fingerprint, load_checkpoint, load_weights
from utils.config import BASELINE, USRN, Config, differing_keys
from utils.distributed import barrier, is_main
from utils.errors import UsageError
from utils.logger import log, start_log


@dataclass(frozen=True)
class Options:
    """What the command line says beside the configuration.

    Attributes
    ----------
    resume
        A checkpoint, or "auto": the run's own, where there is one.
    force
        Do a finished stage again.
    """

    resume: str | None = None
    force: bool = False


def run_stage(stage: str, config: Config, options: Options, device: torch.device) -> None:
    """Run one stage in this process."""
    start_log(config.run_dir / "log.txt")
    if is_main():
        make_ready(config)
    barrier()
    stages: dict[str, Callable[[Config, Options, torch.device], None]] = {
        "train": train,
        "save_feature": save_feature,
        "clustering": clustering,
        "test": test,
        "summary": summary,
    }
    stages[stage](config, options, device)


def train(config: Config, options: Options, device: torch.device) -> None:
    """Stages 1 and 4."""
    record = Record(config, "train")
    table = config.subclass_dir / TABLE
    source = fingerprint(table) if config.name == USRN and table.is_file() else ""
    if record.is_done(source, config.run_dir / "best_model.pth", options.force):
        return
    checkpoint = _checkpoint_to_go_on_from(config, options)
    own = config.experim_name.removesuffix("_usrn")
    if config.name == USRN and config.baseline_dir.name.removesuffix("_baseline") != own:
        log.warning(f"label_subcls: {config.subclass_dir} holds the subclass maps of another run than {own}")
    data = open_data(config)
    trainer = Trainer(config, data, device, checkpoint)
    record.undo()
    best = trainer.train()
    record.done(source)
    log.info(f"best val mIoU {percent(best)}; {config.run_dir / 'best_model.pth'}")


def _checkpoint_to_go_on_from(config: Config, options: Options) -> Path | None:
    if options.resume != "auto":
        return Path(options.resume) if options.resume else None
    path = config.run_dir / "checkpoint.pth"
    if options.force or not path.is_file():
        return None
    state = load_checkpoint(path).get("resume")
    if state is None or state["finished"]:
        return None
    differing = differing_keys(json.loads(state["config"]), config)
    if differing:
        raise UsageError(
            f"{path}: this unfinished run has another configuration; it differs in "
            f"{'; '.join(differing[:5])}. Give this run another experim_name, or start it over with --force."
        )
    return path


def save_feature(config: Config, options: Options, device: torch.device) -> None:
    """Stage 2."""
    path = _best_model(config, options.resume)
    record, source = Record(config, "save_feature"), fingerprint(path)
    if record.is_done(source, features_dir(config), options.force):
        return
    data = open_data(config)
    network = load_network(config, data, path, device)
    record.undo()
    count = save_features(config, data, network, device)
    record.done(source)
    log.info(f"features of {count} images; {features_dir(config)}")


def clustering(config: Config, options: Options, device: torch.device) -> None:
    """Stage 3."""
    from trainer.subclasses import make_subclasses  # scikit-learn and matplotlib take seconds to import

    record = Record(config, f"clustering by {config.clustering_algorithm}")
    source = Record(config, "save_feature").source
    if record.is_done(source, config.subclass_dir / TABLE, options.force):
        return
    data = open_data(config)
    record.undo()
    table = make_subclasses(config, data, device, checkpoint=source)
    record.done(source)
    log.info(f"{table.n_subclasses} subclasses of {len(table.classes)} classes; {config.subclass_dir}")


def test(config: Config, options: Options, device: torch.device) -> None:
    """Evaluation of a checkpoint: the table, and a palette PNG per validation image."""
    path = _best_model(config, options.resume)
    record, source = Record(config, "test"), fingerprint(path)
    results = config.run_dir / "results.json"
    if not record.is_done(source, results, options.force):
        data = open_data(config)
        network = load_network(config, data, path, device)
        record.undo()
        result = evaluate(
            network,
            whole_image_loader(config, data, data.validation, device),
            len(data.classes),
            device,
            on_image=PredictionWriter(config.run_dir / "preds", data.palette),
        )
        if is_main():
            save_results(results, data.classes, result, checkpoint=str(path))
        record.done(source)
    if is_main():
        classes = tuple(json.loads(results.read_text())["iou"])
        log.info("\n" + scores_table(classes, {config.experim_name: read_results(results)}))
        log.info(f"predictions: {config.run_dir / 'preds'}")


def summary(config: Config, options: Options, device: torch.device) -> None:
    """The end of a run: the baseline's scores beside USRN's, and where everything is."""
    runs = {"baseline": config.baseline_dir, "USRN": config.run_dir}
    for run_dir in runs.values():
        if not (run_dir / "results.json").is_file():
            raise UsageError(
                f"{run_dir / 'results.json'}: is missing. Evaluate that run first: python3 main.py --test True "
                f"--resume {run_dir}/best_model.pth --config configs/{run_dir.name}.json"
            )
    data = open_data(config)
    picture = config.run_dir / "comparison.png"
    save_comparison(picture, data, {name: run_dir / "preds" for name, run_dir in runs.items()})
    columns = {name: read_results(run_dir / "results.json") for name, run_dir in runs.items()}
    log.info(f"\n{config.experim_name.removesuffix('_usrn')}, {len(data.validation)} validation images")
    log.info(scores_table(data.classes, columns))
    log.info(f"\npictures:    {picture} (image, target, baseline, USRN)")
    for what, name in (("predictions", "preds/"), ("checkpoint", "best_model.pth"), ("log", "log.txt")):
        log.info(f"{what + ':':13}{config.baseline_dir / name}, {config.run_dir / name}")
    log.info(f"curves:      tensorboard --logdir {config.trainer.log_dir}")


def load_network(config: Config, data: SegmentationData, path: Path, device: torch.device) -> nn.Module:
    """The network of a configuration with a checkpoint's weights; it says itself how many subclasses it has."""
    state_dict = load_checkpoint(path)["state_dict"]
    head = state_dict.get("classifier_SubCls.1.weight")
    model = config.model
    network = build_network(
        config.name,
        len(data.classes),
        None if config.name == BASELINE else (1 if head is None else len(head)),
        layers=model.layers,
        out_dim=model.out_dim,
        base_width=model.base_width,
    )
    load_weights(network, state_dict, path)
    return network.to(device)


def _best_model(config: Config, resume: str | None) -> Path:
    path = Path(resume) if resume and resume != "auto" else config.run_dir / "best_model.pth"
    if not path.is_file():
        raise UsageError(
            f"{path}: there is no such checkpoint. Train the run first (python3 main.py --config "
            f"configs/{config.experim_name}.json), or name another with --resume."
        )
    return path
