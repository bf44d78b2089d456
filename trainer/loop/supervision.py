"""The supervised loss that a configuration asks for, made for its data."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dataloaders import SegmentationData
from dataloaders.check import pixels_of_masks
from trainer.methods.baseline import cross_entropy
from trainer.methods.supervised import SupervisedLoss
from utils.config import Config
from utils.distributed import gather, share, world_size
from utils.errors import UsageError


def supervised_loss(config: Config, data: SegmentationData) -> Callable[[Tensor, Tensor], Tensor]:
    """Of logits (N, C, H, W) and classes (N, H, W); every process must call it.

    Raises
    ------
    UsageError
        The class weights are not one for each class, or all 0.
    """
    settings = config.train_supervised
    weight = class_weights(settings.class_weights, data)
    kept = -(-settings.ohem_kept // (world_size() * config.trainer.accumulate))  # of what a process sees at a time
    ohem = (settings.ohem_threshold, kept) if settings.loss == "ohem" else None
    return cross_entropy if weight is None and ohem is None else SupervisedLoss(weight, ohem)


def class_weights(asked: str | list[float] | None, data: SegmentationData) -> Tensor | None:
    """The weights of the classes, float32 (C,); None where none are asked for.

    "inverse": in inverse proportion to the labelled pixels, so that their mean over these is 1; 1 for a class that has
    none.
    """
    if asked is None:
        return None
    if isinstance(asked, list):
        if len(asked) != len(data.classes):
            raise UsageError(
                f"train_supervised.class_weights: are {len(asked)}, but there are {len(data.classes)} classes "
                f"({', '.join(data.classes)})."
            )
        if not any(asked):
            raise UsageError("train_supervised.class_weights: are all 0; nothing would be learnt.")
        return torch.tensor(asked, dtype=torch.float32)
    pixels = labelled_pixels(data)
    there = pixels > 0
    weights = np.divide(pixels.sum(), there.sum() * pixels, out=np.ones(len(pixels)), where=there)
    return torch.from_numpy(weights).float()


def labelled_pixels(data: SegmentationData) -> np.ndarray:
    """Pixels of every class in the labelled masks, int64 (C,)."""
    own = sum(pixels_of_masks(data, share(data.labelled)), np.zeros(len(data.classes) + 1, np.int64))
    return sum(gather(own), np.zeros_like(own))[:-1]
