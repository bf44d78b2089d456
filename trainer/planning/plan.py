"""What a run will do, before it does it: counts, schedule, subclasses, parameters, memory, time."""

import tempfile
from pathlib import Path

import torch

from dataloaders import parts_of_training
from dataloaders.check import lost_classes
from dataloaders.sets.description import SegmentationData
from trainer.loop.assembly import make_network
from trainer.planning.memory import available_memory, estimate_memory, size
from trainer.planning.rehearsal import Rehearsal, planned_start, planned_subclasses, planned_validations
from trainer.subclasses.table import SubclassTable
from utils.config import BASELINE, USRN, Config
from utils.errors import UsageError
from utils.logger import log
from utils.schedule import Schedule, ends_before_unlabelled


def plan_run(config: Config, data: SegmentationData, device: torch.device, *, timed: bool = True) -> float | None:
    """Print the plan of a run; without ``timed``, no time. Nothing is written but to a temporary folder.

    Returns
    -------
    float or None
        The seconds that training will take; None where they were not measured.
    """
    schedule = Schedule.from_config(config)
    log.info(f"plan of {config.experim_name} ({config.name}) on {device.type}")
    _line(
        "data",
        f"{data.counts(parts_of_training(config))}; {len(data.classes)} classes",
    )
    validations, unsupervised_from = planned_validations(config), planned_start(config)
    batch, unlabelled_batch = config.train_supervised.batch_size, config.train_unsupervised.batch_size
    stop = f"; early stop after {schedule.early_stop:,} without a better one" * (schedule.early_stop < validations)
    _line(
        "schedule",
        f"{schedule.iterations:,} iterations: {schedule.epochs:,} epochs of {schedule.iterations_per_epoch}, "
        f"{validations:,} validations{stop}",
    )
    streams = f"{batch} labelled" + (f" + {unlabelled_batch} unlabelled" if config.uses_unlabelled else "")
    _line("batch", f"{streams} crops of {config.train_supervised.crop_size} pixels" + _start(config, unsupervised_from))

    if warning := lost_classes(data):
        _line("warning", warning)
    table, kinds = None, (config.name,)
    if config.name in (BASELINE, USRN):
        table, kinds = planned_subclasses(config, data), (BASELINE, USRN)
        counted = dict(zip(table.classes, table.counts, strict=True))
        several = [f"{name} {count}" for name, count in counted.items() if count > 1]
        one = [f"{name} 1" for name, count in counted.items() if count == 1]
        one = one if len(one) < 2 else [f"1 for each of the {'other ' if several else ''}{len(one)} classes"]
        _line("subclasses", f"{table.n_subclasses} ({table.source}): {', '.join(several + one)}")
    parameters = {name: _parameters(config.model_copy(update={"name": name}), data, table) for name in kinds}
    _line("parameters", ", ".join(f"{name} {count / 1e6:.1f} M" for name, count in parameters.items()))

    with tempfile.TemporaryDirectory() as folder:
        rehearsal = Rehearsal(config, data, table, device, Path(folder))
        if device.type == "cpu":
            needed = estimate_memory(rehearsal.trainer, config, parameters[config.name])
            _line("memory", needed.describe(config))
            _line("a GPU's", needed.on_gpus(config))
            available = available_memory()
            if available is not None and needed.total > available:
                _line("time", f"not measured: the machine has {size(available)} of free memory")
                return None
        if not timed:
            return None
        try:
            times = rehearsal.times()
        except torch.cuda.OutOfMemoryError:
            raise UsageError(
                f"{config.experim_name}: does not fit into the memory of {torch.cuda.get_device_name(device)}. Make "
                "train_supervised.batch_size, train_unsupervised.batch_size or the crop_size of both smaller."
            ) from None
    _line("time", f"about {duration(times.total)}, estimated: {times}; stages 2 and 3 not counted")
    if device.type == "cuda":
        _line("memory", f"{size(torch.cuda.max_memory_reserved(device))} at most, measured in these iterations")
    if config.n_gpu > 1:
        _line(
            "devices", f"n_gpu is {config.n_gpu}: as many devices share batch and time; this is one device's with all"
        )
    return times.total


def _start(config: Config, unsupervised_from: int) -> str:
    if not config.uses_unlabelled or not unsupervised_from:
        return ""
    if ends_before_unlabelled(config):
        return "; the unlabelled ones never: model.epoch_start_unsup is the schedule's end, or later"
    return f"; the unlabelled ones from epoch {unsupervised_from + 1:,} on"


def _parameters(config: Config, data: SegmentationData, table: SubclassTable | None) -> int:
    network = make_network(config, len(data.classes), None if table is None else table.n_subclasses)
    return sum(parameter.numel() for parameter in network.parameters())


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _line(what: str, text: str) -> None:
    log.info(f"  {what + ':':12} {text}")
