"""FixMatch for segmentation (Sohn et al., 2020; as in UniMatch V2, TPAMI 2025): one training step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dataloaders.reading import IGNORE
from models import Segmentor
from models.deeplab import upsample
from trainer.methods.baseline import cross_entropy, pixel_cross_entropy
from utils.distributed import all_mean

Label = Callable[[Tensor], tuple[Tensor, ...]]


def is_used(confidence: Tensor, threshold: float) -> Tensor:
    """Whether a pseudo label is learnt from, bool of any shape; ``confidence`` is 0 where a pixel is ignored."""
    return (confidence >= threshold) & (confidence > 0)


def strong_view_loss(logits: Tensor, pseudo_label: Tensor, confidence: Tensor, threshold: float) -> Tensor:
    """Cross entropy against the pseudo labels that are sure enough, divided by the number of pixels not ignored.

    ``logits`` (N, C, H, W); ``pseudo_label`` and ``confidence`` (N, H, W), the latter 0 where a pixel is ignored. With
    several processes it is divided by the mean of their numbers, as in ``cross_entropy``.
    """
    losses = pixel_cross_entropy(logits.float(), pseudo_label, reduction="none")
    total = (losses * is_used(confidence, threshold)).sum()
    return total / all_mean((confidence > 0).sum().float()).clamp(min=1)


def mask_ratio(confidence: Tensor, threshold: float) -> Tensor:
    """Share of the pixels not ignored (``confidence`` above 0) whose confidence passes."""
    return is_used(confidence, threshold).sum() / (confidence > 0).sum().clamp(min=1)


class FixMatchStep(nn.Module):
    """A labelled and an unlabelled batch in, two losses out. Gradients are the caller's.

    Parameters
    ----------
    network
        The network.
    pos_thresh_value
        Confidence from which on a pseudo label is used.
    supervised_w, loss_weight_unsup
        As the configuration's keys of the same names.
    supervised_loss
        Of logits (N, C, H, W) and classes (N, H, W).
    """

    def __init__(
        self,
        network: Segmentor,
        *,
        pos_thresh_value: float = 0.95,
        supervised_w: float = 1.0,
        loss_weight_unsup: float = 1.0,
        supervised_loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    ):
        super().__init__()
        self.network = network
        self.threshold = pos_thresh_value
        self.w_sup, self.w_unsup = supervised_w, loss_weight_unsup
        self.supervised_loss = supervised_loss

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        u_weak: Tensor | None = None,
        u_strong: Tensor | None = None,
        label: Label | None = None,
    ) -> dict[str, Tensor]:
        """Losses of one iteration; without the unlabelled views, the supervised one alone.

        Parameters
        ----------
        x, u_weak
            Normalised images, float32 (N, 3, H, W).
        u_strong
            V strong views of each image of ``u_weak``, one image's after another's: (N V, 3, H, W).
        y
            Classes of x, (N, H, W).
        label
            What labels the weak view for each strong one, unless it is ``self.label``.

        Returns
        -------
        dict
            ``total`` with a graph. For the log: the losses ``Ls`` and ``Lu_reg``; ``prediction`` (N, H, W) of x;
            ``mask_ratio``; ``pseudo_label`` (N V, H, W), ``IGNORE`` where it is not used.
        """
        logits = self._logits(self.network.pixel_features(x), x)
        Ls = self.supervised_loss(logits, y)
        total = self.w_sup * Ls
        out: dict[str, Any] = {"Ls": Ls.detach(), "prediction": logits.detach().argmax(1)}
        if u_weak is not None and u_strong is not None:
            strong = self._logits(self.strong_features(u_strong), u_strong)
            with torch.no_grad():
                confidence, pseudo = (label or self.label)(u_weak)
            views = len(u_strong) // len(u_weak)
            Lu_reg = torch.stack(
                [
                    strong_view_loss(strong[v::views], pseudo[v::views], confidence[v::views], self.threshold)
                    for v in range(views)
                ]
            ).mean()
            total = (total + self.w_unsup * Lu_reg) / 2
            out |= {"Lu_reg": Lu_reg.detach(), "mask_ratio": mask_ratio(confidence, self.threshold)}
            out |= {"pseudo_label": pseudo.where(is_used(confidence, self.threshold), IGNORE)}
        return out | {"total": total}

    def label(self, u_weak: Tensor) -> tuple[Tensor, Tensor]:
        """Confidence and pseudo label of images, (N, H, W) each."""
        confidence, pseudo_label = self._logits(self.network.pixel_features(u_weak), u_weak).softmax(1).max(1)
        return confidence, pseudo_label

    def strong_features(self, u_strong: Tensor) -> Tensor:
        """Pixel features of the strong views."""
        return self.network.pixel_features(u_strong)

    def _logits(self, features: Tensor, images: Tensor) -> Tensor:
        return upsample(self.network.classifier(features).float(), images.shape[2:])
