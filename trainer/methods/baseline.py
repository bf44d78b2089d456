"""Stage 1: one supervised training step."""

from collections.abc import Callable

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
    total = F.cross_entropy(logits.float(), target.long(), weight, ignore_index=IGNORE, reduction="sum")
    counted = target != IGNORE
    if weight is not None:
        counted = weight[target.long().clamp(min=0)] * counted
    return total / all_mean(counted.sum().float()).clamp(min=torch.finfo(torch.float32).tiny)


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
