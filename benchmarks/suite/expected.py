"""What a suite is expected to give, kept with where it comes from; a change needs a reason.

All figures of all tables are kept, a value a seed, with the verdicts on the claims and the options that the
methods had.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpref.benchmarks.suite.claims import Verdict, verdicts
from fedpref.benchmarks.suite.declared import Suite, Tier
from fedpref.benchmarks.suite.job import Job
from fedpref.benchmarks.suite.metrics import COSTS
from fedpref.benchmarks.suite.run import Outcome
from fedpref.errors import ConfigurationError
from fedpref.evaluation.compare import Table
from fedpref.report.provenance import source_commit, versions

__all__ = ["ALLOWED", "check_reason", "deviations", "expected_path", "keep", "require"]

ALLOWED = 0.005
"""How far a figure may be from what is kept: processors round otherwise. Seconds and bytes: in proportion."""

_FORMAT = 2
_FOLDER = Path(__file__).parent.parent / "expected"


def expected_path(suite: Suite, tier: Tier) -> Path:
    """Where the figures of a tier are kept; those of a suite of one's own lie beside it."""
    folder = _FOLDER if suite.path is None else suite.path.parent / "expected"
    return folder / f"{suite.name}-{tier.name}.json"


def check_reason(reason: str) -> None:
    """Raise ConfigurationError for a reason without words."""
    if not reason.strip():
        raise ConfigurationError("--expect needs a reason why the figures change, in words")


def keep(path: Path, outcome: Outcome, reason: str) -> None:
    """Write down what came out.

    Args:
        path: of the file.
        outcome: of a whole tier.
        reason: why the figures are new.

    Raises:
        ConfigurationError: no reason is given, or data sets of the tier were left out.
    """
    check_reason(reason)
    suite, tier = outcome.suite, outcome.tier
    absent = [name for name in suite.tiers[tier.name].data if name not in tier.data]
    if absent:
        raise ConfigurationError(f"--expect keeps a whole tier, but {', '.join(absent)} was left out")
    content = {
        "format": _FORMAT,
        "suite": suite.name,
        "tier": tier.name,
        "seeds": list(tier.seeds),
        "words": list(tier.words),
        "reason": reason,
        "source": source_commit(),
        "versions": versions(),
        "chosen": _chosen(outcome.jobs),
        "figures": _figures(outcome.tables),
        "claims": {_asked(verdict): _said(verdict) for verdict in _verdicts(outcome)},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def require(path: Path) -> Mapping[str, Any]:
    """What is kept.

    Raises:
        ConfigurationError: nothing is, or it is of another version of fedpref.
    """
    if not path.is_file():
        raise ConfigurationError(f"{path} is absent: nothing is expected of this tier yet; use --expect WHY")
    kept: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if kept.get("format") != _FORMAT:
        raise ConfigurationError(f"{path} is of another version of fedpref; renew it with --expect WHY")
    return kept


def deviations(path: Path, outcome: Outcome) -> list[str]:
    """What differs from what is kept, a sentence each: options, figures, verdicts on claims.

    Raises:
        ConfigurationError: nothing is kept, or it is of other seeds.
    """
    kept, tier = require(path), outcome.tier
    if list(tier.seeds) != kept["seeds"]:
        raise ConfigurationError(f"{path} is of seeds {kept['seeds']}, these are {list(tier.seeds)}")
    sentences = []
    if list(tier.words) != kept["words"]:
        sentences.append(f"words of the tier: {' '.join(tier.words)}, expected {' '.join(kept['words'])}")
    sentences += _other_options(kept["chosen"], _chosen(outcome.jobs))
    sentences += _other_figures(kept["figures"], _figures(outcome.tables))
    own = {_asked(verdict): verdict for verdict in _verdicts(outcome)}
    for asked in dict.fromkeys((*kept["claims"], *own)):
        said = _said(own[asked]) if asked in own else "is no claim of the suite"
        expected = kept["claims"].get(asked, "is no claim that was kept")
        if said != expected:
            told = f" ({own[asked].told})" if asked in own else ""
            sentences.append(f"the claim {asked} {said}{told}, expected: {expected}")
    return sentences


def _other_options(expected: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """Of methods that are on both sides; where one is missing, its figures are, too."""
    for data in (name for name in found if name in expected):
        for method, setting in found[data].items():
            kept = expected[data].get(method, setting)
            if setting != kept:
                yield f"{data}, {method}: options {' '.join(setting)}, expected {' '.join(kept)}"


def _other_figures(expected: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    for data in dict.fromkeys((*expected, *found)):
        own, others = found.get(data, {}), expected.get(data, {})
        for method in dict.fromkeys((*others, *own)):
            if method not in own or method not in others:
                yield f"{data}, {method}: {'missing' if method not in own else 'not expected'}"
                continue
            for metric in dict.fromkeys((*others[method], *own[method])):
                where = f"{data}, {method}, {metric}"
                if metric not in own[method] or metric not in others[method]:
                    yield f"{where}: {'missing' if metric not in own[method] else 'not expected'}"
                elif not _are_close(metric, own[method][metric], others[method][metric]):
                    yield f"{where}: {_shown(own[method][metric])}, expected {_shown(others[method][metric])}"


def _are_close(metric: str, own: Sequence[float], kept: Sequence[float]) -> bool:
    pairs = zip(own, kept, strict=True)  # a value a seed, of the same seeds
    return all(abs(one - other) <= ALLOWED * (abs(other) if metric in COSTS else 1.0) for one, other in pairs)


def _shown(by_seed: Sequence[float]) -> str:
    return " ".join(f"{value:.4f}" if abs(value) < 100 else f"{value:.0f}" for value in by_seed)


def _figures(tables: Sequence[Table]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """By table, method and metric, a value a seed; those of newcomers are tables, too."""
    return {
        table.data: {
            row.name: {metric: list(cell.estimate.by_seed) for metric, cell in row.cells.items()}
            for row in table.rows
        }
        for table in tables
    }


def _chosen(jobs: Sequence[Job]) -> dict[str, dict[str, list[str]]]:
    """Of methods with something to choose: the setting by data set."""
    chosen: dict[str, dict[str, list[str]]] = {}
    for job in jobs:
        if job.setting:
            chosen.setdefault(job.data, {})[job.method] = list(job.setting)
    return chosen


def _verdicts(outcome: Outcome) -> list[Verdict]:
    """On the claims of which the tier has the data set."""
    found = verdicts(outcome.suite.claims, outcome.tables, outcome.failures)
    return [verdict for verdict in found if verdict.claim.data.partition(",")[0] in outcome.tier.data]


def _asked(verdict: Verdict) -> str:
    claim = verdict.claim
    return f"{claim.claim!r} ({claim.data}: {claim.asked})"


def _said(verdict: Verdict) -> str:
    return {None: "was not tested", True: "holds", False: "does not hold"}[verdict.holds]
