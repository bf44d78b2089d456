"""The supervised loss of a run that asks for another than cross entropy alone: class weights, hard pixels (OHEM)."""

import torch
from torch import Tensor, nn

from dataloaders.reading import IGNORE
from trainer.methods.baseline import cross_entropy


def hard_pixels(logits: Tensor, target: Tensor, threshold: float, kept: int) -> Tensor:
    """Online hard example mining (Shrivastava et al., 2016), as Cityscapes' methods use it: bool (N, H, W).

    The pixels that have a class, of which the right class has a probability of at most ``threshold``; or, where these
    are fewer, the ``kept`` hardest; all, where the batch has no more than that.

    ``logits`` (N, C, H, W); ``target`` (N, H, W), integers or ``IGNORE``.
    """
    counted = target != IGNORE
    right = logits.float().softmax(1).gather(1, target.long().clamp(min=0).unsqueeze(1)).squeeze(1)
    right = right.where(counted, 2)  # beyond all probabilities: never among the hardest while others are left
    if kept:
        # Not kthvalue, which CUDA does not have under torch.use_deterministic_algorithms.
        hardest = right.flatten().topk(min(kept, right.numel()), largest=False, sorted=False).values.max()
        return (right <= hardest.clamp(min=threshold)) & counted
    return (right <= threshold) & counted


class SupervisedLoss(nn.Module):
    """Cross entropy with class weights, over hard pixels alone, or both.

    Parameters
    ----------
    weight
        Of every class, (C,); None for none.
    ohem
        ``threshold`` and ``kept`` of ``hard_pixels``; None for all pixels.
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, ohem: tuple[float, int] | None = None):
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.ohem = ohem

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean over the pixels, weighed: logits (N, C, H, W), target (N, H, W) → scalar."""
        if self.ohem is not None:
            with torch.no_grad():
                target = target.where(hard_pixels(logits, target, *self.ohem), IGNORE)
        return cross_entropy(logits, target, self.weight)
