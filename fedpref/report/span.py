"""The section about a shared span: how much of what people really like lies in the shared directions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedpref.report.charts import Curve, Level, curves_chart
from fedpref.report.runs import Run
from fedpref.report.units import percent, percent_tick

__all__ = ["Span", "span_of"]


@dataclass(frozen=True)
class Span:
    """The section.

    Attributes:
        chart: SVG, the share of the true tastes that lies in the span, over rounds.
        held: that share at the end.
        best: what the best span of as many directions would hold.
        angles: principal angles in degrees, ascending, each with the squared cosine.
    """

    chart: str
    held: float
    best: float
    angles: Sequence[tuple[float, float]]


def span_of(run: Run) -> Span | None:
    """What the shared tensors of a run spanned; None if they span nothing or the truth is not known."""
    records = [record for record in run.metrics if record.get("span")]
    if not records:
        return None
    last = records[-1]["span"]
    shares = [record["span"]["held"] for record in records]
    line = Curve("share of the tastes in the span", "a", [record["round"] for record in records], shares)
    levels = [
        Level(f"best possible {percent(last['best'])}", last["best"], is_named_at_end=True),
        Level(f"random {percent(last['random'])}", last["random"], "level faint", is_named_at_end=True),
    ]
    chart = curves_chart(
        [line], "round", percent_tick, levels, x_is_whole=True, width=460, height=250, y_range=(0.0, 1.0)
    )
    angles = [(degrees, math.cos(math.radians(degrees)) ** 2) for degrees in last["angles_deg"]]
    return Span(chart, shares[-1], last["best"], angles)
