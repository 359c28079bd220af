"""An outcome as text and as a section of BENCHMARKS.md: tables, ranks, claims, and what did not work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpref.benchmarks.sections import conditions, put_section
from fedpref.benchmarks.suite.claims import Verdict, verdicts
from fedpref.benchmarks.suite.run import EXTRA, Outcome
from fedpref.evaluation.compare import Table
from fedpref.report.compare import as_markdown, as_table
from fedpref.report.provenance import source_commit
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
    commit = source_commit()
    origin = "an installed package" if commit is None else f"commit {commit['commit'][:10]}"
    if commit is not None and commit["is_changed"]:
        origin += " with changes"
    about = f"{suite.about}\n\nTier {tier.name}, {origin}, {conditions()}."
    body = "\n\n".join([about, *_tables(outcome, as_markdown), *_rest(outcome)])
    command = ["fedpref", "bench", suite.name, "--tier", tier.name]
    put_section(file, f"{suite.title} ({tier.name})", command, body)


def _tables(outcome: Outcome, form: Format) -> list[str]:
    heading = "### " if form is as_markdown else ""
    parts = []
    for table in outcome.tables:
        lines = [f"{heading}{table.data}", form(_telling(table), _chosen(table))]
        oracle = table.rows[0].cells.get("oracle")
        if oracle is not None:
            lines.append(f"Whoever knows each person's law gets {oracle.estimate.mean:.3f}.")
        parts.append("\n\n".join(lines))
    return parts


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
    if len(outcome.tables) > 1:
        ranks = mean_ranks(ranks_in([table.as_json() for table in outcome.tables]))
        listed = ", ".join(f"{name} {rank:.1f}" for name, rank in ranks.items())
        parts.append(f"Mean rank over data sets: {listed}.")
    parts += [_claims(verdicts(outcome.suite.claims, outcome.tables))] if outcome.suite.claims else []
    if outcome.failures:
        listed = "\n".join(f"- {f.data}, {f.method}, seed {f.seed}: {f.error}" for f in outcome.failures)
        parts.append(f"Runs that failed:\n\n{listed}")
    return [*parts, *outcome.notes]


def _claims(found: Sequence[Verdict]) -> str:
    holding = sum(verdict.holds for verdict in found)
    lines = [
        "| claim | data | asked | measured | holds |",
        "| --- | --- | --- | ---: | --- |",
        *map(_claim, found),
    ]
    return "\n".join([*lines, "", f"{holding} of {len(found)} claims hold."])


def _claim(verdict: Verdict) -> str:
    claim = verdict.claim
    minus = f" - {claim.than}" if claim.than else ""
    bound = f"at least {claim.least:g}" if claim.least is not None else f"at most {claim.most:g}"
    measured = "not measured" if verdict.measured is None else f"{verdict.measured:.3f}"
    asked = f"{claim.metric} of {claim.method}{minus} {bound}"
    return f"| {claim.claim} | {claim.data} | {asked} | {measured} | {'yes' if verdict.holds else '**no**'} |"
