"""From the streams to what a training step takes: batches on the device, both views made."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dataloaders.cutmix import cut_and_mix
from dataloaders.geometry import LABELLED_SCALES, UNLABELLED_SCALES, Geometry
from dataloaders.loaders import DrawSampler, training_loader
from dataloaders.photometry import apply_photometry, normalise, to_unit
from dataloaders.sets.description import SegmentationData
from dataloaders.streams import LABELLED, UNLABELLED, LabelledStream, UnlabelledStream
from utils.config import UNIMATCH, Config
from utils.config_sections import StreamConfig
from utils.distributed import gather, rank, world_size
from utils.errors import UsageError
from utils.logger import log


class TrainingBatches:
    """Batches of a whole run, iteration ``start`` to ``iterations``, by the names of a step's arguments.

    Baseline: ``x``, ``y``. The other methods: from iteration ``unsupervised_from`` on, ``u_weak`` and ``u_strong`` as
    well, and ``u_box`` and ``u_padding`` where the shared settings ask for them (trainer/methods/shared.py). USRN,
    which gives ``subclass_dir``: ``s``.

    Attributes
    ----------
    ids
        Image ids of the batch given last, of this process: "labelled" and, where it has them, "unlabelled".
    hidden_target
        With ``trainer.pseudo_label_quality``: classes of the unlabelled images of the batch given last, cut and mixed
        as each strong view is, (N V, H, W); ``IGNORE`` where they are not known. It is no part of the batch, so that no
        training step can see it.
    """

    def __init__(
        self,
        config: Config,
        data: SegmentationData,
        device: torch.device,
        *,
        iterations: int,
        start: int = 0,
        unsupervised_from: int = 0,
        subclass_dir: Path | None = None,
        n_subclasses: int = 0,
    ):
        self.device = device
        self.iterations, self.start, self.unsupervised_from = iterations, start, unsupervised_from
        self.ids: dict[str, list[str]] = {}
        self.hidden_target: Tensor | None = None
        self._seed = config.random_seed
        self._skip_bad = config.data.on_bad_sample == "skip"
        self._bad: Counter[str] = Counter()  # draws that were replaced, by what was wrong with the sample
        self._logged: set[str] = set()
        common: dict[str, Any] = {
            "seed": config.random_seed,
            "skip_bad": self._skip_bad,
            "cache_bytes": int(config.data.cache_gb * 1e9),
        }
        self._parts = config.trainer.accumulate
        supervised, unsupervised = config.train_supervised, config.train_unsupervised
        labelled = LabelledStream(
            data,
            Geometry.from_config(supervised, LABELLED_SCALES),
            jitter=supervised.jitter,
            subclass_dir=subclass_dir,
            n_subclasses=n_subclasses,
            **common,
        )
        self.labelled = self._loader(labelled, supervised, LABELLED, start)
        self.unlabelled = None
        if config.uses_unlabelled:
            unlabelled = UnlabelledStream(
                data,
                Geometry.from_config(unsupervised, UNLABELLED_SCALES),
                masks=config.trainer.pseudo_label_quality,
                strong_views=2 if config.name == UNIMATCH else 1,
                unimatch=config.model.strong_view == "unimatch",
                cutmix=config.model.cutmix,
                mark_padding=config.marks_padding,
                **common,
            )
            first = min(max(start, unsupervised_from), iterations)
            self.unlabelled = self._loader(unlabelled, unsupervised, UNLABELLED, first)

    def _loader(
        self, dataset: LabelledStream | UnlabelledStream, stream: StreamConfig, number: int, start: int
    ) -> DataLoader:
        sampler = DrawSampler(
            len(dataset), stream.batch_size, self.iterations, seed=self._seed, stream=number, start=start,
            rank=rank(), world_size=world_size(),
        )  # fmt: skip
        if sampler.share % self._parts:
            raise UsageError(
                f"trainer.accumulate {self._parts}: does not divide the {sampler.share} images that each of "
                f"{world_size()} processes has of a batch. Make it smaller, or the batch_size larger."
            )
        return training_loader(dataset, sampler, stream.num_workers, pin_memory=self.device.type == "cuda")

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        unlabelled = iter(self.unlabelled) if self.unlabelled is not None else None
        for iteration, labelled in enumerate(self.labelled, self.start):
            batch, self.ids = self._supervised(labelled), {"labelled": labelled["id"]}
            if unlabelled is not None and iteration >= self.unsupervised_from:
                views = next(unlabelled)
                batch |= self._views(views)
                self.ids["unlabelled"] = views["id"]
                self._count_bad(views["bad"])
                self.hidden_target = self._hidden_target(views, batch.get("u_box"))
            self._count_bad(labelled["bad"])
            yield batch

    def log_bad(self, *, at_end: bool = False) -> None:
        """Log the bad samples that were replaced, each once, and how many draws; every process must call it."""
        if not self._skip_bad:
            return
        bad = sum(gather(self._bad), Counter())
        new = bad.keys() - self._logged
        self._logged |= new
        for message in sorted(new):
            log.warning(f"skipped: {message}")
        if new or (at_end and bad):
            log.warning(f"bad samples so far: {len(bad)}, drawn {bad.total()} times; others took their place")

    def _count_bad(self, messages: list[str]) -> None:
        self._bad.update(line for message in messages for line in message.splitlines())

    def _supervised(self, batch: dict) -> dict[str, Tensor]:
        images = to_unit(self._move(batch["image"]))
        if "photometry" in batch:
            images = apply_photometry(images, batch["photometry"])
        out = {"x": normalise(images), "y": self._move(batch["target"])}
        if "subclass" in batch:
            out["s"] = self._move(batch["subclass"])
        return out

    def _views(self, batch: dict) -> dict[str, Tensor]:
        images = to_unit(self._move(batch["image"]))
        strong = _repeated(images, batch["photometry"].shape[1])
        views = {"u_weak": normalise(images), "u_strong": normalise(apply_photometry(strong, batch["photometry"]))}
        if "box" in batch:
            views["u_box"] = self._move(batch["box"])
            views["u_strong"] = cut_and_mix(views["u_strong"], views["u_box"], self._parts)
        if "padding" in batch:
            views["u_padding"] = self._move(batch["padding"])
        return views

    def _hidden_target(self, batch: dict, boxes: Tensor | None) -> Tensor | None:
        if "target" not in batch:
            return None
        target = self._move(batch["target"])
        return target if boxes is None else cut_and_mix(_repeated(target, boxes.shape[1]), boxes, self._parts)

    def _move(self, values: Tensor) -> Tensor:
        return values.to(self.device, non_blocking=True)


def _repeated(values: Tensor, n_views: int) -> Tensor:
    """Each image ``n_views`` times, one image's after another's: (N, …) → (N V, …), no copy for one view."""
    return values.unsqueeze(1).expand(-1, n_views, *values.shape[1:]).flatten(0, 1)
