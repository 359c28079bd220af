"""What accuracy costs: methods as points over bytes or time, and those that no other one beats in both."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from fedpref.report.charts import ticks
from fedpref.report.svg import drawing, text
from fedpref.report.units import percent_tick

__all__ = ["SLIM", "WIDE", "Point", "front", "pareto_chart"]

_LEFT, _TOP, _BOTTOM, _NAMES = 46.0, 16.0, 48.0, 168.0
_LEAST_HEIGHT, _LINE = 300.0, 15.0
_LONGEST_NAME = 22
_LOGARITHMIC_FROM = 8.0  # times the least cost
_TICK, _LETTER = 37.0, 7.0  # widths of what stands at a tick, and of a letter of the axis' title

WIDE, SLIM = 520.0, 352.0
"""Widths of drawings: beside another one, and on a phone, whose letters are as large as the text's around."""


@dataclass(frozen=True)
class Point:
    """A method: what it costs and how accurate it is, with intervals where they are known."""

    name: str
    cost: float
    accuracy: float
    costs: tuple[float, float] | None = None
    accuracies: tuple[float, float] | None = None


def front(points: Sequence[Point]) -> list[Point]:
    """Those that are not dominated, the cheapest first.

    A point is dominated where another one is no dearer and no less accurate, and better in one of them.
    """
    found = [point for point in points if not any(_dominates(other, point) for other in points)]
    return sorted(found, key=lambda point: (point.cost, point.name))


def pareto_chart(points: Sequence[Point], cost: str, unit: tuple[float, str], width: float = WIDE) -> str:
    """Points, whiskers and the line of the front; every name stands at the right, joined to its point.

    Args:
        points: at least one.
        cost: what the x axis shows.
        unit: its size and name.
        width: of the drawing; names take the same of any.
    """
    best = front(points)
    height = max(_LEAST_HEIGHT, _TOP + _BOTTOM + _LINE * len(points))
    axes = _Axes.around(points, width, height)
    body = [_frame(axes, f"{cost} ({unit[1]}{', logarithmic' if axes.is_logarithmic else ''})", unit[0])]
    body.append(_stairs(axes, best))
    names = sorted(points, key=lambda point: (-point.accuracy, point.name))
    places = _spread([axes.y(point.accuracy) for point in names], _TOP, height - _BOTTOM)
    for point, place in zip(names, places, strict=True):
        body.append(_joined(axes, point, place, "best" if point in best else "beaten"))
    told = f"accuracy of {len(points)} methods over {cost}; best for their cost: "
    return drawing(body, width, height, told + ", ".join(point.name for point in best))


def _dominates(one: Point, other: Point) -> bool:
    is_no_worse = one.cost <= other.cost and one.accuracy >= other.accuracy
    return is_no_worse and (one.cost < other.cost or one.accuracy > other.accuracy)


@dataclass(frozen=True)
class _Axes:
    """Where costs and accuracies lie in the drawing."""

    low: float
    high: float
    least: float
    most: float
    is_logarithmic: bool
    width: float
    height: float

    @classmethod
    def around(cls, points: Sequence[Point], width: float, height: float) -> _Axes:
        costs = [cost for point in points for cost in (point.cost, *(point.costs or ()))]
        shares = [share for point in points for share in (point.accuracy, *(point.accuracies or ()))]
        is_logarithmic = min(costs) > 0 and max(costs) > _LOGARITHMIC_FROM * min(costs)
        air = max(0.05 * (max(shares) - min(shares)), 0.01)
        low, high = (min(costs) / 1.3, max(costs) * 1.3) if is_logarithmic else (0.0, 1.08 * max(costs))
        least, most = max(min(shares) - air, 0.0), min(max(shares) + air, 1.0)
        return cls(low, high or 1.0, least, most, is_logarithmic, width, height)

    @property
    def right(self) -> float:
        return self.width - _NAMES

    def x(self, cost: float) -> float:
        low, high, at = self.low, self.high, cost
        if self.is_logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return _LEFT + (at - low) / (high - low) * (self.right - _LEFT)

    def y(self, share: float) -> float:
        bottom = self.height - _BOTTOM
        return bottom - (share - self.least) / (self.most - self.least) * (bottom - _TOP)

    def costs(self, unit: float) -> list[float]:
        if not self.is_logarithmic:
            count = max(2, int((self.right - _LEFT) / (2 * _TICK)))
            return [unit * tick for tick in ticks(self.low / unit, self.high / unit, count)]
        first, last = math.floor(math.log10(self.low / unit)), math.ceil(math.log10(self.high / unit))
        every = [((1,), step) for step in range(1, last - first + 2)]
        for factors, step in (((1, 2, 5), 1), ((1, 3), 1), *every):
            powers = range(first, last + 1, step)
            all_ticks = [factor * 10.0**power * unit for power in powers for factor in factors]
            found = [tick for tick in all_ticks if self.low <= tick <= self.high]
            places = [self.x(tick) for tick in found]
            if all(later - place >= _TICK for place, later in pairwise(places)):
                break
        return found


def _frame(axes: _Axes, title: str, unit: float) -> str:
    bottom = axes.height - _BOTTOM
    parts = []
    for share in ticks(axes.least, axes.most):
        y = axes.y(share)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{axes.right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text(_LEFT - 8, y + 4, percent_tick(share), "tick end"))
    parts.append(f'<line class="base" x1="{_LEFT}" x2="{axes.right}" y1="{bottom}" y2="{bottom}"/>')
    parts += [text(axes.x(cost), bottom + 18, f"{cost / unit:g}", "tick middle") for cost in axes.costs(unit)]
    # A long title of a slim drawing is not in the middle of its axis, but inside the drawing.
    middle = max((_LEFT + axes.right) / 2, _LETTER * len(title) / 2)
    parts.append(text(middle, bottom + 38, title, "axis middle"))
    return "".join(parts)


def _stairs(axes: _Axes, best: Sequence[Point]) -> str:
    """What is the best accuracy for at most so much."""
    path = f"M{axes.x(best[0].cost):.1f},{axes.y(best[0].accuracy):.1f}"
    for _, point in pairwise(best):
        path += f"H{axes.x(point.cost):.1f}V{axes.y(point.accuracy):.1f}"
    return f'<path class="stairs" d="{path}H{axes.right:.1f}"/>'


def _joined(axes: _Axes, point: Point, place: float, style: str) -> str:
    """The point, its whiskers, and its name at ``place`` in the right column."""
    x, y, start = axes.x(point.cost), axes.y(point.accuracy), axes.right + 14
    whiskers = "".join(
        f'<line class="reach" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'
        for x1, x2, y1, y2 in _whiskers(axes, point)
    )
    joint = f'<path class="joint" d="M{x:.1f},{y:.1f}L{start - 4:.1f},{place:.1f}"/>'
    mark = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
    name = text(start, place + 4, _short(point.name), "note")
    return f'<g class="{style}"><title>{escape(point.name)}</title>{joint}{whiskers}{mark}{name}</g>'


def _whiskers(axes: _Axes, point: Point) -> Iterator[tuple[float, float, float, float]]:
    x, y = axes.x(point.cost), axes.y(point.accuracy)
    if point.accuracies is not None:
        yield x, x, axes.y(point.accuracies[0]), axes.y(point.accuracies[1])
    if point.costs is not None and point.costs[0] != point.costs[1]:
        yield axes.x(point.costs[0]), axes.x(point.costs[1]), y, y


def _spread(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Places of lines of text near where they are wanted, in their order, that do not overlap.

    ``wanted`` ascends; there is room for all between ``top`` and ``bottom``.
    """
    places: list[float] = []
    for place in wanted:
        places.append(max(place, top, places[-1] + _LINE if places else top))
    limit = bottom
    for index in reversed(range(len(places))):
        places[index] = min(places[index], limit)
        limit = places[index] - _LINE
    return places


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
