"""What a training run counts between its log lines and its validations."""

import torch
from torch import Tensor

from dataloaders.reading import IGNORE
from trainer.evaluation.label_quality import COUNTED_PIXELS, PseudoLabelQuality
from utils.distributed import all_sum, is_main
from utils.metrics import ClassCounts, ConfusionMatrix, Scores, scores

_COUNTED = ("confusion", "labels", "pseudo_labels")


class Tally:
    """Sums of a run's scalars since the last log line, and counts of pixels since the last validation.

    They stay on the device. Sums are in float64, so that a run that goes on, on any number of processes, adds up to
    the same. A step that was skipped counts for nothing.

    Attributes
    ----------
    confusion
        Targets and predictions of the labelled images in this epoch.
    labels, pseudo_labels
        Pixels of every class among the labels of the epochs since the last validation, and among the pseudo labels
        used since then.
    quality
        How right pseudo labels were since :meth:`take_quality`; counted where ``judges`` is true.
    """

    def __init__(self, n_classes: int, device: torch.device, judges: bool = False):
        self.n_classes, self.device = n_classes, device
        self.quality = PseudoLabelQuality(n_classes, device)
        self._counted = (*_COUNTED, "quality") if judges else _COUNTED
        self.running: dict[str, Tensor] = {}
        self.begin_epoch()
        self._begin_shares()

    def begin_epoch(self) -> None:
        self.confusion = ConfusionMatrix(self.n_classes, self.device)

    def _begin_shares(self) -> None:
        self.labels, self.pseudo_labels = (ClassCounts(self.n_classes, self.device) for _ in range(2))

    def update(self, out: dict[str, Tensor], target: Tensor, good: Tensor, hidden_target: Tensor | None = None) -> None:
        """Add a step: what it reported, its targets (N, H, W), and whether it was taken, a bool scalar.

        ``hidden_target`` are the classes of the unlabelled images, (N, H, W), where pseudo labels are judged.
        """
        self.confusion.update(out["prediction"], torch.where(good, target, IGNORE))
        if "pseudo_label" in out:
            self.pseudo_labels.update(torch.where(good, out["pseudo_label"], IGNORE))
        if hidden_target is not None:
            self.quality.update(out, torch.where(good, hidden_target, IGNORE))
        for name, value in out.items():
            if value.ndim == 0:
                pair = torch.stack([torch.where(good, value, 0).double(), good.double()])
                self.running[name] = self.running[name] + pair if name in self.running else pair

    def take_scalars(self) -> dict[str, float]:
        """Means over the steps of all processes since the last call."""
        names = sorted(self.running)  # the same order in every process, also after going on
        sums = all_sum(torch.stack([self.running[name] for name in names])).tolist()
        self.running.clear()
        return {name: total / count for name, (total, count) in zip(names, sums, strict=True) if count}

    def end_epoch(self) -> None:
        """Count the epoch's labels; before its validation, where it has one."""
        self.labels.counts += self.confusion.counts.sum(1)

    def training_scores(self) -> Scores:
        """Scores on the labelled images of this epoch, over all processes."""
        return scores(all_sum(self.confusion.counts))

    def take_shares(self) -> tuple[list[float] | None, list[float] | None]:
        """Every class's share of labels and of used pseudo labels since the last call, over all processes."""
        for counted in (self.labels, self.pseudo_labels):
            all_sum(counted.counts)
        shares = self.labels.shares(), self.pseudo_labels.shares()
        self._begin_shares()
        return shares

    def take_quality(self) -> dict[str, list[int]] | None:
        """Counts of right and wrong pseudo labels since the last call, over all processes; None without any."""
        if "quality" not in self._counted:
            return None
        counts = all_sum(self.quality.counts).tolist()
        self.quality = PseudoLabelQuality(self.n_classes, self.device)
        return dict(zip(COUNTED_PIXELS, counts, strict=True)) if any(counts[0]) else None

    def state(self) -> dict:
        """All of it for a checkpoint: sums over all processes, on the CPU. Every process must call it."""
        counted = {name: all_sum(getattr(self, name).counts.clone()).cpu() for name in self._counted}
        return {
            **counted,
            "running": {name: all_sum(self.running[name].clone()).cpu() for name in sorted(self.running)},
        }

    def load(self, state: dict) -> None:
        """Go on from what :meth:`state` returned; the first process takes it all, since these are sums.

        The others take zeros of the same names: every process must have the same ones to add up.
        """

        def own(sums: Tensor) -> Tensor:
            return sums.to(self.device) if is_main() else torch.zeros_like(sums, device=self.device)

        for name in self._counted:
            if name in state:  # not where pseudo labels were not judged before
                getattr(self, name).counts += own(state[name])
        self.running = {name: own(value) for name, value in state["running"].items()}
