"""The section about newcomers: how well people whom no client knows adapt the finished model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedpref.report.charts import Curve, Level, curves_chart
from fedpref.report.runs import Run
from fedpref.report.units import percent_tick

__all__ = ["FewShot", "few_shot_of"]


@dataclass(frozen=True)
class FewShot:
    """The section.

    Attributes:
        chart: SVG, accuracy over the number of pairs shown; empty where nothing adapts the model.
        people: how many.
        resamples: shuffles of what each of them shows.
        k_star: the fewest pairs that are surely better than none; None if no number is.
        reference: accuracy of the model that is not adapted.
        points: one a number of pairs, with ``shots``, ``accuracy``, ``gain`` and ``harmed``.
        has_intervals: True for more than one person.
    """

    chart: str
    people: int
    resamples: int
    k_star: int | None
    reference: float
    points: Sequence[Mapping[str, Any]]
    has_intervals: bool


def few_shot_of(run: Run) -> FewShot | None:
    """How newcomers adapted the model of a run; None if it had none, or has not finished."""
    curve = run.few_shot
    if not curve:
        return None
    points = curve["points"]
    has_intervals = all("accuracy_low" in point for point in points)
    if not curve["resamples"]:
        return FewShot("", len(curve["people"]), 0, None, curve["reference"], points, has_intervals)
    line = Curve(
        "accuracy of newcomers",
        "a",
        [_place(point["shots"]) for point in points],
        [point["accuracy"] for point in points],
        [point["accuracy_low"] for point in points] if has_intervals else (),
        [point["accuracy_high"] for point in points] if has_intervals else (),
    )
    k_star = curve["k_star"]
    shots = [int(point["shots"]) for point in points]
    words = {_place(count): f"k* = {count}" if count == k_star else str(count) for count in shots}
    level = Level("", curve["reference"])  # the legend names it: the curve may cross it anywhere
    return FewShot(
        chart=curves_chart(
            [line], "pairs shown, k", percent_tick, [level], width=460, height=270, x_labels=words
        ),
        people=len(curve["people"]),
        resamples=curve["resamples"],
        k_star=k_star,
        reference=curve["reference"],
        points=points,
        has_intervals=has_intervals,
    )


def _place(shots: float) -> float:
    """Where a number of pairs stands: equal factors far apart alike, and room for none at all."""
    return math.log1p(shots)
