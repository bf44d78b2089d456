"""The score of every validation image: where a network does well, and where it does not."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from dataloaders.sets.description import Sample
from trainer.evaluation.run_json import evaluate_again
from utils.distributed import all_sum, is_main
from utils.errors import UsageError
from utils.files import write_atomically, write_whole
from utils.inputs import read_plain
from utils.metrics import ConfusionMatrix

IMAGE_SCORES, IMAGE_COUNTS = "images.csv", "images.npz"


class ImageScores:
    """Mean IoU of every image over the classes in its mask; called by ``evaluate`` with each image.

    Attributes
    ----------
    counts
        int64 (N, 3, C): for every image and class the pixels that are right, in the target, and predicted.
    """

    def __init__(self, samples: Sequence[Sample], n_classes: int, device: torch.device):
        self.n_classes = n_classes
        self.position = {sample.id: position for position, sample in enumerate(samples)}
        self.counts = torch.zeros(len(samples), 3, n_classes, dtype=torch.int64, device=device)

    def __call__(self, sample: Sample, image: Tensor, target: Tensor, prediction: Tensor) -> None:
        confusion = ConfusionMatrix(self.n_classes, prediction.device)
        confusion.update(prediction, target.to(prediction.device))
        counts = confusion.counts
        self.counts[self.position[sample.id]] = torch.stack([counts.diagonal(), counts.sum(1), counts.sum(0)])

    def save(self, folder: Path) -> None:
        """Write the scores to ``images.csv`` and the counts to ``images.npz``, for the images of all processes.

        The score of an image without labels stays empty.
        """
        counts = all_sum(self.counts).cpu()  # an image is one process's, and 0 with the others
        if not is_main():
            return
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("image", "mean_iou"))
        for id_, (right, target, predicted) in zip(self.position, counts, strict=True):
            iou = (right.double() / (target + predicted - right))[target > 0].mean()
            writer.writerow((id_, "" if iou.isnan() else f"{iou:.6f}"))
        write_whole(folder / IMAGE_SCORES, text.getvalue())
        ids = np.array(list(self.position))
        write_atomically(folder / IMAGE_COUNTS, lambda file: np.savez_compressed(file, ids=ids, counts=counts.numpy()))


def read_image_scores(path: Path) -> dict[str, float]:
    """Score by image id, without the images that have none; empty where the file is missing."""
    if not path.exists():
        return {}
    try:
        rows = csv.DictReader(io.StringIO(read_plain(path).decode(), newline=""))
        if not {"image", "mean_iou"} <= set(rows.fieldnames or ()):
            raise ValueError("it does not begin with image,mean_iou")
        found = {row["image"]: float(row["mean_iou"]) for row in rows if row["mean_iou"]}
        if not all(0 <= score <= 1 for score in found.values()):
            raise ValueError("a score is not between 0 and 1")
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot be read ({reason}). {evaluate_again(path.parent)}") from None
    return found


def read_image_counts(path: Path) -> np.ndarray:
    """The counts in ``images.npz``, int64 (N, 3, C)."""
    try:
        with np.load(io.BytesIO(read_plain(path)), allow_pickle=False) as contents:
            counts = contents["counts"]
        if counts.ndim != 3 or counts.dtype != np.int64:
            raise ValueError(f"it holds {counts.dtype} {counts.shape}")
    # An array alone has no "counts" either; whatever a damaged archive raises.
    except (OSError, ValueError, TypeError, KeyError, EOFError, AttributeError, MemoryError, BadZipFile) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot be read ({reason}). {evaluate_again(path.parent)}") from None
    return counts
