"""What ``--test`` says of a network: ``results.json``, a prediction and a score per image."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from dataloaders.sets.description import SegmentationData
from trainer.evaluation.evaluate import PREDICTIONS, PredictionWriter, evaluate
from trainer.evaluation.image_scores import ImageScores
from trainer.prediction.protocol import Protocol
from trainer.prediction.whole_image import whole_image_loader
from utils.config import Config
from utils.distributed import all_sum
from utils.metrics import BoundaryCounts, Calibration, Scores, expected_calibration_error


def measure(
    config: Config,
    data: SegmentationData,
    network: nn.Module,
    device: torch.device,
    *,
    name: str,
    write_to: Path | None,
) -> dict[str, Any]:
    """All scores of a network on the validation images, as ``results.json`` holds them.

    Parameters
    ----------
    name
        Of the network, for messages.
    write_to
        The run's folder, for predictions and scores of every image; None writes nothing.
    """
    boundaries, calibration = BoundaryCounts(len(data.classes)), Calibration(device)
    image_scores = ImageScores(data.validation, len(data.classes), device)
    writer = PredictionWriter(write_to / PREDICTIONS, data.palette) if write_to is not None else None

    def on_image(sample, image, target, prediction) -> None:
        boundaries.update(prediction, target)
        image_scores(sample, image, target, prediction)
        if writer is not None:
            writer(sample, image, target, prediction)

    result = evaluate(
        Protocol(network, device, config),
        whole_image_loader(config, data, data.validation, device),
        len(data.classes),
        device,
        calibration=calibration,
        on_image=on_image,
        name=name,
    )
    boundary_iou = BoundaryCounts.iou(all_sum(boundaries.counts.to(device)))
    if write_to is not None:
        image_scores.save(write_to)
    return contents(data.classes, result) | {
        "boundary_iou": _number(float(boundary_iou.nanmean())),
        "boundary_iou_by_class": _by_class(data.classes, boundary_iou),
        "expected_calibration_error": _number(expected_calibration_error(calibration.sums)),
        "calibration": dict(zip(("pixels", "right", "confidence"), calibration.sums.tolist(), strict=True)),
        "evaluation": config.evaluation.model_dump(),
        "checkpoint": name,
    }


def contents(classes: tuple[str, ...], result: Scores) -> dict[str, Any]:
    """Scores by name; null where there is none."""
    return {
        "mean_iou": result.mean_iou,
        "pixel_accuracy": result.pixel_accuracy,
        "mean_accuracy": _number(result.mean_accuracy),
        "frequency_weighted_iou": _number(result.frequency_weighted_iou),
        "mean_iou_by_frequency": {name: _number(value) for name, value in result.mean_iou_by_frequency.items()},
        "iou": _by_class(classes, result.iou),
        "confusion": result.counts.tolist(),
    }


def _by_class(classes: tuple[str, ...], values: torch.Tensor) -> dict[str, float | None]:
    return {name: _number(value) for name, value in zip(classes, values.tolist(), strict=True)}


def _number(value: float) -> float | None:
    return None if value != value else value
