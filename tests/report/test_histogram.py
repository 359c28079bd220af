from __future__ import annotations

import re

import pytest

from fedpref.report.histogram import histogram, histogram_chart


@pytest.mark.parametrize("largest", [0, 1, 39, 40, 79, 80, 81, 3999, 123_456])
def test_counts_sum_to_the_values_and_bins_are_few(largest: int) -> None:
    values = {"a": [0, 0, largest], "b": list(range(0, largest + 1, max(largest // 7, 1))), "c": []}
    width, counts = histogram(values)
    assert [sum(row) for row in counts.values()] == [len(row) for row in values.values()]
    assert {len(row) for row in counts.values()} == {largest // width + 1}
    assert len(counts["a"]) <= 40
    assert str(width).rstrip("0") in ("1", "2", "5")


def test_few_values_have_a_bin_each() -> None:
    assert histogram({"a": [0, 3, 3]}) == (1, {"a": [1, 0, 0, 2]})


def test_bars_are_stacked_to_the_count_of_all_kinds() -> None:
    chart = histogram_chart({"a": [0, 0, 1], "b": [0, 1, 1, 1]}, {"a": "g0", "b": "g1"}, "staleness")
    bars = re.findall(r'class="bin (g\d)" x="([\d.]+)" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"', chart)
    edges: dict[str, list[tuple[float, float]]] = {}
    for _, x, y, high in bars:
        edges.setdefault(x, []).append((float(y), float(y) + float(high)))
    (first, second) = edges.values()
    # Two of a and one of b at 0; one of a and three of b at 1: the second stack is the higher one.
    assert first[0][0] == pytest.approx(first[1][1], abs=0.02)
    heights = [stack[0][1] - stack[-1][0] for stack in (first, second)]
    assert heights[0] / heights[1] == pytest.approx(3 / 4, abs=0.001)
    assert "b, staleness 1: 3" in chart


def test_bars_stay_inside_the_drawing() -> None:
    chart = histogram_chart({"a": list(range(1000))}, {"a": "g0"}, "staleness")
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', chart)
    assert box is not None
    for x, y, wide, high in re.findall(
        r'class="bin g0" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', chart
    ):
        assert 0 <= float(x) and float(x) + float(wide) <= float(box[1])
        assert 0 <= float(y) and float(y) + float(high) <= float(box[2])
