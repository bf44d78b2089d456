"""Stage 4: one USRN training step (paper sections 3.2 and 3.3; docs/method.md section 5)."""

from collections.abc import Callable
from math import log2

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataloaders.reading import IGNORE
from models import USRN
from models.batch_norm import separate_batches
from models.deeplab import upsample
from trainer.methods.baseline import cross_entropy, pixel_cross_entropy


def entropy(p: Tensor) -> Tensor:
    """Entropy of class probabilities (N, C, H, W), normalised by log2(C): (N, H, W) in [0, 1]."""
    return -(p * torch.log2(p + 1e-30)).sum(1) / log2(max(2, p.shape[1]))


def entropy_gate(
    p_cls: Tensor, p_sub: Tensor, class_of_subclass: Tensor, mode: bool | str = True
) -> tuple[Tensor, Tensor]:
    """Let the subclass branch veto class predictions where it is the surer of the two.

        p_gated = p_cls                          where E(p_sub) > E(p_cls)
        p_gated = p_cls * onehot(parent(p_sub))  elsewhere

    with E the normalised entropy and parent the class that owns the most probable subclass. A vetoed pixel
    keeps no more confidence than its parent class had, so it mostly falls below the threshold.

    Parameters
    ----------
    p_cls, p_sub
        Probabilities, (N, C, H, W) and (N, K, H, W).
    class_of_subclass
        Class index of every subclass, (K,).
    mode
        True for the gate; False leaves every prediction alone; "always" never does (ablations).

    Returns
    -------
    p_gated, left_alone
        (N, C, H, W), and bool (N, H, W): where the class prediction was left alone.
    """
    if mode is False:
        return p_cls, torch.ones_like(p_cls[:, 0], dtype=torch.bool)
    left_alone = entropy(p_sub) > entropy(p_cls)
    if mode == "always":
        left_alone = torch.zeros_like(left_alone)
    parent = class_of_subclass[p_sub.argmax(1)]
    veto = torch.zeros_like(p_cls).scatter_(1, parent.unsqueeze(1), 1)
    return torch.where(left_alone.unsqueeze(1), p_cls, p_cls * veto), left_alone


def consistency_loss(logits_strong: Tensor, pseudo_label: Tensor, mask: Tensor) -> Tensor:
    """Cross entropy of the strong view against pseudo labels, where ``mask``; the mean is over ALL pixels.

    ``logits_strong`` (N, C, H, W), ``pseudo_label`` and ``mask`` (N, H, W).
    """
    return (pixel_cross_entropy(logits_strong.float(), pseudo_label, reduction="none") * mask).mean()


class USRNStep(nn.Module):
    """A labelled and an unlabelled batch in, the four losses out. Gradients are the caller's.

    Parameters
    ----------
    network
        The two-branch network.
    class_of_subclass
        Class index of every subclass, int64 (K,).
    pos_thresh_value
        Confidence above which a pseudo label is used.
    entropy_gate, downsample, supervised_w, loss_weight_subcls, loss_weight_unsup
        As the configuration's keys of the same names.
    supervised_loss
        Of class logits (N, C, H, W) and classes (N, H, W).
    """

    class_of_subclass: Tensor

    def __init__(
        self,
        network: USRN,
        class_of_subclass: Tensor,
        *,
        pos_thresh_value: float = 0.75,
        entropy_gate: bool | str = True,
        downsample: bool = True,
        supervised_w: float = 1.0,
        loss_weight_subcls: float = 1.0,
        loss_weight_unsup: float = 1.0,
        supervised_loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    ):
        super().__init__()
        self.network = network
        self.register_buffer("class_of_subclass", class_of_subclass, persistent=False)
        self.threshold = pos_thresh_value
        self.gate = entropy_gate
        self.downsample = downsample
        self.w_sup, self.w_sub, self.w_unsup = supervised_w, loss_weight_subcls, loss_weight_unsup
        self.supervised_loss = supervised_loss

    def forward(
        self, x: Tensor, y: Tensor, s: Tensor, u_weak: Tensor | None = None, u_strong: Tensor | None = None,
        label: Callable[[Tensor], tuple[Tensor, ...]] | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Losses of one iteration; without the unlabelled views, the supervised ones alone.

        Parameters
        ----------
        x, u_weak, u_strong
            Normalised images, float32 (N, 3, H, W).
        y, s
            Classes and subclasses of x, (N, H, W).
        label
            What labels the weak view, unless it is ``self.label``.

        Returns
        -------
        dict
            ``total`` with a graph. For the log: the losses ``Ls``, ``Ls_sub``, ``Lu_reg``, ``Lu_sub``;
            ``prediction`` (N, H, W) of x; shares of pixels ``confident``, ``confident_sub`` (pseudo label used)
            and ``gate_open`` (class prediction left alone). For pictures, of the weak view at the stride of the
            pseudo labels: ``p_cls`` (N, C, H', W'), and (N, H', W') ``pseudo_sub`` (most probable subclass),
            ``left_alone`` and ``pseudo_label`` (``IGNORE`` where it is not used). To be judged by, of the same shape:
            ``ungated_label``, the pseudo labels before the gate, and ``parent_label``, the class that owns a subclass
            pseudo label that is used.
        """
        # Labelled, strong, weak: batch norm sees three batches, its statistics move three times in this order.
        labelled, *unlabelled = self._features(x) if u_strong is None else self._features(x, u_strong)
        logits, sub_logits = (upsample(z.float(), x.shape[2:]) for z in self._classify(labelled))
        Ls = self.supervised_loss(logits, y)
        Ls_sub = cross_entropy(sub_logits, s)
        total = self.w_sup * (Ls + self.w_sub * Ls_sub)
        out = {"Ls": Ls.detach(), "Ls_sub": Ls_sub.detach(), "prediction": logits.detach().argmax(1)}

        if u_weak is not None:
            strong, sub_strong = self._classify(unlabelled[0], pool=self.downsample)
            with torch.no_grad():
                p_cls, p_sub = (label or self.label)(u_weak)
                confidence_sub, pseudo_sub = p_sub.max(1)
                mask_sub = confidence_sub > self.threshold
                p_gated, left_alone = entropy_gate(p_cls, p_sub, self.class_of_subclass, self.gate)
                confidence, pseudo = p_gated.max(1)
                mask = confidence > self.threshold
                confidence_cls, most_probable = p_cls.max(1)
            Lu_sub = consistency_loss(sub_strong, pseudo_sub, mask_sub)
            Lu_reg = consistency_loss(strong, pseudo, mask)
            total = total + self.w_unsup * Lu_reg + self.w_unsup * self.w_sub * Lu_sub
            out |= {"Lu_reg": Lu_reg.detach(), "Lu_sub": Lu_sub.detach()}
            out |= {"confident": mask.float().mean(), "confident_sub": mask_sub.float().mean()}
            out |= {"gate_open": left_alone.float().mean()}
            out |= {"p_cls": p_cls, "pseudo_sub": pseudo_sub, "left_alone": left_alone}
            out |= {"pseudo_label": pseudo.where(mask, IGNORE)}
            out |= {"ungated_label": most_probable.where(confidence_cls > self.threshold, IGNORE)}
            out |= {"parent_label": self.class_of_subclass[pseudo_sub].where(mask_sub, IGNORE)}
        return out | {"total": total}

    def label(self, u_weak: Tensor) -> tuple[Tensor, Tensor]:
        """Class and subclass probabilities of images, (N, C, H', W') and (N, K, H', W')."""
        weak, sub_weak = self._classify(self._features(u_weak)[0], pool=self.downsample)
        return weak.float().softmax(1), sub_weak.float().softmax(1)

    def _features(self, *batches: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Class and subclass features of each batch of images, as if the network were called for one after another."""
        if len(batches) == 1 or len({batch.shape[1:] for batch in batches}) > 1:
            return [self.network.both_pixel_features(batch) for batch in batches]
        # One call for all: on a CPU each call rearranges all weights, which takes longer than a small batch does. For a
        # fast GPU, unless the pass is recorded, the host is the slower one, and has fewer kernels to start.
        sizes = [len(batch) for batch in batches]
        with separate_batches(*sizes):
            joined = self.network.both_pixel_features(torch.cat(batches))
        return list(zip(*(features.split(sizes) for features in joined), strict=True))

    def _classify(self, features: tuple[Tensor, Tensor], pool: bool = False) -> tuple[Tensor, Tensor]:
        """Class and subclass logits of both features, at stride 4, or at stride 8 with ``pool``."""
        if pool:
            features = F.avg_pool2d(features[0], 2), F.avg_pool2d(features[1], 2)
        return self.network.classifier(features[0]), self.network.classifier_SubCls(features[1])
