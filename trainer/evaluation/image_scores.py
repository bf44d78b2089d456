"""The score of every validation image: where a network does well, and where it does not."""

import csv
import io
from pathlib import Path

import torch
from torch import Tensor

from dataloaders.sets.description import Sample
from utils.distributed import all_sum, is_main
from utils.files import write_whole
from utils.metrics import ConfusionMatrix, scores

IMAGE_SCORES = "images.csv"


class ImageScores:
    """Mean IoU of every image over the classes in its mask; called by ``evaluate`` with each image."""

    def __init__(self, samples: tuple[Sample, ...], n_classes: int, device: torch.device):
        self.n_classes = n_classes
        self.position = {sample.id: position for position, sample in enumerate(samples)}
        self.values = torch.zeros(len(samples), dtype=torch.float64, device=device)

    def __call__(self, sample: Sample, image: Tensor, target: Tensor, prediction: Tensor) -> None:
        confusion = ConfusionMatrix(self.n_classes, prediction.device)
        confusion.update(prediction, target.to(prediction.device))
        result = scores(confusion.counts)
        self.values[self.position[sample.id]] = result.iou[result.counts.sum(1) > 0].mean()

    def save(self, path: Path) -> None:
        """Write ``image,mean_iou`` for the images of all processes; the score of one without labels stays empty."""
        values = all_sum(self.values).tolist()  # an image is one process's, and 0 with the others
        if not is_main():
            return
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("image", "mean_iou"))
        for id_, value in zip(self.position, values, strict=True):
            writer.writerow((id_, "" if value != value else f"{value:.6f}"))
        write_whole(path, text.getvalue())


def read_image_scores(path: Path) -> dict[str, float]:
    """Score by image id, without the images that have none; empty where the file is missing."""
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        return {row["image"]: float(row["mean_iou"]) for row in csv.DictReader(file) if row["mean_iou"]}
