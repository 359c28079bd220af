"""An outcome as plain data: what ``fedpref report`` shows of a suite, kept beside its runs."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

from fedpref.benchmarks.sections import conditions
from fedpref.benchmarks.suite.claims import Verdict, verdicts
from fedpref.benchmarks.suite.run import EXTRA, Outcome
from fedpref.evaluation.by_group import accuracy_by_group
from fedpref.report.provenance import source_commit
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
    whole = [record for record in outcome.records if (record.data, record.name) in shown]
    return {
        "format": FORMAT,
        "title": suite.title,
        "about": suite.about,
        "facts": [f"Tier {tier.name}", _origin(), conditions()],
        "command": _command(outcome),
        "chosen": list(EXTRA),
        "tables": [table.as_json() for table in outcome.tables],
        "groups": accuracy_by_group(whole, suite.base),
        "runs": [
            {"data": job.data, "method": job.method, "seed": job.seed, "command": job.command}
            | {"path": path.resolve().relative_to(out.resolve()).as_posix()}
            for job, path in zip(outcome.jobs, outcome.paths, strict=True)
        ],
        "failures": [vars(failure) for failure in outcome.failures],
        "claims": [_claim(verdict) for verdict in verdicts(suite.claims, outcome.tables)],
        "notes": list(outcome.notes),
    }


def _command(outcome: Outcome) -> str:
    """What made these runs and makes those of other data sets that are there."""
    suite, tier = outcome.suite, outcome.tier
    usual = suite.tiers[tier.name]
    words = ["fedpref", "bench", suite.name, "--tier", tier.name]
    words += ["--strategies", ",".join(tier.methods)] if tier.methods != usual.methods else []
    words += ["--seeds", ",".join(map(str, tier.seeds))] if tier.seeds != usual.seeds else []
    return shlex.join(words)


def _origin() -> str:
    commit = source_commit()
    if commit is None:
        return "an installed package"
    return f"commit {commit['commit'][:10]}" + (" with changes" if commit["is_changed"] else "")


def _claim(verdict: Verdict) -> dict[str, Any]:
    claim = verdict.claim
    minus = f" - {claim.than}" if claim.than else ""
    bound = f"at least {claim.least:g}" if claim.least is not None else f"at most {claim.most:g}"
    return {
        "claim": claim.claim,
        "data": claim.data,
        "asked": f"{claim.metric} of {claim.method}{minus} {bound}",
        "measured": verdict.measured,
        "holds": verdict.holds,
    }
