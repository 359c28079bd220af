"""An outcome as text and as a section of BENCHMARKS.md: tables, ranks, claims, and what did not work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpref.benchmarks.sections import conditions, origin, put_section
from fedpref.benchmarks.suite.claims import Verdict, summary, verdicts
from fedpref.benchmarks.suite.metrics import EXTRA, NEWCOMERS
from fedpref.benchmarks.suite.results import newcomers
from fedpref.benchmarks.suite.run import Outcome
from fedpref.evaluation.compare import Table
from fedpref.report.compare import as_markdown, as_table
from fedpref.report.ranks import mean_ranks, ranks_in

__all__ = ["put_section_of", "text"]

_METRIC = "user_accuracy"

Format = Callable[[Mapping[str, Any], Sequence[str]], str]


def text(outcome: Outcome) -> str:
    """For a terminal."""
    return "\n\n".join([*_tables(outcome, as_table), *_rest(outcome)])


def put_section_of(file: Path, outcome: Outcome) -> None:
    """Write the section of a suite and tier into a file of sections, with commit, command and conditions."""
    suite, tier = outcome.suite, outcome.tier
    about = f"{suite.about}\n\nTier {tier.name}, {origin()}, {conditions()}."
    body = "\n\n".join([about, *_tables(outcome, as_markdown), *_rest(outcome)])
    put_section(file, f"{suite.title} ({tier.name})", outcome.command, body)


def _tables(outcome: Outcome, form: Format) -> list[str]:
    heading = "### " if form is as_markdown else ""
    by_data = newcomers(outcome.tables)
    parts = []
    for table in (table for table in outcome.tables if NEWCOMERS not in table.data):
        parts.append(_part(table, form, heading))
        if table.data in by_data:
            title = f"{heading}{table.data}, newcomers, by the pairs that they show"
            columns = [shown for shown, _ in by_data[table.data]]
            parts.append(f"{title}\n\n{form(_side_by_side(by_data[table.data]), columns)}")
    return parts


def _side_by_side(tables: Sequence[tuple[str, Table]]) -> dict[str, Any]:
    """One comparison with the accuracy of each table as a metric of its own, named by the pairs shown."""
    plain = [(shown, table.as_json()) for shown, table in tables]
    metrics: dict[str, dict[str, Any]] = {row["name"]: {} for _, one in plain for row in one["rows"]}
    for shown, one in plain:
        for row in one["rows"]:
            metrics[row["name"]][shown] = row["metrics"][_METRIC]
    rows = [{"name": name, "metrics": of_row} for name, of_row in metrics.items()]
    notes = list(dict.fromkeys(note for _, one in plain for note in one["notes"]))
    return plain[0][1] | {"rows": rows, "notes": notes}


def _part(table: Table, form: Format, heading: str) -> str:
    lines = [f"{heading}{table.data}", form(_telling(table), _chosen(table))]
    oracle = table.rows[0].cells.get("oracle")
    if oracle is not None:
        lines.append(f"Whoever knows each person's law gets {oracle.estimate.mean:.3f}.")
    return "\n\n".join(lines)


def _telling(table: Table) -> dict[str, Any]:
    """The table as plain data, without figures that are the same in each row, as bytes may be."""
    plain = table.as_json()
    for metric in dict.fromkeys(metric for row in plain["rows"] for metric in row["metrics"]):
        values = [row["metrics"].get(metric, {}).get("mean") for row in plain["rows"]]
        if metric != _METRIC and len(set(values)) == 1:
            for row in plain["rows"]:
                del row["metrics"][metric]
    return plain


def _chosen(table: Table) -> list[str]:
    """What is shown with intervals: accuracy, and what some suites measure besides."""
    return [metric for metric in (_METRIC, *EXTRA) if any(metric in row.cells for row in table.rows)]


def _rest(outcome: Outcome) -> list[str]:
    parts = []
    own = [table.as_json() for table in outcome.tables if table.data in outcome.tier.data]
    if len(own) > 1:
        ranks = mean_ranks(ranks_in(own))
        listed = ", ".join(f"{name} {rank:.1f}" for name, rank in ranks.items())
        others = [name for name in outcome.tier.methods if name not in ranks]
        unranked = f" Not on all of them: {', '.join(others)}." if others else ""
        parts.append(f"Mean rank over data sets: {listed}.{unranked}")
    claimed = verdicts(outcome.suite.claims, outcome.tables, outcome.failures)
    parts += [_claims(claimed)] if claimed else []
    if outcome.failures:
        listed = "\n".join(f"- {f.data}, {f.method}, seed {f.seed}: {f.error}" for f in outcome.failures)
        parts.append(f"Runs that failed:\n\n{listed}")
    return [*parts, *outcome.notes]


def _claims(found: Sequence[Verdict]) -> str:
    lines = [
        "| claim | data | asked | measured | holds |",
        "| --- | --- | --- | ---: | --- |",
        *map(_claim, found),
    ]
    return "\n".join([*lines, "", summary(found)])


def _claim(verdict: Verdict) -> str:
    claim = verdict.claim
    answers = {True: "yes", False: f"**no** {claim.why}".rstrip(), None: "-"}
    cells = (claim.claim, claim.data, claim.asked, verdict.told, answers[verdict.holds])
    return f"| {' | '.join(cells)} |"
