"""All methods on several tables at once: accuracy, difference to the base, and on data sets the rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedpref.report.figures import shown
from fedpref.report.gain import signed_points
from fedpref.report.ranks import mean_ranks, ranks_in

__all__ = ["Overview", "OverviewCell", "OverviewRow", "overview_of", "side_by_side"]

_METRIC = "user_accuracy"
_FULL = 0.15  # the difference that has the strongest colour
_STRONGEST = 55.0


@dataclass(frozen=True)
class OverviewCell:
    """A method on a data set.

    Attributes:
        accuracy: in percent.
        remark: difference to the base and, among data sets, the rank.
        style: CSS class: alike where it is above the base, apart where below, empty where the interval of
            the difference holds 0.
        strength: of the colour, in percent.
    """

    accuracy: str
    remark: str
    style: str
    strength: float


@dataclass(frozen=True)
class OverviewRow:
    """A method: a cell a table, None where it was not run; ``rank`` is empty if it lacks one."""

    name: str
    cells: Sequence[OverviewCell | None]
    rank: str


@dataclass(frozen=True)
class Overview:
    """Names of the tables, and rows; ``unranked`` are those that lack a table where others have a rank."""

    data: Sequence[str]
    rows: Sequence[OverviewRow]
    unranked: Sequence[str]


def overview_of(tables: Sequence[Mapping[str, Any]]) -> Overview | None:
    """The section about several data sets, the best mean rank first; None for one alone."""
    if len(tables) < 2:
        return None
    ranks = ranks_in(tables)
    means = mean_ranks(ranks)
    names = list(dict.fromkeys([*means, *(row["name"] for table in tables for row in table["rows"])]))
    rows = [
        OverviewRow(
            name,
            [_cell(table, name, ranks[table["data"]].get(name)) for table in tables],
            f"{means[name]:.1f}" if name in means else "",
        )
        for name in names
    ]
    return Overview([table["data"] for table in tables], rows, [row.name for row in rows if not row.rank])


def side_by_side(tables: Sequence[Mapping[str, Any]]) -> Overview:
    """Tables that are no data sets to rank over; methods in the order in which they come.

    Args:
        tables: at least one.
    """
    names = dict.fromkeys(row["name"] for table in tables for row in table["rows"])
    rows = [OverviewRow(name, [_cell(table, name, None) for table in tables], "") for name in names]
    return Overview([table["data"] for table in tables], rows, [])


def _cell(table: Mapping[str, Any], name: str, rank: float | None) -> OverviewCell | None:
    cells = [row["metrics"][_METRIC] for row in table["rows"] if row["name"] == name]
    if not cells:
        return None
    (cell,) = cells
    difference = cell["difference"]
    told = [] if difference is None else [signed_points(difference["mean"])]
    told += [] if rank is None else [f"#{rank:g}"]
    style = _style(difference)
    strength = min(abs(difference["mean"]) / _FULL, 1.0) * _STRONGEST if style else 0.0
    return OverviewCell(shown(_METRIC, cell["mean"]), " · ".join(told), style, strength)


def _style(difference: Mapping[str, Any] | None) -> str:
    if difference is None or difference["low"] is None:
        return ""
    return "alike" if difference["low"] > 0 else "apart" if difference["high"] < 0 else ""
