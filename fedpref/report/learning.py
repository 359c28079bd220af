"""The learning curves: accuracy and loss over rounds, virtual time and bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedpref.report.charts import Curve, Level, curves_chart
from fedpref.report.runs import Run
from fedpref.report.units import largest_unit, percent_tick, time_unit

__all__ = ["Figure", "Tab", "tabs_of"]


@dataclass(frozen=True)
class Figure:
    """One chart, SVG; one with people shows the accuracy, the interval and the worst-served tenth."""

    caption: str
    chart: str
    has_people: bool


@dataclass(frozen=True)
class Tab:
    """Two charts side by side."""

    key: str
    title: str
    figures: tuple[Figure, Figure]


@dataclass(frozen=True)
class _Axis:
    """Values of an x axis; whole numbers have no unit."""

    key: str
    title: str
    unit: str
    xs: Sequence[float]

    @property
    def words(self) -> str:
        return f"{self.title} ({self.unit})" if self.unit else self.title


def tabs_of(run: Run, figures: Mapping[str, Any]) -> list[Tab]:
    """The same curves over rounds, virtual time and bytes.

    Where devices take time the first tab has the accuracy over rounds beside that over time.
    """
    records = run.evaluations
    if not records:
        return []
    scores = [record["evaluation"] for record in records]
    levels = [Level("best possible", float(figures["oracle"]))] if "oracle" in figures else []
    axes = _axes(records)
    tabs = []
    if run.fleet and max(axes[1].xs) > 0:
        left, right = (
            Figure(f"Accuracy over {axis.title}", _accuracy(axis, scores, levels, width=530), True)
            for axis in (_Axis("round", "rounds", "", axes[0].xs), axes[1])
        )
        tabs.append(Tab("both", "rounds and virtual time", (left, right)))
    for axis in axes:
        accuracy = Figure(
            "Accuracy on held-out preferences", _accuracy(axis, scores, levels, width=660), True
        )
        loss = _curve("loss", "a", axis.xs, scores, "loss")
        chart = curves_chart([loss], axis.words, _decimals, x_is_whole=not axis.unit, width=400)
        tabs.append(Tab(axis.key, axis.title, (accuracy, Figure("Loss, nats per pair", chart, False))))
    return tabs


def _accuracy(
    axis: _Axis, scores: Sequence[Mapping[str, float]], levels: Sequence[Level], width: float
) -> str:
    curves = [
        _curve("pair accuracy", "a", axis.xs, scores, "pair_accuracy", has_band=True),
        _curve("worst decile", "b", axis.xs, scores, "worst_decile"),
    ]
    return curves_chart(curves, axis.words, percent_tick, levels, x_is_whole=not axis.unit, width=width)


def _axes(records: Sequence[Mapping[str, Any]]) -> tuple[_Axis, _Axis, _Axis]:
    clock_s = [float(record["clock_s"]) for record in records]
    sent_bytes = [float(record["bytes_up"] + record["bytes_down"]) for record in records]
    second, time_name = time_unit(max(clock_s))
    byte, byte_name = largest_unit(
        max(sent_bytes), ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B"))
    )
    return (
        _Axis("round", "round", "", [float(record["round"]) for record in records]),
        _Axis("clock", "virtual time", time_name, [value / second for value in clock_s]),
        _Axis("bytes", "bytes transferred", byte_name, [value / byte for value in sent_bytes]),
    )


def _curve(
    label: str,
    style: str,
    xs: Sequence[float],
    scores: Sequence[Mapping[str, float]],
    name: str,
    has_band: bool = False,
) -> Curve:
    ys = [score[name] for score in scores]
    if not has_band or any(f"{name}_low" not in score for score in scores):
        return Curve(label, style, xs, ys)
    return Curve(
        label,
        style,
        xs,
        ys,
        [score[f"{name}_low"] for score in scores],
        [score[f"{name}_high"] for score in scores],
    )


def _decimals(value: float) -> str:
    return f"{value:.3f}"
