"""Whether what was claimed came out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fedpref.benchmarks.suite.declared import Claim
from fedpref.evaluation.compare import Table

__all__ = ["Verdict", "verdicts"]


class Verdict(NamedTuple):
    """A claim and what was measured: None where the runs that it needs failed or were not made."""

    claim: Claim
    measured: float | None

    @property
    def holds(self) -> bool:
        """True if a value was measured and lies where the claim says."""
        least = -float("inf") if self.claim.least is None else self.claim.least
        most = float("inf") if self.claim.most is None else self.claim.most
        return self.measured is not None and least <= self.measured <= most


def verdicts(claims: Sequence[Claim], tables: Sequence[Table]) -> list[Verdict]:
    """Each claim beside its figure: a mean over seeds, or the difference of two."""
    return [Verdict(claim, _measured(claim, tables)) for claim in claims]


def _measured(claim: Claim, tables: Sequence[Table]) -> float | None:
    own = _mean(tables, claim.data, claim.method, claim.metric)
    if claim.than is None or own is None:
        return own
    if claim.than == "oracle":  # of every run's own people
        other = _mean(tables, claim.data, claim.method, "oracle")
    else:
        other = _mean(tables, claim.data, claim.than, claim.metric)
    return None if other is None else own - other


def _mean(tables: Sequence[Table], data: str, method: str, metric: str) -> float | None:
    cells = [
        row.cells[metric]
        for table in tables
        if table.data == data
        for row in table.rows
        if row.name == method and metric in row.cells
    ]
    return cells[0].estimate.mean if cells else None
