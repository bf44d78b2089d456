"""The original's way of running a training step and a validation, for comparison: only benchmarks and tests use it.

Float32 (on a GPU with TF32 convolutions, PyTorch's default), channels first, a graph for the weak view too, every loss
and every metric read back to the host as soon as it is there. Where it is not known how the original does a thing,
the cheaper way is taken.
"""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataloaders.reading import IGNORE
from models import USRN
from models.batch_norm import BatchNorm2d
from models.layers import DilatedConv2d, Dropout

THRESHOLD = 0.75


def plain_network(network: nn.Module) -> nn.Module:
    """``network``, in place, with PyTorch's own layers only."""
    for module in network.modules():
        for ours, theirs in ((DilatedConv2d, nn.Conv2d), (BatchNorm2d, nn.BatchNorm2d), (Dropout, nn.Dropout)):
            if isinstance(module, ours):
                module.__class__ = theirs
    return network


def losses(network: USRN, class_of_subclass: Tensor, x, y, s, u_weak, u_strong) -> tuple[dict[str, Tensor], Tensor]:
    """The four losses with their graphs, and the class logits of ``x``; arguments as ``USRNStep.forward`` has them."""

    def classify(images: Tensor, pool: bool) -> tuple[Tensor, Tensor]:
        features, sub_features = network.both_pixel_features(images)
        if pool:
            features, sub_features = F.avg_pool2d(features, 2), F.avg_pool2d(sub_features, 2)
        return network.classifier(features), network.classifier_SubCls(sub_features)

    def entropy(p: Tensor) -> Tensor:
        return -torch.sum(p * torch.log2(p + 1e-30), dim=1) / np.log2(p.shape[1])

    logits, sub_logits = (
        F.interpolate(z, size=x.shape[2:], mode="bilinear", align_corners=True) for z in classify(x, False)
    )
    strong, sub_strong = classify(u_strong, True)
    weak, sub_weak = classify(u_weak, True)
    p_cls, p_sub = F.softmax(weak, dim=1), F.softmax(sub_weak, dim=1)

    confidence_sub, pseudo_sub = p_sub.max(1)
    Lu_sub = F.cross_entropy(sub_strong, pseudo_sub, reduction="none") * (confidence_sub > THRESHOLD).float()
    parent = F.one_hot(class_of_subclass[pseudo_sub], p_cls.shape[1]).permute(0, 3, 1, 2)
    left_alone = (entropy(p_sub) > entropy(p_cls)).float().unsqueeze(1)
    confidence, pseudo = (left_alone * p_cls + (1 - left_alone) * p_cls * parent).max(1)
    Lu_reg = F.cross_entropy(strong, pseudo, reduction="none") * (confidence > THRESHOLD).float()
    return {
        "Ls": F.cross_entropy(logits, y, ignore_index=IGNORE),
        "Ls_sub": F.cross_entropy(sub_logits, s, ignore_index=IGNORE),
        "Lu_reg": Lu_reg.mean(),
        "Lu_sub": Lu_sub.mean(),
    }, logits


class HostMetrics:
    """Sums on the host: losses, and pixels per class of intersection and union."""

    def __init__(self, n_classes: int):
        self.n_classes = n_classes
        self.losses: dict[str, float] = {}
        self.correct = self.labelled = 0
        self.intersection, self.union = np.zeros(n_classes), np.zeros(n_classes)

    def add_losses(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.losses[name] = self.losses.get(name, 0.0) + value.item()

    def add_pixels(self, logits: Tensor, target: Tensor) -> None:
        prediction, labelled = logits.argmax(1) + 1, target >= 0
        target = (target + 1) * labelled
        self.labelled += int(labelled.sum().cpu().numpy())
        self.correct += int(((prediction == target) * labelled).sum().cpu().numpy())
        prediction = prediction * labelled
        intersection, predicted, targets = (
            torch.histc(values.float(), bins=self.n_classes, min=1, max=self.n_classes)
            for values in (prediction * (prediction == target), prediction, target)
        )
        self.intersection += intersection.cpu().numpy()
        self.union += (predicted + targets - intersection).cpu().numpy()


class OriginalStep:
    """One training iteration after another, on batches as ``TrainingBatches`` gives them."""

    def __init__(self, network: USRN, class_of_subclass: Tensor, n_classes: int):
        self.network, self.class_of_subclass = plain_network(network).train(), class_of_subclass
        self.optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
        self.metrics = HostMetrics(n_classes)

    def __call__(self, batch: dict[str, Tensor]) -> None:
        batch = {**batch, "y": batch["y"].long(), "s": batch["s"].long()}
        self.optimizer.zero_grad()
        values, logits = losses(self.network, self.class_of_subclass, **batch)
        sum(values.values()).backward()
        self.optimizer.step()
        self.metrics.add_losses(values)
        self.metrics.add_pixels(logits.detach(), batch["y"])


@torch.no_grad()
def validate(network: USRN, images: Iterable[tuple[Tensor, Tensor]], n_classes: int) -> HostMetrics:
    """Evaluate normalised padded images (3, H', W') with targets (H, W), one by one, both branches computed."""
    network = plain_network(network).eval()
    device = next(network.parameters()).device
    metrics = HostMetrics(n_classes)
    for image, target in images:
        image, target = image[None].to(device, non_blocking=True), target[None].long().to(device, non_blocking=True)
        features, sub_features = network.both_pixel_features(image)
        logits, _ = (
            F.interpolate(z, size=image.shape[2:], mode="bilinear", align_corners=True)
            for z in (network.classifier(features), network.classifier_SubCls(sub_features))
        )
        logits = logits[..., : target.shape[1], : target.shape[2]]
        metrics.add_losses({"loss": F.cross_entropy(logits, target, ignore_index=IGNORE)})
        metrics.add_pixels(logits, target)
    return metrics
