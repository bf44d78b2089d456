"""Validation, the per-class table, and predictions as pictures."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dataloaders.reading import read_mask
from dataloaders.sets.description import Sample
from models.execution import count_not_finite, refuse_not_finite
from trainer.evaluation.run_json import Results, evaluate_again
from utils.distributed import all_sum
from utils.errors import UsageError
from utils.files import write_whole
from utils.logger import progress
from utils.metrics import Calibration, ConfusionMatrix, Scores, scores
from utils.palette import save_mask
from utils.stop import StopRequest

PREDICTIONS = "preds"
"""Folder of the predictions of ``--test``, in the run's."""
OTHER_SCORES = {
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean class accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "boundary_iou": "mean boundary IoU",
    "expected_calibration_error": "calibration error",
}
"""Titles of the scores in ``results.json`` beside the classes' IoU and its means."""
LogitsOf = Callable[[Tensor, Sequence[tuple[int, int]]], list[Tensor]]
"""``WholeImages`` or ``Protocol``: images uint8 (N, 3, H, W) and their sizes → logits of each, (C, height, width)."""
OnImage = Callable[[Sample, Tensor, Tensor, Tensor], None]
"""Called with a sample, its image uint8 (3, H, W), its target and its prediction (H, W)."""


@torch.inference_mode()
def evaluate(
    logits_of: LogitsOf,
    loader: DataLoader,
    n_classes: int,
    device: torch.device,
    *,
    calibration: Calibration | None = None,
    on_image: OnImage | None = None,
    stop: StopRequest | None = None,
    name: str = "the network",
) -> Scores:
    """Scores over the images of all processes; ``calibration`` is added to.

    On a request to stop the rest of the images is left out: such scores are worth nothing.

    Raises
    ------
    NotFiniteError
        Some of its logits are not finite. It calls the network by its ``name``.
    """
    confusion = ConfusionMatrix(n_classes, device)
    not_finite = torch.zeros((), dtype=torch.int64, device=device)
    for batch in progress(loader, desc="validation", unit="batch"):
        if stop is not None and stop.asked:
            break
        logits = logits_of(batch["images"], [target.shape for target in batch["targets"]])
        for sample, image, target, of_image in zip(
            batch["samples"], batch["images"], batch["targets"], logits, strict=True
        ):
            height, width = target.shape
            not_finite += count_not_finite(of_image)
            prediction, on_device = of_image.argmax(0), target.to(device, non_blocking=True)
            confusion.update(prediction, on_device)
            if calibration is not None:
                confidence = of_image.softmax(0).amax(0)
                calibration.update(confidence, prediction == on_device, (on_device >= 0) & (on_device < n_classes))
            if on_image is not None:
                on_image(sample, image[:, :height, :width], target, prediction)
    refuse_not_finite(int(all_sum(not_finite)), name)
    if calibration is not None:
        all_sum(calibration.sums)
    return scores(all_sum(confusion.counts))


class PredictionWriter:
    """Writes every prediction to ``folder/<image id>.png`` as a palette PNG whose values are class indices."""

    def __init__(self, folder: Path, palette: np.ndarray):
        self.folder, self.palette = folder, palette
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, sample: Sample, image: Tensor, target: Tensor, prediction: Tensor) -> None:
        save_mask(self.folder / f"{sample.id}.png", prediction.cpu().numpy(), self.palette)


def read_prediction(run_dir: Path, sample: Sample, n_classes: int, size: tuple[int, int]) -> np.ndarray:
    """What ``--test`` has predicted for a sample, class indices (H, W).

    Raises
    ------
    UsageError
        The file is missing or damaged, or is not of this sample and these classes.
    """
    path = run_dir / PREDICTIONS / f"{sample.id}.png"
    try:
        prediction = read_mask(path, n_classes)
        if prediction.shape != size:
            raise UsageError(f"{path}: has not the size of {sample.label}.")
    except UsageError as error:
        raise UsageError(f"{error} {evaluate_again(run_dir)}") from None
    return prediction


def percent(value: float | None) -> str:
    return "-" if value is None or value != value else f"{100 * value:.2f}"


def scores_table(classes: tuple[str, ...], columns: dict[str, list[float]]) -> str:
    """A table of IoU in percent: a row a class and one for the mean, a column a run.

    ``columns`` maps a heading to the class IoUs followed by their mean; NaN is shown as "-". With two columns a
    third shows the difference.
    """
    headings = list(columns)
    rows = []
    for index, name in enumerate((*classes, "mean")):
        values = [columns[heading][index] for heading in headings]
        cells = [percent(value) for value in values]
        if len(values) == 2:
            difference = 100 * (values[1] - values[0])
            cells.append("-" if difference != difference else f"{difference:+.2f}")
        rows.append([name, *cells])
    if len(headings) == 2:
        headings = [*headings, "change"]
    header = ["IoU in %", *headings]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(row: list[str]) -> str:
        return "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        )

    rule = "-" * len(line(header))
    return "\n".join([line(header), rule, *map(line, rows[:-1]), rule, line(rows[-1])])


def save_results(path: Path, results: dict[str, Any]) -> None:
    """Write what ``measure`` gives as JSON, a line a row of the confusion matrix."""
    rows = ",\n  ".join(json.dumps(row) for row in results["confusion"])
    rest = {name: value for name, value in results.items() if name != "confusion"}
    write_whole(path, f'{json.dumps(rest, indent=1)[:-2]},\n "confusion": [\n  {rows}\n ]\n}}\n')


def summary_lines(results: Results) -> list[str]:
    """What the console says below the table of classes: the other scores, and the last model beside the best."""
    lines = []
    groups = results.get("mean_iou_by_frequency", {})
    if groups:
        lines.append("mean IoU of classes, " + ", ".join(f"{name} {percent(value)}" for name, value in groups.items()))
    scores = dict[str, Any](results)
    shown = [f"{title} {percent(scores[name])}" for name, title in OTHER_SCORES.items() if name in scores]
    lines += [", ".join(shown)] if shown else []
    if "last" in results:
        last = results["last"]["mean_iou"]
        lines.append(
            f"last model of the schedule: mean IoU {percent(last)}; the best one was chosen on these images, so its "
            f"{percent(results['mean_iou'])} is optimistic"
        )
    return lines


def column(results: Results) -> list[float]:
    """Class IoUs and their mean, as ``scores_table`` takes them."""
    values = [*results["iou"].values(), results["mean_iou"]]
    return [float("nan") if value is None else value for value in values]
