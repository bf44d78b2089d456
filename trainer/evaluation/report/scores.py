"""The section of the scores beside the classes' IoU."""

from typing import Any

import numpy as np

from trainer.evaluation.evaluate import OTHER_SCORES
from trainer.evaluation.report.cells import change_text, html_table, percent_text, table_row
from trainer.evaluation.report.charts import Curve, line_chart
from trainer.evaluation.report.run_files import RunFiles


def scores(run: RunFiles, baseline: RunFiles | None) -> str:
    """The other scores, the last model beside the best, and how confident predictions compare with right ones."""
    found = [_other_scores(dict(of_run.results)) for of_run in (baseline, run) if of_run is not None]
    if not found[-1]:
        return ""
    rows = []
    for title in found[-1]:
        values = [of_run.get(title, float("nan")) for of_run in found]
        change = [change_text(values[1] - values[0])] if len(values) > 1 else []
        rows.append(table_row(title, "", [*map(percent_text, values), *change]))
    headings = ["in %", "baseline", run.name, "change"] if baseline is not None else ["in %", run.name]
    note = (
        "<p>The best model was chosen by its score on these images, so that score is optimistic; the last is the model "
        "at the end of the schedule. Rare, medium and frequent classes are thirds by their pixels.</p>"
    )
    return note + html_table(headings, rows) + _reliability(run)


def _other_scores(results: dict[str, Any]) -> dict[str, float]:
    values = {"mean IoU of the last model": results["last"]["mean_iou"]} if "last" in results else {}
    groups = results.get("mean_iou_by_frequency", {})
    values |= {f"mean IoU of {name} classes": value for name, value in groups.items()}
    values |= {title: results[name] for name, title in OTHER_SCORES.items() if name in results}
    return {title: float("nan") if value is None else value for title, value in values.items()}


def _reliability(run: RunFiles) -> str:
    """Accuracy by confidence: below the diagonal, predictions are surer than they are right."""
    if "calibration" not in run.results:
        return ""
    pixels, right, confidence = (
        np.array(run.results["calibration"][name]) for name in ("pixels", "right", "confidence")
    )
    there = pixels > 0
    accuracy = Curve("right", list(confidence[there] / pixels[there]), list(right[there] / pixels[there]), "s1")
    diagonal = Curve("as sure as right", [0.0, 1.0], [0.0, 1.0], "s5")
    title = "Right predictions, %, by their confidence"
    return f'<div class="charts">{line_chart(title, [accuracy, diagonal], percent=True, by="confidence")}</div>'
