"""Tables of the page and what stands in them, as HTML."""

from html import escape
from math import isfinite

from dataloaders.sets.description import SegmentationData


def html_table(headings: list[str], rows: list[str]) -> str:
    head = "".join(f"<th scope=col>{escape(heading)}</th>" for heading in headings)
    body = "\n".join(rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"


def table_row(label: str, drawn: str, values: list[str], style: str = "") -> str:
    cells = "".join(f"<td>{value}</td>" for value in values)
    return f'<tr class="{style}"><th scope=row><div><span>{label}</span>{drawn}</div></th>{cells}</tr>'


def class_label(data: SegmentationData, index: int) -> str:
    """A class's colour and name."""
    red, green, blue = data.palette[index]
    return f'<i class="swatch" style="background:rgb({red},{green},{blue})"></i>{escape(data.classes[index])}'


def percent_text(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f}" if isfinite(value) else "–"


def change_text(value: float) -> str:
    if not isfinite(value):
        return "–"
    text = f"{100 * value:+.1f}"
    style = "" if float(text) == 0 else "good" if value > 0 else "bad"
    return f'<b class="{style}">{text.replace("-", "−")}</b>'
