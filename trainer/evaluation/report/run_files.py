"""What a run's folder holds of the report's input."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataloaders.sets.description import SegmentationData
from trainer.evaluation.image_scores import IMAGE_SCORES, read_image_scores
from trainer.evaluation.report.charts import Curve
from trainer.evaluation.run_json import Entry, Made, Results, read_history, read_results, read_stages


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
    made
        From ``stages.json``: when and on what each stage was done.
    """

    name: str
    folder: Path
    results: Results | dict[str, Any] = field(default_factory=dict)
    images: dict[str, float] = field(default_factory=dict)
    history: list[Entry] = field(default_factory=list)
    made: dict[str, Made] = field(default_factory=dict)

    def curve(self, key: str, style: str, name: str | None = None) -> Curve:
        """The curve of a key of the history."""
        entries: list[dict[str, Any]] = [dict(entry) for entry in self.history if key in entry]
        return Curve(name or key, [entry["iteration"] for entry in entries], [entry[key] for entry in entries], style)

    def iou(self, class_name: str | None) -> float:
        """IoU of a class, or with None the mean; NaN where there is none."""
        value = self.results["iou"][class_name] if class_name is not None else self.results["mean_iou"]
        return float("nan") if value is None else value


def read_run(name: str, folder: Path, data: SegmentationData, *, evaluated: bool = True) -> RunFiles:
    """Read a run; without ``evaluated``, or where the results are of other classes, its results are left out."""
    run = RunFiles(name, folder)
    run.history = read_history(folder / "history.jsonl")
    run.made = {stage: entry["made"] for stage, entry in read_stages(folder / "stages.json").items() if entry}
    if evaluated and (folder / "results.json").exists():
        results = read_results(folder / "results.json")
        if tuple(results["iou"]) == data.classes:
            run.results = results
            run.images = read_image_scores(folder / IMAGE_SCORES)
    return run
