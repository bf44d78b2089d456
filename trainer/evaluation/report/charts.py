"""Charts as inline SVG and HTML: numbers in, text out. Colours are the style sheet's, so they follow light and dark."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, isfinite, log2, log10

import numpy as np

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 350, 10, 182
POINTS = 160
"""A curve of more points is drawn as the means of this many groups."""
CELL = 30
SHOWN_SHARE = 0.005
"""A cell of the heat map with a smaller share of its row stays empty."""


@dataclass(frozen=True)
class Curve:
    """A named curve; ``style`` is one of the style sheet's ``s1`` to ``s5``."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: str


def line_chart(title: str, curves: list[Curve], *, percent: bool = False, by: str = "iteration") -> str:
    """A figure of curves over iterations, or what ``by`` says; "" where no curve has two points.

    With ``percent``, values in [0, 1] are shown in percent.
    """
    curves = [thinned for thinned in map(_thin, curves) if len(thinned.x) > 1]
    if not curves:
        return ""
    factor = 100 if percent else 1
    right = max(max(curve.x) for curve in curves)
    values = [factor * value for curve in curves for value in curve.y]
    marks = ticks(min(0, *values), max(values))
    low, high = marks[0], marks[-1]

    def place(x: float, y: float) -> str:
        return f"{_across(x, right):.1f},{_up(factor * y, low, high):.1f}"

    lines = []
    for mark in marks:
        y = _up(mark, low, high)
        lines.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{RIGHT}"/>')
        lines.append(f'<text class="end" x="{LEFT - 6}" y="{y + 4:.1f}">{_number(mark)}</text>')
    for mark in (mark for mark in ticks(0, right) if mark <= right):
        lines.append(f'<text class="middle" x="{_across(mark, right):.1f}" y="{BOTTOM + 18}">{_number(mark)}</text>')
    lines += [
        f'<polyline class="curve {curve.style}" points="{" ".join(map(place, curve.x, curve.y))}"/>' for curve in curves
    ]
    legend = [
        f'<li><svg class="key" viewBox="0 0 24 8" aria-hidden="true"><path class="curve {curve.style}" d="M0 4H24"/>'
        f"</svg>{escape(curve.name)} <b>{_number(factor * curve.y[-1])}</b></li>"
        for curve in curves
    ]
    label = f"{title}, by {by}; at the end: " + ", ".join(
        f"{curve.name} {_number(factor * curve.y[-1])}" for curve in curves
    )
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(lines)}</svg>'
        f'<ul class="legend">{"".join(legend)}</ul></figure>'
    )


def bars(values: dict[str, float]) -> str:
    """Bars one below the other, for the eye alone: lengths in [0, 1] by the style sheet's name of the bar."""
    lengths = {name: min(max(value, 0), 1) for name, value in values.items() if isfinite(value)}
    drawn = "".join(f'<i class="{name}" style="width:{100 * length:.1f}%"></i>' for name, length in lengths.items())
    return f'<span class="bars" aria-hidden="true">{drawn}</span>'


def balance(ratio: float, widest: float) -> str:
    """A bar, for the eye alone, from the middle to the left for a ratio below 1 and to the right for one above.

    Its length is logarithmic and full at ``widest``.
    """
    length = min(1, abs(log2(ratio)) / log2(widest)) if ratio > 0 else float(ratio == 0)
    side = "more" if ratio > 1 else "less"
    return f'<span class="balance" aria-hidden="true"><i class="{side}" style="width:{50 * length:.1f}%"></i></span>'


def heat_map(counts: np.ndarray, names: Sequence[str]) -> str:
    """A confusion matrix, counts (C, C), as shares of each row: right ones in one colour, wrong ones in another."""
    shares = row_shares(counts)
    short = [name if len(name) <= 14 else name[:13] + "…" for name in names]
    margin = 12 + 7 * max(map(len, short))
    size = margin + CELL * len(names)
    cells = []
    for index, name in enumerate(short):
        middle = margin + CELL * (index + 0.5)
        cells.append(f'<text class="end" x="{margin - 6}" y="{middle + 4}">{escape(name)}</text>')
        cells.append(f'<text transform="translate({middle + 4} {margin - 6}) rotate(-90)">{escape(name)}</text>')
    for row, column in zip(*np.nonzero(shares >= SHOWN_SHARE), strict=True):
        share = shares[row, column]
        x, y = margin + CELL * column, margin + CELL * row
        kind = "right" if row == column else "wrong"
        cells.append(
            f"<g><title>{escape(names[row])}, predicted {escape(names[column])}: {100 * share:.1f} %</title>"
            f'<rect class="{kind}" x="{x + 1}" y="{y + 1}" width="{CELL - 2}" height="{CELL - 2}" rx="3" '
            f'fill-opacity="{0.04 + 0.5 * share:.2f}"/>'
            f'<text class="middle" x="{x + CELL / 2}" y="{y + CELL / 2 + 4}">{100 * share:.0f}</text></g>'
        )
    label = "Confusion matrix: rows are targets, columns predictions, numbers percent of the row's pixels"
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Confusion matrix"><svg class="heat" '
        f'width="{size}" height="{size}" viewBox="0 0 {size} {size}" role="img" aria-label="{label}">'
        f"{''.join(cells)}</svg></div>"
    )


def row_shares(counts: np.ndarray) -> np.ndarray:
    """Every row divided by its sum, float (C, C); rows without counts are 0."""
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers at equal distances, at most ``most`` of them apart, that enclose ``low`` to ``high``."""
    span = (high - low) or 1
    step = 10.0 ** floor(log10(span / most))
    step *= next(multiple for multiple in (1, 2, 5, 10) if span / (step * multiple) <= most)
    return [number * step for number in range(floor(low / step), ceil(high / step - 1e-9) + 1)]


def _thin(curve: Curve) -> Curve:
    """The curve without what is no number, and with at most ``POINTS`` points."""
    pairs = [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if y is not None and isfinite(y)]
    groups = np.array_split(np.array(pairs, float).reshape(-1, 2), min(POINTS, max(1, len(pairs))))
    means = [group.mean(0) for group in groups if len(group)]
    return Curve(curve.name, [float(x) for x, _ in means], [float(y) for _, y in means], curve.style)


def _across(x: float, right: float) -> float:
    return LEFT + (RIGHT - LEFT) * x / (right or 1)


def _up(y: float, low: float, high: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * (y - low) / ((high - low) or 1)


def _number(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k" if value % 100 == 0 else f"{value:,.0f}"
    return f"{value:,.0f}" if value == round(value) else f"{value:.3g}"
