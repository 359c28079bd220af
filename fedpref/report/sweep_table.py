"""One data set of a sweep: the table of its methods, each with its interval on a common scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedpref.report.figures import is_share, range_of, shown, title
from fedpref.report.gain import signed_points

__all__ = ["Figure", "Line", "Scale", "TableView", "table_view"]

_MAIN = "user_accuracy"
_ORACLE = "oracle"
_FIRST = ("worst_decile", "worst_group", "pair_accuracy", "bytes_up", "bytes_down", "virtual_s")
"""Of the further columns, in this order; then the others."""


@dataclass(frozen=True)
class Figure:
    """One cell: a figure, its interval as text, and whether it is ahead of all others."""

    text: str
    interval: str = ""
    is_best: bool = False


@dataclass(frozen=True)
class Scale:
    """Accuracies to places between 0 and 100 % of a column's width."""

    low: float
    high: float

    def place(self, share: float) -> float:
        """In percent of the width."""
        return 100 * (share - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Line:
    """One method.

    Attributes:
        name: of it.
        accuracy: mean over the people.
        mean: place of it on the scale.
        span: begin and width of its interval on the scale; None where there is none.
        difference: to the base, in points; empty for the base.
        rest: the other figures, one for each further column.
        by_seed: accuracy in each seed.
    """

    name: str
    accuracy: Figure
    mean: float
    span: tuple[float, float] | None
    difference: Figure
    rest: Sequence[Figure]
    by_seed: Sequence[str]


@dataclass(frozen=True)
class TableView:
    """What a page shows of a table.

    Attributes:
        data: name of the data set.
        base: method that the others are compared with.
        people: different people over all seeds.
        seeds: of every row.
        scale: of the drawn intervals.
        reference: place of the base on it.
        oracle: the accuracy of who knows each person's law; empty where nobody does.
        oracle_place: its place; None likewise.
        columns: titles of the further columns.
        lines: one a method, the base first.
        same: what is the same in each row, as words.
        has_best: True if a figure is marked as the best.
        notes: of the table.
    """

    data: str
    base: str
    people: int
    seeds: Sequence[int]
    scale: Scale
    reference: float
    oracle: str
    oracle_place: float | None
    columns: Sequence[str]
    lines: Sequence[Line]
    same: Sequence[str]
    has_best: bool
    notes: Sequence[str]


def table_view(table: Mapping[str, Any], chosen: Sequence[str] = ()) -> TableView:
    """The view of a table as of ``fedpref.evaluation.compare.Table.as_json``; all rows have user accuracy.

    Args:
        table: with at least one row.
        chosen: metrics whose intervals are shown, besides those of user accuracy.
    """
    rows = table["rows"]
    present = dict.fromkeys(name for row in rows for name in row["metrics"])
    metrics = [name for name in dict.fromkeys((*_FIRST, *sorted(present))) if name in present]
    metrics = [name for name in metrics if name not in (_MAIN, _ORACLE)]
    same = {name: told for name in metrics if len(rows) > 1 and (told := _same(rows, name))}
    columns = [name for name in metrics if name not in same]
    oracle = rows[0]["metrics"].get(_ORACLE)
    scale = _scale(rows, oracle)
    lines = [_line(row, columns, chosen, scale) for row in rows]
    return TableView(
        data=table["data"],
        base=table["base"],
        people=table["num_people"],
        seeds=table["seeds"],
        scale=scale,
        reference=scale.place(rows[0]["metrics"][_MAIN]["mean"]),
        oracle=shown(_ORACLE, oracle["mean"]) if oracle else "",
        oracle_place=scale.place(oracle["mean"]) if oracle else None,
        columns=[title(name) for name in columns],
        lines=lines,
        same=[f"{title(name).removesuffix(', %')} {told}" for name, told in same.items()],
        has_best=any(
            figure.is_best for line in lines for figure in (line.accuracy, line.difference, *line.rest)
        ),
        notes=table["notes"],
    )


def _same(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    """The figure that all rows have; empty where they differ in it."""
    cells = [row["metrics"].get(metric) for row in rows]
    values = {cell and cell["mean"] for cell in cells}
    if len(values) > 1:
        return ""
    return shown(metric, cells[0]["mean"]) + ("\N{NO-BREAK SPACE}%" if is_share(metric) else "")


def _scale(rows: Sequence[Mapping[str, Any]], oracle: Mapping[str, Any] | None) -> Scale:
    cells = [row["metrics"][_MAIN] for row in rows] + ([oracle] if oracle else [])
    values = [cell[key] for cell in cells for key in ("mean", "low", "high") if cell[key] is not None]
    air = max(0.04 * (max(values) - min(values)), 0.005)
    return Scale(min(values) - air, max(values) + air)


def _line(row: Mapping[str, Any], columns: Sequence[str], chosen: Sequence[str], scale: Scale) -> Line:
    cell = row["metrics"][_MAIN]
    span = None
    if cell["low"] is not None:
        span = (scale.place(cell["low"]), scale.place(cell["high"]) - scale.place(cell["low"]))
    return Line(
        name=row["name"],
        accuracy=Figure(shown(_MAIN, cell["mean"]), range_of(_MAIN, cell), cell["is_best"]),
        mean=scale.place(cell["mean"]),
        span=span,
        difference=_difference(cell["difference"]),
        rest=[_figure(row["metrics"].get(name), name, name in chosen) for name in columns],
        by_seed=[shown(_MAIN, value) for value in cell["by_seed"]],
    )


def _difference(difference: Mapping[str, Any] | None) -> Figure:
    if difference is None:
        return Figure("")
    ends = [difference["low"], difference["high"]]
    interval = "" if ends[0] is None else f"[{', '.join(signed_points(end) for end in ends)}]"
    return Figure(signed_points(difference["mean"]), interval)


def _figure(cell: Mapping[str, Any] | None, metric: str, has_interval: bool) -> Figure:
    if cell is None:
        return Figure("–")
    interval = range_of(metric, cell) if has_interval else ""
    return Figure(shown(metric, cell["mean"]), interval, cell["is_best"])
