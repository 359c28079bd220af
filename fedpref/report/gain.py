"""The section about personal parts: what each client gains by its own over the shared model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from fedpref.report.charts import ticks
from fedpref.report.runs import Run
from fedpref.report.svg import drawing, text

__all__ = ["Gain", "GainRow", "gain_chart", "gain_of", "signed_points"]

HARM = 0.02
_ROUNDING = 1e-9
_EXTREMES = 5
_MOST_BARS = 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 16.0, 14.0, 32.0


@dataclass(frozen=True)
class GainRow:
    """One person: accuracy of the shared model and of the person's own, and the difference."""

    name: str
    shared: float
    own: float

    @property
    def gain(self) -> float:
        """Own minus shared; negative for a loss."""
        return self.own - self.shared

    @property
    def style(self) -> str:
        """CSS class: gained, even but for rounding, lost a little, or harmed."""
        if abs(self.gain) < _ROUNDING:
            return "even"
        return "harmed" if self.gain < -HARM else "lost" if self.gain < 0 else "gained"


@dataclass(frozen=True)
class Gain:
    """The section.

    Attributes:
        chart: SVG, one bar a person, sorted.
        people: how many have a part of their own.
        shown: how many of them the chart shows.
        mean: gain over all of them.
        harmed: share of them who lose more than 0.02.
        better: share of them who gain.
        best: those who gain most.
        worst: those who lose most, or gain least; nobody is in both.
    """

    chart: str
    people: int
    shown: int
    mean: float
    harmed: float
    better: float
    best: Sequence[GainRow]
    worst: Sequence[GainRow]


def gain_of(run: Run) -> Gain | None:
    """What personal parts were worth in a run; None if its people have none."""
    rows = [
        GainRow(str(user["name"]), float(user["shared_accuracy"]), float(user["accuracy"]))
        for user in run.users
        if "shared_accuracy" in user
    ]
    if not rows:
        return None
    rows.sort(key=lambda row: (row.gain, row.name))
    shown = _evenly(rows)
    each = min(_EXTREMES, (len(rows) + 1) // 2)
    return Gain(
        chart=gain_chart(shown),
        people=len(rows),
        shown=len(shown),
        mean=sum(row.gain for row in rows) / len(rows),
        harmed=sum(row.style == "harmed" for row in rows) / len(rows),
        better=sum(row.style == "gained" for row in rows) / len(rows),
        best=rows[each:][::-1][:each],
        worst=rows[:each],
    )


def gain_chart(rows: Sequence[GainRow], width: float = 1060.0, height: float = 260.0) -> str:
    """One bar a person above or below a line at zero; ``rows`` in the order of their gains, at least one."""
    low, high = min(-HARM, *(row.gain for row in rows)), max(HARM, *(row.gain for row in rows))
    low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)
    bottom, right = height - _BOTTOM, width - _RIGHT
    scale = (bottom - _TOP) / (high - low)
    zero = bottom + low * scale
    body = []
    for tick in ticks(low, high):
        y = zero - tick * scale
        body.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        body.append(text(_LEFT - 8, y + 4, signed_points(tick, 0 if _is_whole(tick) else 1), "tick end"))
    pitch = (right - _LEFT) / max(len(rows), 12)
    for index, row in enumerate(rows):
        tall = 0.0 if row.style == "even" else max(abs(row.gain) * scale, 1.0)
        y = zero - tall if row.gain >= 0 else zero
        told = f"{row.name}: {signed_points(row.gain)} ({100 * row.shared:.1f} to {100 * row.own:.1f})"
        body.append(
            f'<rect class="bin {row.style}" x="{_LEFT + (index + 0.1) * pitch:.2f}" y="{y:.2f}" '
            f'width="{0.8 * pitch:.2f}" height="{tall:.2f}"><title>{escape(told)}</title></rect>'
        )
    body.append(f'<line class="base" x1="{_LEFT}" x2="{right}" y1="{zero:.1f}" y2="{zero:.1f}"/>')
    body.append(text((_LEFT + right) / 2, bottom + 24, "people in the order of their gain", "axis middle"))
    return drawing(body, width, height, "gain of each person over the shared model, in points of accuracy")


def signed_points(gain: float, decimals: int = 1) -> str:
    """A difference of two shares in percentage points with its sign: ``+8.1``, ``−2.0``, ``0.0``."""
    told = f"{100 * gain:+.{decimals}f}"
    return told.replace("-", "−") if float(told) else told.lstrip("+-")


def _is_whole(share: float) -> bool:
    return abs(100 * share - round(100 * share)) < 1e-6


def _evenly(rows: Sequence[GainRow]) -> list[GainRow]:
    """At most 240 of the rows, evenly spaced, first and last among them."""
    if len(rows) <= _MOST_BARS:
        return list(rows)
    stride = (len(rows) - 1) / (_MOST_BARS - 1)
    return [rows[round(index * stride)] for index in range(_MOST_BARS)]
