"""Ranks of methods over data sets, from the tables of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["mean_ranks", "ranks_in", "ranks_of"]


def ranks_of(values: Sequence[float]) -> list[float]:
    """Rank of each value, 1 for the highest; equals share the mean of their ranks."""
    return [
        sum(other > value for other in values) + (sum(other == value for other in values) + 1) / 2
        for value in values
    ]


def ranks_in(
    tables: Sequence[Mapping[str, Any]], metric: str = "user_accuracy"
) -> dict[str, dict[str, float]]:
    """Rank of each method in each table, by data set and name, among the methods that all tables have.

    Args:
        tables: as of ``fedpref.evaluation.compare.Table.as_json``.
        metric: of which more is better.
    """
    found = {table["data"]: _means(table, metric) for table in tables}
    common = [name for name in _first(found) if all(name in means for means in found.values())]
    return {
        data: dict(zip(common, ranks_of([means[name] for name in common]), strict=True))
        for data, means in found.items()
    }


def mean_ranks(ranks: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Mean over data sets of the ranks of ``ranks_in``, the best first."""
    means = {name: sum(own[name] for own in ranks.values()) / len(ranks) for name in _first(ranks)}
    return dict(sorted(means.items(), key=lambda item: item[1]))


def _means(table: Mapping[str, Any], metric: str) -> dict[str, float]:
    return {row["name"]: row["metrics"][metric]["mean"] for row in table["rows"] if metric in row["metrics"]}


def _first(by_data: Mapping[str, Mapping[str, float]]) -> Mapping[str, float]:
    return next(iter(by_data.values()), {})
