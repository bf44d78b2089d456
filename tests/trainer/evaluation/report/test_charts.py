import re

import numpy as np
import pytest

from trainer.evaluation.report.charts import POINTS, Curve, balance, bars, heat_map, line_chart, row_shares, ticks


def points(chart):
    return [
        [tuple(map(float, pair.split(","))) for pair in text.split()] for text in re.findall('points="(.*?)"', chart)
    ]


def test_ticks_are_round_and_enclose_the_values():
    assert ticks(0, 0.83) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(0, 1632) == [0, 500, 1000, 1500, 2000]
    assert ticks(0, 5) == [0, 1, 2, 3, 4, 5]
    assert ticks(0, 0) == [0]


def test_curve_rises_to_the_right_where_values_grow():
    ((first, last),) = points(line_chart("t", [Curve("a", [0, 10], [1, 2], "s1")]))
    assert last[0] > first[0]
    assert last[1] < first[1]  # SVG counts from the top


def test_long_curve_is_drawn_as_means():
    y = np.arange(10_000.0) % 2
    (drawn,) = points(line_chart("t", [Curve("a", list(range(10_000)), list(y), "s1")]))
    assert len(drawn) == POINTS
    assert np.ptp([height for _, height in drawn]) < 5


def test_chart_leaves_out_what_is_no_number_and_is_empty_without_curves():
    ((first, last),) = points(line_chart("t", [Curve("a", [0, 5, 10], [1, float("nan"), 2], "s1")]))
    assert last[0] > first[0]
    assert line_chart("t", [Curve("a", [1], [1], "s1"), Curve("b", [1, 2], [None, None], "s2")]) == ""


def test_chart_says_in_words_where_its_curves_end():
    chart = line_chart("IoU", [Curve("a<b", [0, 1], [0.5, 0.625], "s1")], percent=True)
    assert 'aria-label="IoU, by iteration; at the end: a&lt;b 62.5"' in chart


def test_bars_are_as_long_as_their_values():
    assert 'class="own" style="width:62.5%"' in bars({"own": 0.625})
    assert "base" not in bars({"base": float("nan"), "own": 0.5})


def test_balance_leans_to_the_side_of_the_ratio():
    assert 'class="more" style="width:25.0%"' in balance(4, 16)
    assert 'class="less" style="width:25.0%"' in balance(1 / 4, 16)
    assert 'class="less" style="width:50.0%"' in balance(0, 16)
    assert 'class="more" style="width:50.0%"' in balance(1000, 16)
    assert "width:0.0%" in balance(float("nan"), 16)


def test_heat_map_shows_shares_of_rows_and_leaves_empty_cells_out():
    counts = np.array([[3, 1, 0], [0, 0, 0], [0, 0, 5]])
    assert row_shares(counts).tolist() == [[0.75, 0.25, 0], [0, 0, 0], [0, 0, 1]]
    chart = heat_map(counts, ["a", "b", "<c>"])
    assert chart.count("<rect") == 3
    assert "a, predicted b: 25.0 %" in chart
    assert "&lt;c&gt;, predicted &lt;c&gt;: 100.0 %" in chart
