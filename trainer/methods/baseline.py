"""Stage 1: one supervised training step."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataloaders.reading import IGNORE
from models import Segmentor
from models.deeplab import upsample
from utils.distributed import all_mean


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean cross entropy over the pixels that have a class; 0 where none has.

    ``logits`` (N, C, H, W), any float type, computed in float32; ``target`` (N, H, W), integers or ``IGNORE``;
    ``weight`` (C,) of each class's pixels.
    With several processes it is divided by the mean of their pixel counts, so that the mean of their gradients
    is the gradient over the total batch, however the ignored pixels fall.
    """
    total = pixel_cross_entropy(logits.float(), target.long(), weight, ignore_index=IGNORE, reduction="sum")
    counted = target != IGNORE
    if weight is not None:
        counted = weight[target.long().clamp(min=0)] * counted
    return total / all_mean(counted.sum().float()).clamp(min=torch.finfo(torch.float32).tiny)


def pixel_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None, **options: Any) -> Tensor:
    """``F.cross_entropy`` of logits (N, C, H, W) and classes (N, H, W), with its options.

    CUDA adds the pixels of images in no fixed order and has no other way, but one for a list of pixels: that is what
    they are made into under ``torch.use_deterministic_algorithms``.
    """
    if logits.device.type == "cpu" or not torch.are_deterministic_algorithms_enabled():
        return F.cross_entropy(logits, target, weight, **options)
    return cross_entropy_of_list(logits, target, weight, **options)


def cross_entropy_of_list(logits: Tensor, target: Tensor, weight: Tensor | None = None, **options: Any) -> Tensor:
    """The same by way of (N H W, C) logits and (N H W,) classes."""
    losses = F.cross_entropy(logits.movedim(1, -1).flatten(0, -2), target.flatten(), weight, **options)
    return losses.view_as(target) if losses.ndim else losses


class BaselineStep(nn.Module):
    """Images and masks in, losses out. Gradients are the caller's."""

    def __init__(
        self,
        network: Segmentor,
        *,
        supervised_w: float = 1.0,
        supervised_loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    ):
        super().__init__()
        self.supervised_loss = supervised_loss
        self.network = network
        self.supervised_w = supervised_w

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Losses of a labelled batch.

        Parameters
        ----------
        x
            Normalised images, float32 (N, 3, H, W).
        y
            Classes, (N, H, W).

        Returns
        -------
        dict
            ``total`` with a graph; ``Ls`` and ``prediction`` (N, H, W) for the log.
        """
        logits = upsample(self.network.classifier(self.network.pixel_features(x)).float(), x.shape[2:])
        Ls = self.supervised_loss(logits, y)
        return {
            "total": self.supervised_w * Ls,
            "Ls": Ls.detach(),
            "prediction": logits.detach().argmax(1),
        }
