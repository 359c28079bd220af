"""Methods side by side: runs become rows, with intervals over people and differences person by person.

A row is a method with some seeds; all rows of a table have the same seeds, and in each of them everybody was
asked the same. A metric is its mean over the seeds. Its interval is at 95 %, from drawing whole people anew,
each with all that was asked of them in all seeds; every row gets the same draws, so differences are paired.
Other seeds are another matter, of which ``by_seed`` tells a little.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from fedpref.errors import ConfigurationError, did_you_mean
from fedpref.evaluation import redrawn
from fedpref.evaluation.records import Record, methods_of
from fedpref.seeds import generator

__all__ = ["METRICS", "PEOPLE_METRICS", "Cell", "Estimate", "Row", "Table", "tables"]

PEOPLE_METRICS = ("user_accuracy", "pair_accuracy", "worst_decile", "worst_group")
"""Metrics that are computed from people; more is better. All others are numbers of a whole run."""

METRICS = (*PEOPLE_METRICS, "bytes_up", "bytes_down", "virtual_s")
"""What a table has unless other metrics are asked for."""

_DRAWS = 1000
_ENDS = (0.025, 0.975)
_FEWEST_SEEDS = 3
_ROUNDING = 1e-9

_Over: TypeAlias = Literal["people", "seeds"]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and an interval.

    Attributes:
        mean: over the seeds.
        low: end of the interval; None where only one person was asked.
        high: the other end.
        by_seed: one value a seed, in the order of the table's seeds.
    """

    mean: float
    low: float | None
    high: float | None
    by_seed: tuple[float, ...]


@dataclass(frozen=True)
class Cell:
    """One metric of one row.

    Attributes:
        estimate: its value.
        difference: to the first row; None for the first row itself, and where that has no such metric.
        over: what intervals are over: people, at 95 %; for numbers of a run they are simply from the least to
            the most of the seeds.
        is_best: ahead of each other row in every seed, by a difference whose interval is above 0. Many rows
            are many chances, for which nothing corrects.
    """

    estimate: Estimate
    difference: Estimate | None
    over: _Over
    is_best: bool


@dataclass(frozen=True)
class Row:
    """A method: one cell for each metric that all of its runs have."""

    name: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Table:
    """All methods on one data set.

    Attributes:
        data: its name.
        seeds: of every row, ascending.
        num_people: different names, over all seeds.
        rows: the first is what the others are compared with.
        notes: what to know before one believes it, a sentence each.
    """

    data: str
    seeds: tuple[int, ...]
    num_people: int
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The table as plain data: for tools, and for ``fedpref.report.compare``."""
        return {
            "data": self.data,
            "base": self.rows[0].name,
            "seeds": list(self.seeds),
            "num_people": self.num_people,
            "rows": [
                {"name": row.name, "metrics": {metric: _plain(cell) for metric, cell in row.cells.items()}}
                for row in self.rows
            ],
            "notes": list(self.notes),
        }


def tables(
    records: Sequence[Record], metrics: Sequence[str] = METRICS, base: str | None = None
) -> tuple[Table, ...]:
    """One table a data set, both data sets and rows in the order of their first records.

    Args:
        records: at least one; in which order the seeds come changes nothing.
        metrics: of ``PEOPLE_METRICS``, or keys of ``numbers``; a row has those that all its records have.
        base: the method to compare with; None takes the first, as does a data set without a run of it.

    Raises:
        ConfigurationError: two records are of one method, data set and seed; rows were not asked the same in
            the same seeds, and the message says what differs; a metric or the base does not exist.
    """
    known = dict.fromkeys([*METRICS, *sorted({name for record in records for name in record.numbers})])
    for metric in metrics:
        if metric not in known:
            mend = did_you_mean(metric, known)
            raise ConfigurationError(f"metric {metric} does not exist.{mend} There are {', '.join(known)}")
    by_data: dict[str, list[Record]] = {}
    for record in records:
        by_data.setdefault(record.data, []).append(record)
    if base is not None and base not in (names := {record.name for record in records}):
        raise ConfigurationError(
            f"no run is of {base!r}, which is to compare with.{did_you_mean(base, names)}"
        )
    return tuple(_table(data, of, metrics, base) for data, of in by_data.items())


def _table(data: str, records: Sequence[Record], metrics: Sequence[str], base: str | None) -> Table:
    has_base = any(record.name == base for record in records)
    methods = methods_of(records, base if has_base else None)
    first, *_ = methods
    people = sorted({name for record in methods[first].values() for name in record.people})
    values = _values({name: list(runs.values()) for name, runs in methods.items()}, people, metrics)
    best = {metric: _best(metric, values) for metric in metrics}
    rows = []
    for name, own in values.items():
        bases = {} if name == first else values[first]
        cells = {
            metric: _cell(metric, value, bases.get(metric), best[metric] == name)
            for metric, value in own.items()
        }
        rows.append(Row(name, cells))
    seeds = tuple(methods[first])
    notes = [*_notes(records, len(seeds), len(people))]
    if base is not None and not has_base:
        notes.append(f"There is no run of {base} here: differences are to {first}.")
    return Table(data, seeds, len(people), tuple(rows), tuple(notes))


def _notes(records: Sequence[Record], num_seeds: int, num_people: int) -> Iterator[str]:
    if num_seeds < _FEWEST_SEEDS:
        seeds = "1 seed" if num_seeds == 1 else f"{num_seeds} seeds"
        yield f"Only {seeds}: how much training itself varies is not known; run at least {_FEWEST_SEEDS}."
    if num_people == 1:
        yield "One person alone was asked: there are no intervals."
    unknown = sum(not record.asked for record in records)
    if unknown and len(records) > 1:
        yield (
            f"Of {len(records)} runs {unknown} did not note which pairs were asked: only the people and "
            "their numbers of pairs are known to be the same."
        )


# ------------------------------------------------------------------------------------------ the figures


class _Values(NamedTuple):
    """One metric of one row: a value a seed and, if it is over people, the mean over seeds of each draw."""

    by_seed: np.ndarray
    drawn: np.ndarray | None


class _Asked(NamedTuple):
    """The people of one run as arrays; ``places`` are theirs among all people of the table."""

    places: np.ndarray
    accuracies: np.ndarray
    num_pairs: np.ndarray
    groups: np.ndarray | None


def _values(
    methods: Mapping[str, Sequence[Record]], people: Sequence[str], metrics: Sequence[str]
) -> dict[str, dict[str, _Values]]:
    """All metrics of all rows, on the same draws of people."""
    places = {name: place for place, name in enumerate(people)}
    asked = {name: [_asked(run, places) for run in runs] for name, runs in methods.items()}
    cells = [(name, metric) for name in methods for metric in metrics if _has(metric, methods[name])]
    drawn: dict[tuple[str, str], list[np.ndarray]] = {cell: [] for cell in cells if _is_over_people(cell[1])}
    draws = redrawn.draws_of(len(people), generator(0, "compare"), _DRAWS) if len(people) > 1 else ()
    for times in draws:
        for (name, metric), parts in drawn.items():
            parts.append(np.nanmean([_over_people(metric, times, run) for run in asked[name]], axis=0))
    values: dict[str, dict[str, _Values]] = {name: {} for name in methods}
    once = np.ones((1, len(people)))
    for name, metric in cells:
        if not _is_over_people(metric):
            numbers = np.array([run.numbers[metric] for run in methods[name]], dtype=np.float64)
            values[name][metric] = _Values(numbers, None)
            continue
        by_seed = np.concatenate([_over_people(metric, once, run) for run in asked[name]])
        all_parts = drawn[name, metric]
        values[name][metric] = _Values(by_seed, np.concatenate(all_parts) if all_parts else None)
    return values


def _is_over_people(metric: str) -> bool:
    return metric in PEOPLE_METRICS


def _has(metric: str, runs: Sequence[Record]) -> bool:
    if metric == "worst_group":
        return all(person.group is not None for run in runs for person in run.people.values())
    return _is_over_people(metric) or all(metric in run.numbers for run in runs)


def _asked(run: Record, places: Mapping[str, int]) -> _Asked:
    names = sorted(run.people)
    people = [run.people[name] for name in names]
    groups = [person.group for person in people if person.group is not None]
    return _Asked(
        places=np.array([places[name] for name in names]),
        accuracies=np.array([person.accuracy for person in people]),
        num_pairs=np.array([person.num_pairs for person in people], dtype=np.float64),
        groups=np.array(groups) if len(groups) == len(people) else None,
    )


def _over_people(metric: str, times: np.ndarray, asked: _Asked) -> np.ndarray:
    """A metric of one run in each draw of people, shape (draws,)."""
    is_everybody = len(asked.places) == times.shape[1]  # in order, since both are sorted by name
    theirs = times if is_everybody else times[:, asked.places]
    if metric == "worst_decile":
        return redrawn.worst_share(theirs, asked.accuracies)
    if metric == "worst_group":
        assert asked.groups is not None
        return redrawn.worst_group(theirs, asked.accuracies, asked.groups)
    weights = asked.num_pairs if metric == "pair_accuracy" else np.ones_like(asked.num_pairs)
    return redrawn.mean(theirs, asked.accuracies, weights)


def _cell(metric: str, own: _Values, base: _Values | None, is_best: bool) -> Cell:
    over: _Over = "people" if _is_over_people(metric) else "seeds"
    difference = None if base is None else _estimate(_minus(own, base), over)
    return Cell(_estimate(own, over), difference, over, is_best)


def _estimate(values: _Values, over: _Over) -> Estimate:
    by_seed = tuple(float(value) for value in values.by_seed)
    low: float | None = None
    high: float | None = None
    if over == "seeds":
        low, high = min(by_seed), max(by_seed)
    elif values.drawn is not None:
        low, high = (float(end) for end in np.quantile(values.drawn, _ENDS))
    return Estimate(float(np.mean(values.by_seed)), low, high, by_seed)


def _minus(own: _Values, other: _Values) -> _Values:
    drawn = None if own.drawn is None or other.drawn is None else own.drawn - other.drawn
    return _Values(own.by_seed - other.by_seed, drawn)


def _best(metric: str, values: Mapping[str, Mapping[str, _Values]]) -> str | None:
    """The row that is ahead of all others, if all have the metric and one is."""
    rows = {name: own[metric] for name, own in values.items() if metric in own}
    if not _is_over_people(metric) or len(rows) < max(len(values), 2):
        return None
    leader = max(rows, key=lambda name: float(rows[name].by_seed.mean()))
    others = (row for name, row in rows.items() if name != leader)
    return leader if all(_is_ahead(rows[leader], other) for other in others) else None


def _is_ahead(own: _Values, other: _Values) -> bool:
    lead = _minus(own, other)
    if lead.drawn is None:
        return False
    return bool((lead.by_seed > _ROUNDING).all() and np.quantile(lead.drawn, _ENDS[0]) > _ROUNDING)


def _plain(cell: Cell) -> dict[str, Any]:
    difference = None if cell.difference is None else _plain_estimate(cell.difference)
    rest = {"difference": difference, "over": cell.over, "is_best": cell.is_best}
    return _plain_estimate(cell.estimate) | rest


def _plain_estimate(estimate: Estimate) -> dict[str, Any]:
    return {**vars(estimate), "by_seed": list(estimate.by_seed)}
