"""The part of the section of pseudo labels that says how many of them are right."""

from typing import Any

from dataloaders.sets.description import SegmentationData
from trainer.evaluation.label_quality import Quality
from trainer.evaluation.report.cells import class_label, html_table, percent_text, table_row
from trainer.evaluation.report.charts import Curve, line_chart
from trainer.evaluation.report.run_files import RunFiles

CHARTS = {
    "Pseudo labels that are right, %": (
        "precision before the gate", "precision", "precision of subclasses' classes",
    ),
    "Pixels with their right pseudo label, %": ("recall before the gate", "recall"),
    "Labels that the gate vetoed, and of these the wrong ones, %": ("vetoed", "vetoed rightly"),
}  # fmt: skip
OF_A_CLASS = ("precision", "recall")
COLUMNS = ("confident", "precision before the gate", "precision", "recall", "vetoed", "vetoed rightly")


def label_quality(run: RunFiles, data: SegmentationData) -> str:
    """Curves over the run, a table of the last round, and curves by class; "" where nothing was counted."""
    rounds = [(entry["iteration"], entry["pseudo_label_quality"]) for entry in run.history if _is_of(entry, data)]
    if not rounds:
        return ""
    at = [iteration for iteration, _ in rounds]
    found = [Quality(counts) for _, counts in rounds]
    overall = [quality.shares() for quality in found]
    charts = [
        line_chart(title, [_curve(name, at, [one[name] for one in overall], n) for n, name in enumerate(names, 1)],
                   percent=True)
        for title, names in CHARTS.items()
    ]  # fmt: skip
    by_class = [quality.by_class() for quality in found]
    of_classes = [
        line_chart(f"{name}, %", [_curve(what, at, [one[what][index] for one in by_class], n)
                                  for n, what in enumerate(OF_A_CLASS, 1)], percent=True)
        for index, name in enumerate(data.classes)
    ]  # fmt: skip
    rows = [
        table_row(class_label(data, index), "", [_text(by_class[-1][column][index]) for column in COLUMNS])
        for index in range(len(data.classes))
    ]
    rows.append(table_row("all", "", [_text(overall[-1][column]) for column in COLUMNS], "total"))
    note = (
        "<h3>How many are right</h3><p>By the masks of the unlabelled images, which training does not see; of pixels "
        "whose class is known. Precision: labels of the class that are right. Recall: pixels of the class that are "
        "labelled so. Confident: labels of the class in % of its pixels, before the gate. Vetoed: of these, what the "
        "gate took away; rightly where the label was wrong. The table is of the last round, up to iteration "
        f"{at[-1]:,}.</p>"
    )
    return (
        f'{note}<div class="charts">{"".join(charts)}</div>'
        + html_table(["in %", "confident", "precision before", "after the gate", "recall", "vetoed", "rightly"], rows)
        + f'<div class="charts">{"".join(of_classes)}</div>'
    )


def _is_of(entry: Any, data: SegmentationData) -> bool:
    return "pseudo_label_quality" in entry and len(entry["pseudo_label_quality"]["pixels"]) == len(data.classes)


def _curve(name: str, at: list[int], values: list[float | None], number: int) -> Curve:
    return Curve(name, at, [float("nan") if value is None else value for value in values], f"s{number}")


def _text(value: float | None) -> str:
    return "–" if value is None else percent_text(value)
