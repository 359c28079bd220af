"""Charts as SVG text: pure functions of numbers, so that a report needs no script and repeats exactly.

Colours and fonts come from the style sheet through class names; a drawing unit is a pixel at full width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from fedpref.report.svg import drawing, text

__all__ = ["Curve", "Level", "curves_chart", "people_chart", "ticks"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 60.0, 14.0, 46.0
_MAX_POINTS = 400
_COLUMNS = 64

Format = Callable[[float], str]


@dataclass(frozen=True)
class Curve:
    """One line of a chart, with an optional band around it; ``style`` is its class."""

    label: str
    style: str
    xs: Sequence[float]
    ys: Sequence[float]
    lows: Sequence[float] = ()
    highs: Sequence[float] = ()


@dataclass(frozen=True)
class Level:
    """A reference value; ``style`` is its class.

    Its name stands at the start of its line or at the end; none where a legend has it.
    """

    label: str
    value: float
    style: str = "level"
    is_named_at_end: bool = False


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers in [low, high]: multiples of 1, 2 or 5 times a power of ten.

    Raises:
        ValueError: ``high`` is not above ``low``.
    """
    if not high > low:
        raise ValueError(f"an axis needs high > low, got [{low}, {high}]")
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((power * factor for factor in (1, 2, 5, 10)), key=lambda size: abs(math.log(size / raw)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def curves_chart(
    curves: Sequence[Curve],
    x_title: str,
    y_format: Format,
    levels: Sequence[Level] = (),
    x_is_whole: bool = False,
    width: float = 660.0,
    height: float = 300.0,
    y_range: tuple[float, float] | None = None,
    has_end_values: bool = True,
    x_labels: Mapping[float, str] | None = None,
) -> str:
    """Lines over a common x axis that starts at 0; with ``has_end_values`` the last one stands beside it.

    Every curve has at least one point; those of more than 400 are thinned. ``x_is_whole`` keeps fractions
    off the x axis, ``y_range`` is the y axis where it should not follow the values, ``x_labels`` the words
    at places of the x axis where it is no scale of numbers.
    """
    curves = [_thinned(curve) for curve in curves]
    x_high = max(max(curve.xs) for curve in curves) or 1.0
    values = [value for curve in curves for row in (curve.ys, curve.lows, curve.highs) for value in row]
    y_low, y_high = y_range or _padded([*values, *(level.value for level in levels)])
    frame = _Frame(0.0, x_high, y_low, y_high, width, height)
    x_ticks = [x for x in ticks(0.0, x_high, 6 if width > 500 else 3) if not x_is_whole or x == round(x)]
    if x_labels is None:
        x_labels = {x: _number(x) for x in x_ticks}
    body = [_axes(frame, x_title, list(x_labels), x_labels.__getitem__, y_format)]
    for level in levels:
        y = frame.y(level.value)
        body.append(
            f'<line class="{level.style}" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        x, style = (width - _RIGHT - 6, "note end") if level.is_named_at_end else (_LEFT + 6, "note")
        if level.label:
            body.append(text(x, y - 5, level.label, style))
    body += [_band(frame, curve) for curve in curves if curve.lows]
    body += [_line(frame, curve) for curve in curves]
    ends = _apart([frame.y(curve.ys[-1]) for curve in curves]) if has_end_values else []
    for curve, y in zip(curves, ends, strict=False):
        body.append(text(width - _RIGHT + 9, y + 4, y_format(curve.ys[-1]), f"value {curve.style}"))
    return drawing(body, width, height, f"{', '.join(curve.label for curve in curves)} over {x_title}")


def people_chart(
    values: Sequence[float],
    names: Sequence[str],
    groups: Sequence[int],
    x_title: str,
    x_format: Format,
    levels: Sequence[Level] = (),
    width: float = 1060.0,
) -> str:
    """One dot a person, stacked where values are alike; colours tell groups apart.

    Args:
        values: in [0, 1], at least one.
        names: what a dot says when pointed at.
        groups: a small number for each person, -1 for nobody's; all alike if there are no groups.
        x_title: title of the axis.
        x_format: how a value is written.
        levels: vertical reference lines.
        width: in drawing units.
    """
    x_low, x_high = _padded([*values, *(level.value for level in levels)], within=(0.0, 1.0))
    columns: list[list[int]] = [[] for _ in range(_COLUMNS)]
    for index in sorted(range(len(values)), key=lambda index: (groups[index], values[index])):
        share = (values[index] - x_low) / (x_high - x_low)
        columns[min(int(share * _COLUMNS), _COLUMNS - 1)].append(index)
    tallest = max(len(column) for column in columns)
    pitch = min((width - _LEFT - _RIGHT) / _COLUMNS, 200.0 / tallest)
    height = _TOP + 34 + max(tallest * pitch, 40.0) + _BOTTOM
    frame = _Frame(x_low, x_high, 0.0, 1.0, width, height)
    body = [_axes(frame, x_title, ticks(x_low, x_high, 8), x_format, None)]
    for row, level in enumerate(levels):
        x, end = frame.x(level.value), height - _BOTTOM
        is_at_edge = x > width - 190
        body.append(f'<line class="{level.style}" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{end:.1f}"/>')
        place, style = (x - 6, "note end") if is_at_edge else (x + 6, "note")
        body.append(text(place, 13 + 15 * (row % 2), level.label, style))
    for number, column in enumerate(columns):
        x = frame.x(x_low + (number + 0.5) / _COLUMNS * (x_high - x_low))
        for place, index in enumerate(column):
            y = height - _BOTTOM - (place + 0.5) * pitch - 1
            title = f"<title>{escape(names[index])}: {escape(x_format(values[index]))}</title>"
            radius = 0.44 * pitch
            style = "dot none" if groups[index] < 0 else f"dot g{groups[index] % 8}"
            body.append(
                f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.2f}">{title}</circle>'
            )
    return drawing(body, width, height, f"{x_title}: one dot for each of {len(values)} people")


@dataclass(frozen=True)
class _Frame:
    """Where data lies in the drawing."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    width: float
    height: float

    def x(self, value: float) -> float:
        return _LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        bottom = self.height - _BOTTOM
        return bottom - (value - self.y_low) / (self.y_high - self.y_low) * (bottom - _TOP)


def _axes(
    frame: _Frame, x_title: str, x_ticks: Sequence[float], x_format: Format, y_format: Format | None
) -> str:
    bottom, right = frame.height - _BOTTOM, frame.width - _RIGHT
    parts = []
    if y_format is not None:
        for value in ticks(frame.y_low, frame.y_high):
            y = frame.y(value)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(text(_LEFT - 8, y + 4, y_format(value), "tick end"))
    parts.append(f'<line class="base" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts += [text(frame.x(value), bottom + 18, x_format(value), "tick middle") for value in x_ticks]
    parts.append(text((_LEFT + right) / 2, bottom + 38, x_title, "axis middle"))
    return "".join(parts)


def _line(frame: _Frame, curve: Curve) -> str:
    points = [(frame.x(x), frame.y(y)) for x, y in zip(curve.xs, curve.ys, strict=True)]
    path = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = points if len(points) <= 12 else points[-1:]
    circles = "".join(
        f'<circle class="mark {curve.style}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in dots
    )
    return f'<path class="line {curve.style}" d="{path}"/>{circles}'


def _band(frame: _Frame, curve: Curve) -> str:
    upper = [(frame.x(x), frame.y(y)) for x, y in zip(curve.xs, curve.highs, strict=True)]
    lower = [(frame.x(x), frame.y(y)) for x, y in zip(curve.xs, curve.lows, strict=True)]
    if len(upper) == 1:
        (x, top), (_, bottom) = upper[0], lower[0]
        return f'<path class="whisker {curve.style}" d="M{x:.1f},{top:.1f}V{bottom:.1f}"/>'
    path = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in [*upper, *reversed(lower)])
    return f'<path class="band {curve.style}" d="{path}Z"/>'


def _thinned(curve: Curve) -> Curve:
    """At most 400 points, evenly chosen, the last one kept."""
    if len(curve.xs) <= _MAX_POINTS:
        return curve
    stride = (len(curve.xs) - 1) / (_MAX_POINTS - 1)
    rows = [round(index * stride) for index in range(_MAX_POINTS)]

    def pick(column: Sequence[float]) -> list[float]:
        return [column[row] for row in rows] if column else []

    return Curve(curve.label, curve.style, *map(pick, (curve.xs, curve.ys, curve.lows, curve.highs)))


def _padded(values: Sequence[float], within: tuple[float, float] | None = None) -> tuple[float, float]:
    """A range around ``values`` with air above and below, never empty."""
    low, high = min(values), max(values)
    air = max(0.08 * (high - low), 0.02)
    low, high = low - air, high + air
    return (max(low, within[0]), min(high, within[1])) if within else (low, high)


def _apart(ys: Sequence[float], gap: float = 15.0) -> list[float]:
    """Positions of labels, pushed down until no two overlap."""
    placed = dict.fromkeys(range(len(ys)), 0.0)
    previous = -math.inf
    for index in sorted(range(len(ys)), key=lambda index: ys[index]):
        previous = placed[index] = max(ys[index], previous + gap)
    return list(placed.values())


def _number(value: float) -> str:
    return f"{value:g}"
