"""What a run will do, before it does it: counts, schedule, subclasses, parameters, memory, time."""

import json
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dataloaders import parts_of_training
from dataloaders.check import lost_classes
from dataloaders.reading import IGNORE
from dataloaders.sets.description import SegmentationData
from trainer.evaluation.evaluate import evaluate
from trainer.loop.assembly import make_network
from trainer.loop.trainer import Trainer
from trainer.planning.memory import available_memory, estimate_memory, size
from trainer.prediction.protocol import Protocol
from trainer.prediction.whole_image import whole_image_loader
from trainer.subclasses.counts import fillable_counts, subclass_counts
from trainer.subclasses.samples import samples_per_class
from trainer.subclasses.table import TABLE, SubclassTable, read_subclass_table
from utils.config import BASELINE, USRN, Config
from utils.errors import UsageError
from utils.logger import log
from utils.schedule import Schedule

REHEARSED_IMAGES = 32  # labelled images that the timed iterations draw from
TIMED_ITERATIONS, TIMED_SECONDS = 20, 10.0
VALIDATED_IMAGES = 4


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
    validations = schedule.epochs // config.trainer.val_per_epochs
    validations += schedule.epochs % config.trainer.val_per_epochs > 0  # the last epoch is always validated
    validations *= config.trainer.val
    unsupervised_from = (
        min(config.model.epoch_start_unsup, schedule.epochs) if config.uses_unlabelled else schedule.epochs
    )
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
        table, kinds = _subclasses(config, data), (BASELINE, USRN)
        several = [f"{name} {count}" for name, count in zip(table.classes, table.counts, strict=True) if count > 1]
        one = [f"1 for each of the other {table.counts.count(1)} classes"] if 1 in table.counts else []
        _line("subclasses", f"{table.n_subclasses} ({table.source}): {', '.join(several + one)}")
    parameters = {name: _parameters(config.model_copy(update={"name": name}), data, table) for name in kinds}
    _line("parameters", ", ".join(f"{name} {count / 1e6:.1f} M" for name, count in parameters.items()))

    with tempfile.TemporaryDirectory() as folder:
        rehearsal = _Rehearsal(config, data, table, device, Path(folder))
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
            seconds = _estimate_time(rehearsal, schedule, unsupervised_from, validations)
        except torch.cuda.OutOfMemoryError:
            raise UsageError(
                f"{config.experim_name}: does not fit into the memory of {torch.cuda.get_device_name(device)}. Make "
                "train_supervised.batch_size, train_unsupervised.batch_size or the crop_size of both smaller."
            ) from None
    if device.type == "cuda":
        _line("memory", f"{size(torch.cuda.max_memory_allocated(device))} at most, measured in these iterations")
    if config.n_gpu > 1:
        _line(
            "devices", f"n_gpu is {config.n_gpu}: as many devices share batch and time; this is one device's with all"
        )
    return seconds


def _start(config: Config, unsupervised_from: int) -> str:
    if not config.uses_unlabelled or not unsupervised_from:
        return ""
    return f"; the unlabelled ones from epoch {unsupervised_from + 1:,} on"


def _subclasses(config: Config, data: SegmentationData) -> SubclassTable:
    """The subclasses of stage 3 where it is done, else those that it will make."""
    if (config.subclass_dir / TABLE).is_file():
        return replace(read_subclass_table(config, data), source="made by stage 3")
    samples = samples_per_class(data)
    counts = fillable_counts(subclass_counts(config, samples), samples)
    source = "by the labelled pixels at stride 8"
    return SubclassTable(list(data.classes), counts, [], [], config.clustering_algorithm, config.random_seed, source)


def _parameters(config: Config, data: SegmentationData, table: SubclassTable | None) -> int:
    network = make_network(config, len(data.classes), None if table is None else table.n_subclasses)
    return sum(parameter.numel() for parameter in network.parameters())


class _Rehearsal:
    """The real trainer on the real data, in a temporary folder: random weights, and class masks for subclass maps."""

    def __init__(
        self, config: Config, data: SegmentationData, table: SubclassTable | None, device: torch.device, folder: Path
    ):
        few = data.labelled[:REHEARSED_IMAGES]
        self.config, self.device, self.folder = config, device, folder
        self.data = replace(data, labelled=few)
        self.share = len(few) / len(data.labelled)  # of the memory for decoded images as well
        if config.has_subclasses and table is not None:
            self._write_maps(table)

    def _write_maps(self, table: SubclassTable) -> None:
        """Subclass maps in which every class is its first subclass."""
        first = np.cumsum([0, *table.counts[:-1]])
        kind = np.uint8 if table.n_subclasses <= 255 else np.uint16
        for sample in self.data.labelled:
            classes = self.data.read_mask(sample.mask)
            values = np.where(classes == IGNORE, np.iinfo(kind).max, first[classes]).astype(kind)
            Image.fromarray(values).save(self.folder / sample.mask.name, "PNG")
        (self.folder / TABLE).write_text(json.dumps(asdict(replace(table, made_from={}, maps=""))))

    def trainer(self, *, unsupervised: bool, batch: int | None = None, crop: int | None = None) -> Trainer:
        """A trainer with or without the unsupervised losses; ``batch`` and ``crop`` make it smaller."""
        config = self.config
        smaller = {"batch_size": batch, "crop_size": crop, "num_workers": 0} if batch and crop else {}
        start = 0 if unsupervised else Schedule.from_config(config).epochs
        here = {"save_dir": str(self.folder), "log_dir": str(self.folder), "tensorboardX": False}
        if smaller:
            here |= {"accumulate": 1}
        changes = {
            "pretrained": False,
            "label_subcls": str(self.folder),
            "model": config.model.model_copy(update={"epoch_start_unsup": start}),
            "train_supervised": config.train_supervised.model_copy(update=smaller),
            "train_unsupervised": config.train_unsupervised.model_copy(update=smaller),
            "data": config.data.model_copy(update={"cache_gb": config.data.cache_gb * self.share}),
            "trainer": config.trainer.model_copy(update=here),
        }
        return Trainer(config.model_copy(update=changes), self.data, self.device)


def _estimate_time(rehearsal: _Rehearsal, schedule: Schedule, unsupervised_from: int, validations: int) -> float:
    supervised = unsupervised_from * schedule.iterations_per_epoch
    both = schedule.iterations - supervised
    parts, total = [], 0.0
    for count, unsupervised in ((supervised, False), (both, True)):
        if count:
            trainer = rehearsal.trainer(unsupervised=unsupervised)
            seconds, timed = _seconds_per_iteration(trainer)
            total += count * seconds
            what = (
                ""
                if not rehearsal.config.uses_unlabelled or not supervised or not both
                else (" with unlabelled images" if unsupervised else " with labelled images only")
            )
            parts.append(f"{count:,} iterations of {seconds:.3g} s{what} ({timed} timed)")
    n_images = len(rehearsal.data.validation)
    if validations:
        seconds = _seconds_per_validation_image(rehearsal, trainer)
        total += validations * n_images * seconds
        parts.append(f"{validations:,} validations of {n_images} images at {seconds:.3g} s")
    _line("time", f"about {_duration(total)}, estimated: {'; '.join(parts)}; stages 2 and 3 not counted")
    return total


def _seconds_per_iteration(trainer: Trainer) -> tuple[float, int]:
    """Seconds of a real iteration, loading of data included, and how many were timed: not the first, if it can be."""
    batches = iter(trainer.batches)
    trainer.step.train()
    started = _now(trainer.device)
    trainer._iterate(next(batches))
    first = _now(trainer.device) - started
    if first > TIMED_SECONDS:  # so slow that starting up does not matter
        return first, 1
    started, timed, seconds = _now(trainer.device), 0, 0.0
    while timed < TIMED_ITERATIONS and seconds < TIMED_SECONDS and (batch := next(batches, None)) is not None:
        trainer._iterate(batch)
        timed += 1
        seconds = _now(trainer.device) - started
    return (seconds / timed, timed) if timed else (first, 1)


def _seconds_per_validation_image(rehearsal: _Rehearsal, trainer: Trainer) -> float:
    config, data = rehearsal.config, rehearsal.data
    settings = config.val_loader.model_copy(update={"num_workers": 0})
    config = config.model_copy(update={"val_loader": settings})
    loader = whole_image_loader(config, data, data.validation[:VALIDATED_IMAGES], rehearsal.device)
    started = _now(rehearsal.device)
    evaluate(Protocol(trainer.network, rehearsal.device, config), loader, len(data.classes), rehearsal.device)
    return (_now(rehearsal.device) - started) / min(VALIDATED_IMAGES, len(data.validation))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _line(what: str, text: str) -> None:
    log.info(f"  {what + ':':12} {text}")
