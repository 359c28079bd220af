"""One page about many runs: a single offline file without scripts, made from plain data alone.

The data, which ``fedpref bench`` keeps as ``outcome-TIER.json``::

    title, about, facts       words about the whole; facts is a list
    command                   what made the runs; empty where there was no single one
    chosen                    metrics whose intervals are shown, besides those of user accuracy
    tables                    as of Table.as_json, one a data set
    newcomers                 data, tables: of one data set, one a number of pairs, which is its name
    groups                    as of accuracy_by_group, of the data sets that have hidden groups
    runs                      data, method, seed, command
    failures                  data, method, seed, error: runs that are in no table, and why
    claims                    claim, data, asked, measured, told, holds, why: ``told`` is what was measured in
                              words, ``holds`` is null where nothing was to be measured, ``why`` may be empty
    claims_told               how many of them hold, a sentence; only where there are claims
    notes                     a sentence each
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fedpref.report.overview import Overview, overview_of, side_by_side
from fedpref.report.pareto import SLIM, Point, front, pareto_chart
from fedpref.report.storage import write_text
from fedpref.report.sweep_table import TableView, table_view
from fedpref.report.table_csv import as_csv
from fedpref.report.template import style, template
from fedpref.report.units import largest_unit, time_unit

__all__ = ["FORMAT", "sweep_page", "write_sweep"]

FORMAT = 3
"""Of the plain data; another one cannot be shown."""

_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_COSTS = {
    "bytes up and down": ("bytes_up", "bytes_down"),
    "virtual time": ("virtual_s",),
}


@dataclass(frozen=True)
class _Picture:
    """Accuracy over one cost, ``slim`` where there is little room; without charts ``remark`` says why."""

    caption: str
    chart: str
    slim: str
    remark: str


@dataclass(frozen=True)
class _Section:
    """One data set; ``bars`` are, of each method, its accuracy in each of the ``groups``.

    ``newcomers`` are columns by the pairs that people show whom no client knows.
    """

    view: TableView
    pictures: Sequence[_Picture]
    groups: Sequence[Mapping[str, Any]]
    bars: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]
    newcomers: Overview | None
    num_newcomers: int
    commands: str


def write_sweep(sweep: Mapping[str, Any], path: Path) -> Path:
    """Write the page to ``path``.

    Raises:
        StorageError: the disk is full or not writable.
    """
    write_text(path, sweep_page(sweep))
    return path


def sweep_page(sweep: Mapping[str, Any]) -> str:
    """The page as HTML; ``sweep`` as this module's documentation says, the same data give the same page."""
    groups = {entry["data"]: entry["groups"] for entry in sweep["groups"]}
    newcomers = {entry["data"]: entry["tables"] for entry in sweep["newcomers"]}
    further = [
        table | {"data": f"{data}, newcomers with {table['data']}"}
        for data, of in newcomers.items()
        for table in of
    ]
    return template("sweep.html.j2").render(
        sweep=sweep,
        style=style("report.css", "sweep.css"),
        overview=overview_of(sweep["tables"]),
        sections=[
            _section(table, groups.get(table["data"], ()), newcomers.get(table["data"], ()), sweep)
            for table in sweep["tables"]
        ],
        csv="data:text/csv;charset=utf-8," + quote(as_csv([*sweep["tables"], *further])),
    )


def _section(
    table: Mapping[str, Any],
    groups: Sequence[Mapping[str, Any]],
    newcomers: Sequence[Mapping[str, Any]],
    sweep: Mapping[str, Any],
) -> _Section:
    names = [row["name"] for row in table["rows"]] if groups else []
    pictures = [_picture(table, cost, metrics) for cost, metrics in _COSTS.items()]
    return _Section(
        view=table_view(table, sweep["chosen"]),
        pictures=[picture for picture in pictures if picture is not None],
        groups=groups,
        bars=[(name, [_row(group, name) for group in groups]) for name in names],
        newcomers=side_by_side(newcomers) if newcomers else None,
        num_newcomers=newcomers[0]["num_people"] if newcomers else 0,
        commands="\n".join(run["command"] for run in sweep["runs"] if run["data"] == table["data"]),
    )


def _row(group: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    (row,) = (row for row in group["rows"] if row["name"] == name)
    found: Mapping[str, Any] = row
    return found


def _picture(table: Mapping[str, Any], cost: str, metrics: Sequence[str]) -> _Picture | None:
    """Accuracy over a cost; None where it is not known of two methods at least."""
    points = [
        _point(row, metrics) for row in table["rows"] if all(name in row["metrics"] for name in metrics)
    ]
    if len(points) < 2:
        return None
    caption = f"Accuracy over {cost}"
    costs = [point.cost for point in points]
    if min(costs) == max(costs):
        who = "All methods" if len(points) == len(table["rows"]) else f"{len(points)} methods"
        return _Picture(caption, "", "", f"{who} have the same {cost}.")
    unit = largest_unit(max(costs), _BYTES) if "bytes" in cost else time_unit(max(costs))
    best = ", ".join(point.name for point in front(points))
    return _Picture(
        caption,
        chart=pareto_chart(points, cost, unit),
        slim=pareto_chart(points, cost, unit, SLIM),
        remark=f"Best for their cost: {best}.",
    )


def _point(row: Mapping[str, Any], metrics: Sequence[str]) -> Point:
    """Costs are summed over ``metrics``, seed by seed."""
    accuracy = row["metrics"]["user_accuracy"]
    costs = [sum(seed) for seed in zip(*(row["metrics"][name]["by_seed"] for name in metrics), strict=True)]
    return Point(
        name=row["name"],
        cost=sum(costs) / len(costs),
        accuracy=accuracy["mean"],
        costs=(min(costs), max(costs)),
        accuracies=None if accuracy["low"] is None else (accuracy["low"], accuracy["high"]),
    )
