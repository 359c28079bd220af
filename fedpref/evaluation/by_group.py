"""How well each hidden group is served by each method: a comparison of methods, once a group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from fedpref.evaluation.compare import Cell, tables
from fedpref.evaluation.records import Record

__all__ = ["accuracy_by_group"]

_METRIC = "user_accuracy"


def accuracy_by_group(records: Sequence[Record], base: str | None = None) -> list[dict[str, Any]]:
    """Mean accuracy over the people of each hidden group, with intervals over these people, as plain data.

    Args:
        records: as ``fedpref.evaluation.compare.tables`` takes them.
        base: the method that comes first; None takes the first.

    Returns:
        One entry a data set of which everybody's group is known and there are several: ``data`` and
        ``groups``, each with its ``group``, ``num_people`` over all seeds and ``rows``: ``name``, ``mean``,
        ``low``, ``high`` and ``by_seed``. A group that nobody is in, in some seed, is not of that seed.
    """
    by_data: dict[str, list[Record]] = {}
    for record in records:
        by_data.setdefault(record.data, []).append(record)
    found = []
    for data, of_data in by_data.items():
        groups = {person.group for record in of_data for person in record.people.values()}
        known = sorted(group for group in groups if group is not None)
        if len(known) > 1 and None not in groups:
            found.append({"data": data, "groups": [_group(of_data, group, base) for group in known]})
    return found


def _group(records: Sequence[Record], group: int, base: str | None) -> dict[str, Any]:
    members = list(_members(records, group))
    has_base = any(record.name == base for record in members)
    (table,) = tables(members, (_METRIC,), base if has_base else None)
    rows = [{"name": row.name, **_plain(row.cells[_METRIC])} for row in table.rows]
    return {"group": group, "num_people": table.num_people, "seeds": list(table.seeds), "rows": rows}


def _members(records: Sequence[Record], group: int) -> Iterator[Record]:
    for record in records:
        people = {name: person for name, person in record.people.items() if person.group == group}
        if people:
            yield replace(record, people=people)


def _plain(cell: Cell) -> dict[str, Any]:
    return {**vars(cell.estimate), "by_seed": list(cell.estimate.by_seed)}
