"""Whether what was claimed came out: it holds, it does not, or this tier did not ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fedpref.benchmarks.suite.declared import Claim
from fedpref.benchmarks.suite.metrics import NEWCOMERS
from fedpref.benchmarks.suite.results import Failure
from fedpref.evaluation.compare import Table

__all__ = ["Verdict", "summary", "verdicts"]

_MOST_DIGITS = 9


class Verdict(NamedTuple):
    """A claim and what came out.

    Attributes:
        claim: what was said.
        measured: the figure; None where there is none.
        missing: why there is none although its runs were made, which speaks against the claim; empty where
            there is one, and where a run that it needs is not of this tier.
    """

    claim: Claim
    measured: float | None
    missing: str = ""

    @property
    def holds(self) -> bool | None:
        """True or False; None where this tier did not ask."""
        if self.measured is None:
            return False if self.missing else None
        least = -float("inf") if self.claim.least is None else self.claim.least
        most = float("inf") if self.claim.most is None else self.claim.most
        return least <= self.measured <= most

    @property
    def told(self) -> str:
        """The figure in words, with as many digits as show on which side of its bounds it lies."""
        if self.measured is None:
            return self.missing or "-"
        bounds = [bound for bound in (self.claim.least, self.claim.most) if bound is not None]
        digits = 4 if min(map(abs, bounds)) <= 1 else 3
        while not self.holds and round(self.measured, digits) in bounds and digits < _MOST_DIGITS:
            digits += 1
        return f"{self.measured:.{digits}f}"


def verdicts(claims: Sequence[Claim], tables: Sequence[Table], failures: Sequence[Failure]) -> list[Verdict]:
    """Each claim beside its figure: a mean over seeds, or the difference of two.

    Args:
        claims: of a suite.
        tables: what came out of a tier; a method is in one with all of its seeds or not at all.
        failures: runs of the tier that ended with an error.
    """
    return [_verdict(claim, tables, failures) for claim in claims]


def summary(found: Sequence[Verdict]) -> str:
    """How many hold, in a sentence."""
    answers = [verdict.holds for verdict in found]
    untested = answers.count(None)
    if untested == len(answers):
        return "No claim was tested."
    rest = f"; {untested} {'was' if untested == 1 else 'were'} not" if untested else ""
    return f"{answers.count(True)} of {len(answers) - untested} claims that were tested hold{rest}."


def _verdict(claim: Claim, tables: Sequence[Table], failures: Sequence[Failure]) -> Verdict:
    needed = [(claim.method, claim.metric)]
    if claim.than == "oracle":  # of every run's own people
        needed.append((claim.method, "oracle"))
    elif claim.than is not None:
        needed.append((claim.than, claim.metric))
    found = [_figure(claim.data, method, metric, tables, failures) for method, metric in needed]
    if None in found:
        return Verdict(claim, None)
    reasons = [figure for figure in found if isinstance(figure, str)]
    if reasons:
        return Verdict(claim, None, reasons[0])
    own, *others = (figure for figure in found if isinstance(figure, float))
    return Verdict(claim, own - sum(others))


def _figure(
    data: str, method: str, metric: str, tables: Sequence[Table], failures: Sequence[Failure]
) -> float | str | None:
    """A mean over seeds; why there is none although the runs were made; None where they were not."""
    rows = [row for table in tables if table.data == data for row in table.rows if row.name == method]
    if rows:
        cell = rows[0].cells.get(metric)
        return "not in every seed" if cell is None else cell.estimate.mean
    people = data.partition(NEWCOMERS)[0]
    failed = any((failure.data, failure.method) == (people, method) for failure in failures)
    return "failed" if failed else None
