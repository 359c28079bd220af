"""An outcome as text and as a section of BENCHMARKS.md: tables, ranks, claims, and what did not work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedpref.benchmarks.sections import conditions, put_section
from fedpref.benchmarks.suite.claims import Verdict, verdicts
from fedpref.benchmarks.suite.run import EXTRA, Outcome
from fedpref.evaluation.compare import Table
from fedpref.report.compare import as_markdown, as_table
from fedpref.report.provenance import source_commit

__all__ = ["mean_ranks", "put_section_of", "text"]

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


def mean_ranks(tables: Sequence[Table]) -> dict[str, float]:
    """Mean rank of each method over the data sets that all have, 1 is best; equals share their ranks."""
    names = [row.name for row in tables[0].rows] if tables else []
    complete = [table for table in tables if {row.name for row in table.rows} >= set(names)]
    ranks: dict[str, list[float]] = {name: [] for name in names}
    for table in complete:
        means = {row.name: row.cells[_METRIC].estimate.mean for row in table.rows}
        for name in names:
            above = sum(mean > means[name] for mean in means.values())
            equal = sum(mean == means[name] for mean in means.values())
            ranks[name].append(above + (equal + 1) / 2)
    return {name: float(np.mean(own)) for name, own in ranks.items() if own}


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
        ranks = sorted(mean_ranks(outcome.tables).items(), key=lambda item: item[1])
        parts.append(
            "Mean rank over data sets: " + ", ".join(f"{name} {rank:.1f}" for name, rank in ranks) + "."
        )
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
