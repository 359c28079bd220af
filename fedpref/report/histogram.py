"""How often each whole number occurs: bars that are stacked by kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from fedpref.report.charts import ticks
from fedpref.report.svg import drawing, text

__all__ = ["histogram", "histogram_chart"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 16.0, 14.0, 46.0
_MOST_BINS = 40


def histogram(values: Mapping[str, Sequence[int]]) -> tuple[int, dict[str, list[int]]]:
    """Width of a bin and counts of each kind; bin ``i`` holds ``i * width`` to ``(i + 1) * width - 1``.

    Args:
        values: whole numbers, not negative, of each kind; at least one in all. At most 40 bins of a width of
            1, 2 or 5 times a power of ten cover them.
    """
    largest = max(value for row in values.values() for value in row)
    width = 1
    while largest // width >= _MOST_BINS:
        # 1, 2, 5, 10, 20, 50, …
        leading = int(str(width)[0])
        width = width * 5 // 2 if leading == 2 else width * 2
    counts = {kind: [0] * (largest // width + 1) for kind in values}
    for kind, row in values.items():
        for value in row:
            counts[kind][value // width] += 1
    return width, counts


def histogram_chart(
    values: Mapping[str, Sequence[int]],
    styles: Mapping[str, str],
    x_title: str,
    width: float = 560.0,
    height: float = 270.0,
) -> str:
    """Bars stacked by kind; ``styles`` is the CSS class of each. See :func:`histogram` for the bins."""
    bin_width, counts = histogram(values)
    num_bins = max(len(row) for row in counts.values())
    tallest = max(sum(row[index] for row in counts.values()) for index in range(num_bins))
    bottom, right = height - _BOTTOM, width - _RIGHT
    pitch = (right - _LEFT) / num_bins
    scale = (bottom - _TOP) / tallest
    body = []
    for tick in ticks(0.0, float(tallest)):
        if tick == round(tick):
            y = bottom - tick * scale
            body.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            body.append(text(_LEFT - 8, y + 4, f"{tick:g}", "tick end"))
    every = math.ceil(num_bins / 12)
    for index in range(num_bins):
        first = index * bin_width
        label = f"{first}" if bin_width == 1 else f"{first}–{first + bin_width - 1}"
        y = bottom
        for kind, row in counts.items():
            high = row[index] * scale
            if not row[index]:
                continue
            y -= high
            told = f"{escape(kind)}, {x_title} {label}: {row[index]}"
            body.append(
                f'<rect class="bin {styles[kind]}" x="{_LEFT + (index + 0.1) * pitch:.1f}" y="{y:.2f}" '
                f'width="{0.8 * pitch:.1f}" height="{high:.2f}"><title>{told}</title></rect>'
            )
        if index % every == 0:
            body.append(text(_LEFT + (index + 0.5) * pitch, bottom + 18, f"{first}", "tick middle"))
    body.append(f'<line class="base" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    wide = "" if bin_width == 1 else f", {bin_width} a bar"
    body.append(text((_LEFT + right) / 2, bottom + 38, f"{x_title}{wide}", "axis middle"))
    return drawing(body, width, height, f"how often each {x_title} occurs")
