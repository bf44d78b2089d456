"""The sections of the page: each takes what it shows and returns HTML, "" where it has nothing to show."""

import json
from datetime import datetime, timedelta
from html import escape
from math import isfinite, log2
from pathlib import Path
from typing import Any

import numpy as np

from dataloaders.sets.description import SegmentationData
from trainer.evaluation.report.charts import Curve, balance, bars, heat_map, line_chart, row_shares
from trainer.evaluation.report.pictures import ENTROPY_COLOURS, Group, pictures_of
from trainer.evaluation.report.run_files import RunFiles
from trainer.subclasses.table import read_subclass_table
from utils.config import Config, flat_settings
from utils.errors import UsageError

CONFUSIONS = 8
LOSSES = ("total", "Ls", "Ls_sub", "Lu_reg", "Lu_sub")
SHARES = {"confident": "used, classes", "confident_sub": "used, subclasses", "gate_open": "left alone by the gate"}
WIDEST_RATIO = 8
"""The ratio of two shares at which a bar is full."""


def headline(run: RunFiles, baseline: RunFiles | None, data: SegmentationData) -> str:
    validations = [entry for entry in run.history if "val_mean_iou" in entry]
    if run.results:
        score, what = run.iou(None), f"mean IoU on {len(data.validation):,} validation images"
    elif validations:
        best = max(validations, key=lambda entry: entry["val_mean_iou"])
        score, what = best["val_mean_iou"], f"best mean IoU during training, at iteration {best['iteration']:,}"
    else:
        return ""
    text = f"<b>{_percent(score)} %</b> {what}"
    if baseline:
        before = baseline.iou(None)
        text += f"<br>{_change(score - before)} against the {_percent(before)} % of its baseline"
    return f'<p class="score">{text}</p>'


def classes(run: RunFiles, baseline: RunFiles | None, data: SegmentationData) -> str:
    """IoU of every class, with the baseline's beside it."""
    if not run.results:
        return ""
    rows = []
    for index, name in enumerate((*data.classes, None)):
        label = "mean" if name is None else _class(data, index)
        style = "total" if name is None else ""
        iou = run.iou(name)
        if baseline is None:
            rows.append(_row(label, bars({"own": iou}), [_percent(iou)], style))
            continue
        before = baseline.iou(name)
        values = [_percent(before), _percent(iou), _change(iou - before)]
        rows.append(_row(label, bars({"base": before, "own": iou}), values, style))
    if baseline is None:
        return _table(["class", "IoU in %"], rows)
    note = "<p>IoU in %. Upper bar: the baseline; lower bar: this run.</p>"
    return note + _table(["class", "baseline", run.name, "change"], rows)


SCORES = {
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean class accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "boundary_iou": "mean boundary IoU",
    "expected_calibration_error": "calibration error",
}


def scores(run: RunFiles, baseline: RunFiles | None) -> str:
    """The other scores, the last model beside the best, and how confident predictions compare with right ones."""
    found = [_other_scores(of_run.results) for of_run in (baseline, run) if of_run is not None]
    if not found[-1]:
        return ""
    rows = []
    for title in found[-1]:
        values = [of_run.get(title, float("nan")) for of_run in found]
        change = [_change(values[1] - values[0])] if len(values) > 1 else []
        rows.append(_row(title, "", [*map(_percent, values), *change]))
    headings = ["in %", "baseline", run.name, "change"] if baseline is not None else ["in %", run.name]
    note = (
        "<p>The best model was chosen by its score on these images, so that score is optimistic; the last is the model "
        "at the end of the schedule. Rare, medium and frequent classes are thirds by their pixels.</p>"
    )
    return note + _table(headings, rows) + _reliability(run)


def _other_scores(results: dict[str, Any]) -> dict[str, float]:
    values = {"mean IoU of the last model": results["last"]["mean_iou"]} if "last" in results else {}
    groups = results.get("mean_iou_by_frequency", {})
    values |= {f"mean IoU of {name} classes": value for name, value in groups.items()}
    values |= {title: results[name] for name, title in SCORES.items() if name in results}
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


def curves(run: RunFiles, baseline: RunFiles | None) -> str:
    scores = [run.curve("val_mean_iou", "s1", "validation"), run.curve("train_mean_iou", "s2", "training")]
    if baseline is not None:
        scores.append(baseline.curve("val_mean_iou", "s5", "baseline, validation"))
    losses = [run.curve(name, f"s{number}") for number, name in enumerate(LOSSES, 1)]
    shares = [run.curve(name, f"s{number}", label) for number, (name, label) in enumerate(SHARES.items(), 1)]
    rated = [entry for entry in run.history if "lr" in entry]
    rates = [
        Curve(name, [entry["iteration"] for entry in rated], [entry["lr"][name] for entry in rated], style)
        for name, style in (("heads", "s1"), ("backbone", "s2"))
    ]
    charts = [
        line_chart("Mean IoU, %", scores, percent=True),
        line_chart("Losses", losses),
        line_chart("Pseudo labels, % of pixels", shares, percent=True),
        line_chart("Learning rate", rates),
    ]
    return f'<div class="charts">{"".join(charts)}</div>' if any(charts) else ""


def pseudo_labels(run: RunFiles, data: SegmentationData) -> str:
    """Every class's share among the pseudo labels that were used, against its share among the labels."""
    entry = next((entry for entry in reversed(run.history) if "pseudo_label_shares" in entry), None)
    if entry is None:
        return ""
    rows = []
    shares = zip(entry["label_shares"], entry["pseudo_label_shares"], strict=True)
    for index, (label, pseudo) in enumerate(shares):
        ratio = pseudo / label if label else float("nan")
        values = [_percent(label, 2), _percent(pseudo, 2), f"× {ratio:.2f}" if isfinite(ratio) else "–"]
        rows.append(_row(_class(data, index), balance(ratio, WIDEST_RATIO), values))
    return (
        "<p>Each class’s share, in %, of the labelled pixels and of the pixels whose pseudo label was used, from the "
        "last validation but one to the last. A bar to the left: the class is rarer among the pseudo labels than among "
        f"the labels; to the right: more frequent. A full bar is a factor of {WIDEST_RATIO}.</p>"
        + _table(["class", "labels", "pseudo labels", "ratio"], rows)
    )


def confusion(run: RunFiles, data: SegmentationData) -> str:
    """The confusion matrix, and the largest shares of a class that are taken for another."""
    if "confusion" not in run.results:
        return ""
    counts = np.array(run.results["confusion"])
    shares = row_shares(counts)
    np.fill_diagonal(shares, 0)
    largest = np.argsort(-shares, axis=None, kind="stable")[:CONFUSIONS]
    items = "".join(
        f"<li>{escape(data.classes[row])} taken for {escape(data.classes[column])}: "
        f"<b>{_percent(shares[row, column])} %</b></li>"
        for row, column in zip(*np.unravel_index(largest, shares.shape), strict=True)
        if shares[row, column] > 0
    )
    note = "<p>Rows are targets, columns predictions; each number is the percentage of its row’s pixels.</p>"
    return f'{note}<div class="beside">{heat_map(counts, data.classes)}<ol class="worst">{items}</ol></div>'


def subclasses(config: Config, data: SegmentationData) -> str:
    """Labelled samples of every class, and how stage 3 divided them."""
    try:
        table = read_subclass_table(config, data)
    except UsageError:
        return ""
    if not table.sizes:
        return ""
    owners, sizes = table.class_of_subclass.numpy(), np.array(table.sizes)
    per_class = np.bincount(owners, weights=sizes, minlength=len(table.classes)).astype(int)
    full = log2(1 + per_class.max())
    rows = []
    for index, samples in enumerate(per_class):
        own = sizes[owners == index]
        drawn = bars({"base": log2(1 + samples) / full, "own": log2(1 + own.max(initial=0)) / full})
        each = "–".join(f"{size:,}" for size in sorted({own.min(), own.max()})) if len(own) else "–"
        rows.append(_row(_class(data, index), drawn, [f"{samples:,}", str(len(own)), each]))
    algorithm = table.algorithm.replace("_", " ").replace("kmeans", "k-means")
    return (
        f"<p>{table.n_subclasses} subclasses by {escape(algorithm)}. The largest class has {_spread(per_class)} times "
        f"the samples of the smallest, the largest subclass {_spread(sizes)} times those of the smallest. Upper bar: "
        "the class; lower bar: its largest subclass; lengths are logarithmic.</p>"
        + _table(["class", "samples", "subclasses", "each"], rows)
    )


def images(run: RunFiles, baseline: RunFiles | None, data: SegmentationData, groups: list[Group]) -> str:
    """The chosen images: each with its target, the predictions and the entropy of the last."""
    samples = {sample.id: sample for sample in data.validation}
    folders = ({"baseline": baseline.folder} if baseline else {}) | {run.name: run.folder}
    body = ""
    for group in groups:
        scenes = ""
        for id_ in group.ids:
            pictures = pictures_of(samples[id_], data, folders) if id_ in samples else {}
            if not pictures:
                continue
            cells = "".join(
                f'<figure><img src="{uri}" alt="{escape(f"{caption}, {id_}")}" loading="lazy">'
                f"<figcaption>{escape(caption)}</figcaption></figure>"
                for caption, uri in pictures.items()
            )
            score = f"IoU {_percent(run.images[id_])} %"
            if baseline and id_ in baseline.images:
                score += f", {_change(run.images[id_] - baseline.images[id_])}"
            scenes += f'<h4>{escape(id_)} <span>{score}</span></h4><div class="scene">{cells}</div>\n'
        body += f"<h3>{group.title}</h3>{scenes}" if scenes else ""
    if not body:
        return ""
    legend = "".join(f"<li>{_class(data, index)}</li>" for index in range(len(data.classes)))
    stops = ", ".join(f"rgb{colour}" for colour in ENTROPY_COLOURS)
    ramp = f'<span class="ramp">sure <i style="background:linear-gradient(90deg, {stops})"></i> unsure</span>'
    return (
        "<p>An image’s IoU is the mean over the classes in its target. The entropy is that of the class branch: "
        f'{ramp}.</p><ul class="legend">{legend}</ul>{body}'
    )


def facts(run: RunFiles, config: Config, data: SegmentationData) -> str:
    """What was run, when and on what."""
    shown = {
        "method": run.name,
        "data": f"{config.dataset}: {config.n_labeled_examples:,} of {config.num_images_all:,} images are labelled; "
        f"{len(data.validation):,} validation images; {len(data.classes)} classes",
    }
    stages = {"train": "training"} | ({"test": "evaluation"} if run.results else {})
    for stage, title in stages.items():
        made = run.stages.get(stage, {}).get("made")
        if made is None:
            continue
        began, ended = (datetime.fromisoformat(made[key]) for key in ("began", "ended"))
        resumed = f", resumed at iteration {made['resumed_at']:,}" if made.get("resumed_at") else ""
        where = f"{made['device']}" if made["processes"] == 1 else f"{made['processes']} × {made['device']}"
        shown[title] = (
            f"{began:%Y-%m-%d %H:%M}, {_duration(ended - began)}{resumed}; {where}; "
            f"Python {made['python']}, PyTorch {made['torch']}"
        )
    if run.results:
        shown["checkpoint"] = Path(run.results["checkpoint"]).name
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{escape(value)}</dd>' for name, value in shown.items())}</dl>"


def settings(config: Config) -> str:
    """The settings that are no defaults; all of them, folded."""

    def table(values: dict[str, Any]) -> str:
        rows = "".join(
            f"<tr><th scope=row>{escape(key)}</th><td>{escape(json.dumps(value, ensure_ascii=False))}</td></tr>"
            for key, value in values.items()
        )
        return f'<table class="settings">{rows}</table>'

    return (
        f"<h3>Settings that are not the default</h3>{table(flat_settings(config, changed_only=True))}"
        f"<details><summary>All settings</summary>{table(flat_settings(config))}</details>"
    )


def _table(headings: list[str], rows: list[str]) -> str:
    head = "".join(f"<th scope=col>{escape(heading)}</th>" for heading in headings)
    body = "\n".join(rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"


def _row(label: str, drawn: str, values: list[str], style: str = "") -> str:
    cells = "".join(f"<td>{value}</td>" for value in values)
    return f'<tr class="{style}"><th scope=row><div><span>{label}</span>{drawn}</div></th>{cells}</tr>'


def _class(data: SegmentationData, index: int) -> str:
    """A class's colour and name."""
    red, green, blue = data.palette[index]
    return f'<i class="swatch" style="background:rgb({red},{green},{blue})"></i>{escape(data.classes[index])}'


def _percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f}" if isfinite(value) else "–"


def _change(value: float) -> str:
    if not isfinite(value):
        return "–"
    text = f"{100 * value:+.1f}"
    style = "" if float(text) == 0 else "good" if value > 0 else "bad"
    return f'<b class="{style}">{text.replace("-", "−")}</b>'


def _spread(sizes: np.ndarray) -> str:
    """How many times the largest is the smallest of those that are not empty."""
    ratio = sizes.max() / sizes[sizes > 0].min()
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"


def _duration(time: timedelta) -> str:
    minutes, seconds = divmod(round(time.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
