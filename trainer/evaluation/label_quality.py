"""How right pseudo labels are, by the masks of unlabelled images, which training does not see."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

COUNTED_PIXELS = (
    "pixels",
    "confident", "confident_right",
    "used", "used_right",
    "vetoed", "vetoed_wrong",
    "parent", "parent_right",
)  # fmt: skip
"""What :class:`PseudoLabelQuality` counts, by class: pixels of the class; then those that have it as their label, and
how many of these are right (or wrong): above the threshold before the gate; used, after it; above the threshold before
and not used as that afterwards; and by the class that owns a subclass label that is used."""
SHARES = {
    "confident": ("confident", "pixels"),
    "precision before the gate": ("confident_right", "confident"),
    "recall before the gate": ("confident_right", "pixels"),
    "used": ("used", "pixels"),
    "precision": ("used_right", "used"),
    "recall": ("used_right", "pixels"),
    "vetoed": ("vetoed", "confident"),
    "vetoed rightly": ("vetoed_wrong", "vetoed"),
    "subclass used": ("parent", "pixels"),
    "precision of subclasses' classes": ("parent_right", "parent"),
}
"""Shares that are shown: of which count, of which other one."""
STRIDE = 4  # of the network's features


class PseudoLabelQuality:
    """Counts of ``COUNTED_PIXELS``, int64 (9, C), of pixels whose class is known; on the device of what it is given."""

    def __init__(self, n_classes: int, device: torch.device | str = "cpu"):
        self.n_classes = n_classes
        self.counts = torch.zeros(len(COUNTED_PIXELS), n_classes, dtype=torch.int64, device=device)

    def update(self, out: dict[str, Tensor], target: Tensor) -> None:
        """Add a batch.

        Parameters
        ----------
        out
            What the training step reports: ``pseudo_label`` (N, H', W') and, of methods that have them,
            ``ungated_label`` and ``parent_label``; values outside the classes mean no label.
        target
            Classes of the unlabelled images, (N, H, W); values outside the classes are left out.
        """
        used = out["pseudo_label"]
        target = at_labels(target, used.shape[1:]).long()
        known = (target >= 0) & (target < self.n_classes)
        confident = out.get("ungated_label", used)
        parent = out.get("parent_label")
        vetoed = confident.where(confident != used, -1)
        rows = [(target, known)]
        for label, wrong in ((confident, False), (used, False), (vetoed, True), (parent, False)):
            if label is not None:
                there = known & (label >= 0) & (label < self.n_classes)
                rows += [(label, there), (label, there & ((label == target) != wrong))]
        labels = torch.stack([label.clamp(0, self.n_classes - 1).flatten() for label, _ in rows])
        # No bincount and no boolean indexing, which would make a GPU wait for the host.
        self.counts[: len(rows)].scatter_add_(1, labels, torch.stack([there.flatten() for _, there in rows]).long())


def at_labels(target: Tensor, size: torch.Size) -> Tensor:
    """Of targets (N, H, W), the pixels in whose place labels of ``size`` (H', W') are: (N, H', W').

    The network's features are at a stride of 4 with corners aligned (``models.deeplab.upsample``); a label is of one
    of them, or of the mean of several neighbours.
    """
    for axis, labels in zip((1, 2), size, strict=True):
        pixels = target.shape[axis]
        features = max(labels, -(-pixels // STRIDE))
        at = (torch.arange(labels, device=target.device) + 0.5) * (features // labels) - 0.5
        target = target.index_select(axis, (at * (pixels - 1) / max(1, features - 1)).round().long())
    return target


class Quality:
    """What ``COUNTED_PIXELS`` say, as shares; ``counts`` are lists of one number a class, by name."""

    def __init__(self, counts: Mapping[str, Sequence[int]]):
        self.counts = counts

    def shares(self, classes: Sequence[int] | None = None) -> dict[str, float | None]:
        """Over all pixels, or those that are, or are labelled, one of ``classes``; None for a share of nothing."""
        total = {
            name: sum(values if classes is None else (values[index] for index in classes))
            for name, values in self.counts.items()
        }
        return {title: _share(total[part], total[whole]) for title, (part, whole) in SHARES.items()}

    def by_class(self) -> dict[str, list[float | None]]:
        """Every class's share; precision of labels of the class, recall of its pixels."""
        pairs = {
            title: zip(self.counts[part], self.counts[whole], strict=True) for title, (part, whole) in SHARES.items()
        }
        return {title: [_share(*pair) for pair in of_class] for title, of_class in pairs.items()}

    def mean(self, title: str) -> float | None:
        """Mean of a share over the classes that have one."""
        known = [value for value in self.by_class()[title] if value is not None]
        return sum(known) / len(known) if known else None


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
