"""The sections of the page: each takes what it shows and returns HTML, "" where it has nothing to show."""

from collections.abc import Sequence
from html import escape
from math import isfinite, log2

import numpy as np

from dataloaders.sets.description import SegmentationData
from trainer.evaluation.report.cells import change_text, class_label, html_table, percent_text, table_row
from trainer.evaluation.report.charts import Curve, balance, bars, heat_map, line_chart, row_shares
from trainer.evaluation.report.pictures import ENTROPY_COLOURS, Group, Scene, pictures_of, pictures_of_scene
from trainer.evaluation.report.run_files import RunFiles
from trainer.subclasses.table import read_subclass_table
from utils.config import Config
from utils.errors import UsageError

CONFUSIONS = 8
LOSSES = ("total", "Ls", "Ls_sub", "Lu_reg", "Lu_sub")
SHARES = {
    "confident": "used, classes",
    "confident_sub": "used, subclasses",
    "gate_open": "left alone by the gate",
    "mask_ratio": "used, of pixels not ignored",
}
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
    text = f"<b>{percent_text(score)} %</b> {what}"
    if baseline:
        before = baseline.iou(None)
        text += f"<br>{change_text(score - before)} against the {percent_text(before)} % of its baseline"
    return f'<p class="score">{text}</p>'


def classes(run: RunFiles, baseline: RunFiles | None, data: SegmentationData) -> str:
    """IoU of every class, with the baseline's beside it."""
    if not run.results:
        return ""
    rows = []
    for index, name in enumerate((*data.classes, None)):
        label = "mean" if name is None else class_label(data, index)
        style = "total" if name is None else ""
        iou = run.iou(name)
        if baseline is None:
            rows.append(table_row(label, bars({"own": iou}), [percent_text(iou)], style))
            continue
        before = baseline.iou(name)
        values = [percent_text(before), percent_text(iou), change_text(iou - before)]
        rows.append(table_row(label, bars({"base": before, "own": iou}), values, style))
    if baseline is None:
        return html_table(["class", "IoU in %"], rows)
    note = "<p>IoU in %. Upper bar: the baseline; lower bar: this run.</p>"
    return note + html_table(["class", "baseline", run.name, "change"], rows)


def last_validation(run: RunFiles, data: SegmentationData, scenes: Sequence[Scene]) -> str:
    """IoU of every class in the last validation, and what was predicted then."""
    entry = next((entry for entry in reversed(run.history) if "val_iou" in entry), None)
    if entry is None:
        return ""
    found = [value if value >= 0 else float("nan") for value in entry["val_iou"]]
    rows = [
        table_row(class_label(data, index), bars({"own": iou}), [percent_text(iou)]) for index, iou in enumerate(found)
    ]
    rows.append(table_row("mean", bars({"own": entry["val_mean_iou"]}), [percent_text(entry["val_mean_iou"])], "total"))
    pictures = "".join(_scene(scene.id, "", pictures_of_scene(scene, data.palette)) for scene in scenes)
    note = f"<p>At iteration {entry['iteration']:,}.</p>"
    return note + html_table(["class", "IoU in %"], rows) + (_legend(data) + pictures if pictures else "")


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
        values = [percent_text(label, 2), percent_text(pseudo, 2), f"× {ratio:.2f}" if isfinite(ratio) else "–"]
        rows.append(table_row(class_label(data, index), balance(ratio, WIDEST_RATIO), values))
    return (
        "<p>Each class’s share, in %, of the labelled pixels and of the pixels whose pseudo label was used, from the "
        "last validation but one to the last. A bar to the left: the class is rarer among the pseudo labels than among "
        f"the labels; to the right: more frequent. A full bar is a factor of {WIDEST_RATIO}.</p>"
        + html_table(["class", "labels", "pseudo labels", "ratio"], rows)
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
        f"<b>{percent_text(shares[row, column])} %</b></li>"
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
        rows.append(table_row(class_label(data, index), drawn, [f"{samples:,}", str(len(own)), each]))
    algorithm = table.algorithm.replace("_", " ").replace("kmeans", "k-means")
    return (
        f"<p>{table.n_subclasses} subclasses by {escape(algorithm)}. The largest class has {_spread(per_class)} times "
        f"the samples of the smallest, the largest subclass {_spread(sizes)} times those of the smallest. Upper bar: "
        "the class; lower bar: its largest subclass; lengths are logarithmic.</p>"
        + html_table(["class", "samples", "subclasses", "each"], rows)
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
            score = f"IoU {percent_text(run.images[id_])} %"
            if baseline and id_ in baseline.images:
                score += f", {change_text(run.images[id_] - baseline.images[id_])}"
            scenes += _scene(id_, score, pictures)
        body += f"<h3>{group.title}</h3>{scenes}" if scenes else ""
    if not body:
        return ""
    stops = ", ".join(f"rgb{colour}" for colour in ENTROPY_COLOURS)
    ramp = f'<span class="ramp">sure <i style="background:linear-gradient(90deg, {stops})"></i> unsure</span>'
    return (
        "<p>An image’s IoU is the mean over the classes in its target. The entropy is that of the class branch: "
        f"{ramp}.</p>{_legend(data)}{body}"
    )


def _scene(id_: str, score: str, pictures: dict[str, str]) -> str:
    """Pictures of one image, data URIs by caption."""
    cells = "".join(
        f'<figure><img src="{uri}" alt="{escape(f"{caption}, {id_}")}" loading="lazy">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, uri in pictures.items()
    )
    return f'<h4>{escape(id_)} <span>{score}</span></h4><div class="scene">{cells}</div>\n'


def _legend(data: SegmentationData) -> str:
    names = "".join(f"<li>{class_label(data, index)}</li>" for index in range(len(data.classes)))
    return f'<ul class="legend">{names}</ul>'


def _spread(sizes: np.ndarray) -> str:
    """How many times the largest is the smallest of those that are not empty."""
    ratio = sizes.max() / sizes[sizes > 0].min()
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"
