"""``study.html``: a study on one page, with a dot for every seed."""

from collections.abc import Iterator
from html import escape
from typing import Any

from trainer.evaluation.report.cells import html_table, table_row
from trainer.evaluation.report.page import html_page
from trainer.studies.label_quality import NOTE, quality_tables
from trainer.studies.table import SCORES, difference_text, interval_notes, mean_and_spread

WIDTH, ROW, LEFT = 560, 26, 10
STYLES = ("s5", "s1", "s2", "s3", "s4")


def study_page(contents: dict[str, Any]) -> str:
    """The page of ``study.json``'s contents."""
    headline = f'<p class="score">{escape(contents["question"])}</p>'
    headline += "".join(f"<p>{escape(line)}</p>" for line in contents.get("recommendation", ()))
    bodies = {"Mean IoU": _dots(contents, "mean"), "Differences": _differences(contents)}
    bodies["Classes"] = "".join(
        f"<h3>{escape(name)}</h3>{_dots(contents, name)}"
        for name in (*contents.get("groups", {}), *next((seed["iou"] for seed in _seeds(contents)), {}))
    )
    bodies["Pseudo labels"] = _quality(contents)
    bodies["Runs"] = _runs(contents)
    return html_page(contents["study"], headline, bodies)


def _seeds(contents: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (seed for variant in contents["variants"].values() for seed in variant["seeds"].values())


def _score(seed: dict[str, Any], name: str) -> float | None:
    if name == "mean":
        return seed["mean_iou"]
    return seed["groups"][name] if name in seed["groups"] else seed["iou"][name]


def _dots(contents: dict[str, Any], name: str) -> str:
    """A row a variant: a dot for the score of every seed, a line for their mean."""
    rows = {
        variant: {seed: value for seed, scores in found["seeds"].items() if (value := _score(scores, name)) is not None}
        for variant, found in contents["variants"].items()
    }
    values = [value for row in rows.values() for value in row.values()]
    if not values:
        return ""
    low, high = min(values), max(values)
    span = max(high - low, 0.01)

    def place(value: float) -> float:
        return LEFT + (WIDTH - 2 * LEFT) * (value - low) / span

    table = []
    for (variant, row), style in zip(rows.items(), STYLES * len(rows), strict=False):
        marks = [
            f'<circle class="curve {style}" cx="{place(value):.1f}" cy="{ROW / 2}" r="4"><title>seed {seed}: '
            f"{100 * value:.1f} %</title></circle>"
            for seed, value in row.items()
        ]
        if row:
            middle = place(sum(row.values()) / len(row))
            marks.append(f'<path class="curve {style}" d="M{middle:.1f} 3V{ROW - 3}"/>')
        drawn = f'<svg viewBox="0 0 {WIDTH} {ROW}" role="img" aria-label="{escape(variant)}">{"".join(marks)}</svg>'
        label = f"<div><span>{escape(variant)}</span>{drawn}</div>"
        table.append(f"<tr><th scope=row>{label}</th><td>{mean_and_spread(list(row.values()))}</td></tr>")
    head = f"<th scope=col>a dot a seed, {100 * low:.1f} to {100 * high:.1f} %</th><th scope=col>mean ± deviation</th>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(table)}</tbody></table>"


def _differences(contents: dict[str, Any]) -> str:
    rows = [
        f"<tr><th scope=row>{escape(name)}, {what}</th><td>{escape(difference_text(found.get(what)))}</td></tr>"
        for name, found in contents.get("differences", {}).items()
        for what in SCORES
        if what in found
    ]
    if not rows:
        return ""
    first = escape(next(iter(contents["variants"])))
    note = (
        f"<p>From {first}, in points: mean over the seeds, the 95 % interval of a paired bootstrap over images and "
        f"seeds, and with how many seeds it is above. {' '.join(interval_notes(contents))}</p>"
    )
    return f"{note}<table><tbody>{''.join(rows)}</tbody></table>"


def _quality(contents: dict[str, Any]) -> str:
    tables = [
        html_table(header, [table_row(escape(title), "", values) for title, *values in rows])
        for header, rows in quality_tables(contents)
    ]
    return f"<p>{NOTE}</p>{''.join(tables)}" if tables else ""


def _runs(contents: dict[str, Any]) -> str:
    rows = []
    for name, variant in contents["variants"].items():
        for seed, found in variant["seeds"].items():
            minutes = "–" if found["minutes"] is None else f"{found['minutes']:.1f}"
            cells = (found["commit"] or "–", f"{found['device']}, PyTorch {found['torch']}", minutes)
            cells = "".join(f"<td>{escape(str(cell))}</td>" for cell in cells)
            rows.append(f"<tr><th scope=row>{escape(name)}, seed {seed}</th>{cells}</tr>")
    head = "".join(f"<th scope=col>{title}</th>" for title in ("run", "commit", "on", "minutes"))
    return (
        f"<p><code>{escape(contents.get('command', ''))}</code></p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
