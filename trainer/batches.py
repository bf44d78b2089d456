"""From the streams to what a training step takes: batches on the device, both views made."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from dataloaders.description import SegmentationData
from dataloaders.geometry import LABELLED_SCALES, UNLABELLED_SCALES, Geometry
from dataloaders.photometry import apply_photometry, normalise, to_unit
from dataloaders.streams import LABELLED, UNLABELLED, DrawSampler, LabelledStream, UnlabelledStream, training_loader
from utils.config import Config, StreamConfig
from utils.distributed import rank, world_size


class TrainingBatches:
    """Batches of a whole run, iteration ``start`` to ``iterations``, by the names of a step's arguments.

    Baseline: ``x``, ``y``. USRN, which gives ``n_subclasses``: ``s``, ``u_weak`` and ``u_strong`` as well.
    """

    def __init__(
        self,
        config: Config,
        data: SegmentationData,
        device: torch.device,
        *,
        iterations: int,
        start: int = 0,
        subclass_dir: Path | None = None,
        n_subclasses: int = 0,
    ):
        self.device = device
        self._span = {"iterations": iterations, "start": start}
        self._seed = config.random_seed
        supervised, unsupervised = config.train_supervised, config.train_unsupervised
        labelled = LabelledStream(
            data.labelled,
            Geometry.from_config(supervised, LABELLED_SCALES),
            n_classes=len(data.classes),
            ignore_index=config.ignore_index,
            seed=config.random_seed,
            jitter=supervised.jitter,
            subclass_dir=subclass_dir,
            n_subclasses=n_subclasses,
        )
        self.labelled = self._loader(labelled, supervised, LABELLED)
        self.unlabelled = None
        if subclass_dir is not None:
            geometry = Geometry.from_config(unsupervised, UNLABELLED_SCALES)
            unlabelled = UnlabelledStream(data.unlabelled, geometry, seed=config.random_seed)
            self.unlabelled = self._loader(unlabelled, unsupervised, UNLABELLED)

    def _loader(self, dataset, stream: StreamConfig, number: int):
        sampler = DrawSampler(
            len(dataset), stream.batch_size, seed=self._seed, stream=number, rank=rank(), world_size=world_size(),
            **self._span,
        )  # fmt: skip
        return training_loader(dataset, sampler, stream.num_workers, pin_memory=self.device.type == "cuda")

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        if self.unlabelled is None:
            for labelled in self.labelled:
                yield self._supervised(labelled)
        else:
            for labelled, unlabelled in zip(self.labelled, self.unlabelled, strict=True):
                yield self._supervised(labelled) | self._two_views(unlabelled)

    def _supervised(self, batch: dict) -> dict[str, Tensor]:
        images = to_unit(self._move(batch["image"]))
        if "photometry" in batch:
            images = apply_photometry(images, batch["photometry"])
        out = {"x": normalise(images), "y": self._move(batch["target"])}
        if "subclass" in batch:
            out["s"] = self._move(batch["subclass"])
        return out

    def _two_views(self, batch: dict) -> dict[str, Tensor]:
        images = to_unit(self._move(batch["image"]))
        return {"u_weak": normalise(images), "u_strong": normalise(apply_photometry(images, batch["photometry"]))}

    def _move(self, values: Tensor) -> Tensor:
        return values.to(self.device, non_blocking=True)
