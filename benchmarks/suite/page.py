"""An outcome as plain data: what ``fedpref report`` shows of a suite, kept beside its runs."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

from fedpref.benchmarks.sections import conditions, origin
from fedpref.benchmarks.suite.claims import Verdict, summary, verdicts
from fedpref.benchmarks.suite.metrics import EXTRA, NEWCOMERS
from fedpref.benchmarks.suite.results import newcomers
from fedpref.benchmarks.suite.run import Outcome
from fedpref.evaluation.by_group import accuracy_by_group
from fedpref.report.storage import write_json
from fedpref.report.sweep import FORMAT

__all__ = ["as_page", "keep"]


def keep(outcome: Outcome, out: Path) -> Path:
    """Write ``outcome-TIER.json`` into the folder of a suite, in place of an older one.

    Raises:
        StorageError: the disk is full or not writable.
    """
    path = out / f"outcome-{outcome.tier.name}.json"
    ended = datetime.now().astimezone().isoformat(timespec="seconds")
    write_json(path, as_page(outcome, out) | {"ended": ended})
    return path


def as_page(outcome: Outcome, out: Path) -> dict[str, Any]:
    """The data of ``fedpref.report.sweep``; run directories are told relative to ``out``."""
    suite, tier = outcome.suite, outcome.tier
    shown = {(table.data, row.name) for table in outcome.tables for row in table.rows}
    claimed = verdicts(suite.claims, outcome.tables, outcome.failures)
    whole = [record for record in outcome.records if (record.data, record.name) in shown]
    return {
        "format": FORMAT,
        "title": suite.title,
        "about": suite.about,
        "facts": [f"Tier {tier.name}", origin(), conditions()],
        "command": shlex.join(outcome.command),
        "chosen": list(EXTRA),
        "tables": [table.as_json() for table in outcome.tables if NEWCOMERS not in table.data],
        "newcomers": [
            {"data": data, "tables": [table.as_json() | {"data": shown} for shown, table in of_set]}
            for data, of_set in newcomers(outcome.tables).items()
        ],
        "groups": accuracy_by_group(whole, suite.base),
        "runs": [
            {"data": job.data, "method": job.method, "seed": job.seed, "command": job.command}
            | {"path": path.resolve().relative_to(out.resolve()).as_posix()}
            for job, path in zip(outcome.jobs, outcome.paths, strict=True)
        ],
        "failures": [vars(failure) for failure in outcome.failures],
        "claims": [_claim(verdict) for verdict in claimed],
        "claims_told": summary(claimed) if claimed else "",
        "notes": list(outcome.notes),
    }


def _claim(verdict: Verdict) -> dict[str, Any]:
    claim = verdict.claim
    return {
        "claim": claim.claim,
        "data": claim.data,
        "asked": claim.asked,
        "measured": verdict.measured,
        "told": verdict.told,
        "holds": verdict.holds,
        "why": claim.why if verdict.holds is False else "",
    }
