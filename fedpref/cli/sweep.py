"""A folder of runs as the plain data of one page: a table a data set, a row a setting, whatever its seeds."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpref.cli.compare import (
    names_of,
    others_asked_noted,
    overrides_of,
    record_of,
    rows_of,
    runs_at,
    settings_of,
    versions_noted,
)
from fedpref.errors import ConfigurationError

if TYPE_CHECKING:
    from fedpref.report.runs import Run

__all__ = ["sweep_of"]

_MORE = ("oracle", "ari")  # metrics that are shown where all runs of some row have them


@dataclass(frozen=True)
class _Row:
    """Runs that differ in their seed only: names of their data set and of what else tells them apart."""

    data: str
    method: str
    runs: Sequence[Run]

    @property
    def is_whole(self) -> bool:
        return all(_has_result(run) for run in self.runs)

    @property
    def seeds(self) -> set[int]:
        return {_seed(run) for run in self.runs}


def sweep_of(folder: Path) -> dict[str, Any]:
    """The data of ``fedpref.report.sweep`` for all runs right below a folder.

    Rows of which a run has not finished are in no table. Seeds that not all other rows of a data set have
    are left out of it.

    Raises:
        ConfigurationError: no run has finished, or rows on the same data were not asked the same.
        StorageError: there is no run right below the folder, or a file of one is damaged.
    """
    from fedpref.evaluation.by_group import accuracy_by_group
    from fedpref.evaluation.compare import METRICS, tables
    from fedpref.report.sweep import FORMAT

    # Folders are named to the second, so that their order is chance within one.
    runs = sorted((run for run in runs_at(folder) if not _is_trial(run)), key=_place)
    rows = list(_named(rows_of(runs))) if runs else []
    whole = [row for row in rows if row.is_whole]
    if not whole:
        raise ConfigurationError(f"{folder}: there is no setting of which all runs have finished")
    common = {
        data: set.intersection(*(row.seeds for row in whole if row.data == data))
        for data in dict.fromkeys(row.data for row in whole)
    }
    shown = [(row, run) for row in whole for run in row.runs if _seed(run) in (common[row.data] or row.seeds)]
    records = [record_of(run, row.method, row.data) for row, run in shown]
    more = [name for name in _MORE if any(name in record.numbers for record in records)]
    failures = list(_failures(rows))
    return {
        "format": FORMAT,
        "title": folder.resolve().name,
        "about": "",
        "facts": [_count(sum(len(row.runs) for row in rows), "run"), _count(len(rows), "setting")],
        "command": "",
        "chosen": [],
        "tables": [table.as_json() for table in tables(records, (*METRICS, *more))],
        "newcomers": [],
        "groups": accuracy_by_group(records),
        "runs": [
            {"data": row.data, "method": row.method, "seed": _seed(run)}
            | {"command": shlex.join(run.manifest.get("command", [])), "path": run.path.name}
            for row in rows
            for run in row.runs
        ],
        "failures": failures,
        "claims": [],
        "notes": [
            *_seeds_noted(whole, common),
            *others_asked_noted(records),
            *versions_noted([run for _, run in shown]),
        ],
    }


def _place(run: Run) -> tuple[list[list[str | float]], int, str]:
    """Overrides in the order of the alphabet, with 2 before 10."""
    words = [re.split(r"(\d+(?:\.\d+)?)", word) for word in overrides_of(run)]
    # What matched is at every other place.
    natural = [[float(part) if place % 2 else part for place, part in enumerate(word)] for word in words]
    return natural, _seed(run), run.path.name


def _named(grouped: Sequence[Sequence[Run]]) -> Iterator[_Row]:
    """Rows with their names: methods that differ in their data only have the same one."""
    keys = [_keys(of_row[0]) for of_row in grouped]
    # The same setting on the same data a second time is another method: it has a seed again.
    places = [(method, keys[:place].count((data, method))) for place, (data, method) in enumerate(keys)]
    methods = list(dict.fromkeys(places))
    first = [grouped[places.index(method)] for method in methods]
    names = list(names_of(first, [_words(of_row[0], False) for of_row in first]))
    sets = list(dict.fromkeys(data for data, _ in keys))
    words = [_words(grouped[[data for data, _ in keys].index(one)][0], True) for one in sets]
    data_names = list(_data_names(words))
    for of_row, (data, _), place in zip(grouped, keys, places, strict=True):
        yield _Row(data_names[sets.index(data)], names[methods.index(place)], of_row)


def _keys(run: Run) -> tuple[str, str]:
    """What tells data sets apart, and what tells methods apart."""
    settings = dict(settings_of(run))
    data = settings.pop("data", {})
    return json.dumps(data, sort_keys=True), json.dumps(settings, sort_keys=True)


def _words(run: Run, is_of_data: bool) -> list[str]:
    return [word for word in overrides_of(run) if _is_of_data(word) == is_of_data]


def _is_of_data(word: str) -> bool:
    key = word.partition("=")[0]
    return key == "data" or key.startswith("data.")


def _data_names(words: Sequence[Sequence[str]]) -> Iterator[str]:
    """The overrides that not all data sets have; empty for one alone, and never the same twice."""
    if len(words) == 1:
        yield ""
        return
    common = set.intersection(*map(set, words))
    seen: dict[str, int] = {}
    for of_set in words:
        name = " ".join(word for word in of_set if word not in common) or "defaults"
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name} ({seen[name]})"


def _failures(rows: Sequence[_Row]) -> Iterator[dict[str, Any]]:
    for row in rows:
        for run in row.runs:
            if not _has_result(run):
                state = run.status.get("state", "unknown")
                error = run.status.get("error") or f"it is {state}; go on with: fedpref resume {run.path}"
                if state == "finished":
                    error = "users.json or summary.json is absent or empty"
                yield {"data": row.data, "method": row.method, "seed": _seed(run), "error": str(error)}


def _seeds_noted(rows: Sequence[_Row], common: dict[str, set[int]]) -> Iterator[str]:
    for row in rows:
        extra = sorted(row.seeds - common[row.data])
        if extra and common[row.data]:
            where = f"{row.method} on {row.data}" if row.data else row.method
            yield f"{where}: seeds {', '.join(map(str, extra))} are left out, since other rows lack them."


def _has_result(run: Run) -> bool:
    return run.status.get("state") == "finished" and bool(run.users) and bool(run.summary)


def _is_trial(run: Run) -> bool:
    from fedpref.report.storage import read_json

    path = run.path / "job.json"
    return path.is_file() and bool(read_json(path)["is_trial"])


def _seed(run: Run) -> int:
    return int(run.manifest["seed"])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
