"""What a run's folder holds of the report's input."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataloaders.sets.description import SegmentationData
from trainer.evaluation.image_scores import IMAGE_SCORES, read_image_scores
from trainer.evaluation.report.charts import Curve


@dataclass
class RunFiles:
    """A run's files, read; each is empty where the file is missing.

    Attributes
    ----------
    results
        ``results.json``: scores of ``--test``.
    images
        ``images.csv``: score by image id.
    history
        ``history.jsonl``: entries of scalars and validations.
    stages
        ``stages.json``: how each stage was made.
    """

    name: str
    folder: Path
    results: dict[str, Any] = field(default_factory=dict)
    images: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    stages: dict[str, Any] = field(default_factory=dict)

    def curve(self, key: str, style: str, name: str | None = None) -> Curve:
        """The curve of a key of the history."""
        entries = [entry for entry in self.history if key in entry]
        return Curve(name or key, [entry["iteration"] for entry in entries], [entry[key] for entry in entries], style)

    def iou(self, class_name: str | None) -> float:
        """IoU of a class, or with None the mean; NaN where there is none."""
        value = self.results["iou"][class_name] if class_name is not None else self.results["mean_iou"]
        return float("nan") if value is None else value


def read_run(name: str, folder: Path, data: SegmentationData, *, evaluated: bool = True) -> RunFiles:
    """Read a run; without ``evaluated``, or where the results are of other classes, its results are left out."""
    run = RunFiles(name, folder)
    if (folder / "history.jsonl").is_file():
        run.history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    if (folder / "stages.json").is_file():
        run.stages = json.loads((folder / "stages.json").read_text())
    if evaluated and (folder / "results.json").is_file():
        results = json.loads((folder / "results.json").read_text())
        if tuple(results["iou"]) == data.classes:
            run.results = results
            run.images = read_image_scores(folder / IMAGE_SCORES)
    return run
