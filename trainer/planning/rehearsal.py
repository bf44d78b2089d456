"""The real trainer on the real data for some iterations, timed, in a temporary folder."""

import json
import time
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dataloaders.reading import IGNORE
from dataloaders.sets.description import SegmentationData
from trainer.evaluation.evaluate import evaluate
from trainer.loop.graph import WARM_UP
from trainer.loop.trainer import Trainer
from trainer.prediction.protocol import Protocol
from trainer.prediction.whole_image import whole_image_loader
from trainer.subclasses.counts import fillable_counts, subclass_counts
from trainer.subclasses.samples import samples_per_class
from trainer.subclasses.table import TABLE, SubclassTable, read_subclass_table
from utils.config import Config
from utils.distributed import any_process
from utils.schedule import Schedule

REHEARSED_IMAGES = 32  # labelled images that the timed iterations draw from
TIMED_ITERATIONS, TIMED_SECONDS = 20, 10.0
VALIDATED_IMAGES = 4


@dataclass(frozen=True)
class Part:
    """Iterations of one kind: how many, seconds of one, how many were timed, and whether with unlabelled images."""

    count: int
    seconds: float
    timed: int
    unsupervised: bool


@dataclass(frozen=True)
class Times:
    """What a training takes.

    Attributes
    ----------
    parts
        Its iterations.
    validations, n_images, per_image
        Validations, their images, and the seconds of one image.
    """

    parts: list[Part]
    validations: int
    n_images: int
    per_image: float

    @property
    def iterations(self) -> float:
        """Seconds of all iterations."""
        return sum(part.count * part.seconds for part in self.parts)

    @property
    def validation(self) -> float:
        """Seconds of one validation."""
        return self.n_images * self.per_image

    @property
    def total(self) -> float:
        """Seconds of the training."""
        return self.iterations + self.validations * self.validation

    def __str__(self) -> str:
        kinds = {False: " with labelled images only", True: " with unlabelled images"} if len(self.parts) > 1 else {}
        texts = [
            f"{part.count:,} iterations of {part.seconds:.3g} s{kinds.get(part.unsupervised, '')} ({part.timed} timed)"
            for part in self.parts
        ]
        if self.validations:
            texts.append(f"{self.validations:,} validations of {self.n_images} images at {self.per_image:.3g} s")
        return "; ".join(texts)


def planned_validations(config: Config) -> int:
    """How many validations a training has, if it does not stop early; the last epoch is always validated."""
    return config.trainer.val * -(-Schedule.from_config(config).epochs // config.trainer.val_per_epochs)


def planned_start(config: Config) -> int:
    """The epoch, counted from 0, from which on a training has unlabelled images."""
    epochs = Schedule.from_config(config).epochs
    return min(config.model.epoch_start_unsup, epochs) if config.uses_unlabelled else epochs


def planned_subclasses(config: Config, data: SegmentationData) -> SubclassTable:
    """The subclasses of stage 3 where it is done, else those that it will make."""
    if (config.subclass_dir / TABLE).is_file():
        return replace(read_subclass_table(config, data), source="made by stage 3")
    samples = samples_per_class(data)
    counts = fillable_counts(subclass_counts(config, samples), samples)
    source = "by the labelled pixels at stride 8"
    return SubclassTable(list(data.classes), counts, [], [], config.clustering_algorithm, config.random_seed, source)


class Rehearsal:
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

    def times(self) -> Times:
        """What this configuration's iterations and validations take, measured."""
        schedule, supervised = Schedule.from_config(self.config), planned_start(self.config)
        supervised *= schedule.iterations_per_epoch
        parts = []
        for count, unsupervised in ((supervised, False), (schedule.iterations - supervised, True)):
            if count:
                trainer = self.trainer(unsupervised=unsupervised)
                parts.append(Part(count, *_seconds_per_iteration(trainer), unsupervised))
        validations = planned_validations(self.config)
        seconds = _seconds_per_validation_image(self, trainer) if validations else 0.0
        return Times(parts, validations, len(self.data.validation), seconds)


def _seconds_per_iteration(trainer: Trainer) -> tuple[float, int]:
    """Seconds of a real iteration, loading of data included, and how many were timed: not the first, if it can be."""
    batches = iter(trainer.batches)
    trainer.step.train()
    started = _now(trainer.device)
    trainer._iterate(next(batches))
    first = _now(trainer.device) - started
    if any_process([first > TIMED_SECONDS])[0]:  # so slow that starting up does not matter
        return first, 1
    for batch in islice(batches, WARM_UP if trainer.recorded_pass.can_record else 0):
        trainer._iterate(batch)
    started, timed, seconds, long = _now(trainer.device), 0, 0.0, False
    while timed < TIMED_ITERATIONS and not long and (batch := next(batches, None)) is not None:
        trainer._iterate(batch)
        timed += 1
        seconds = _now(trainer.device) - started
        long = any_process([seconds >= TIMED_SECONDS])[0]
    return (seconds / timed, timed) if timed else (first, 1)


def _seconds_per_validation_image(rehearsal: Rehearsal, trainer: Trainer) -> float:
    config, data = rehearsal.config, rehearsal.data
    settings = config.val_loader.model_copy(update={"num_workers": 0})
    config = config.model_copy(update={"val_loader": settings})
    loader = whole_image_loader(config, data, data.validation[:VALIDATED_IMAGES], rehearsal.device)
    trainer.recorded_pass.give_up()
    started = _now(rehearsal.device)
    evaluate(Protocol(trainer.network, rehearsal.device, config), loader, len(data.classes), rehearsal.device)
    return (_now(rehearsal.device) - started) / min(VALIDATED_IMAGES, len(data.validation))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()
