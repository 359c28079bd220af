"""The figures that a suite is expected to give, kept with where they come from; a change needs a reason."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpref.benchmarks.suite.declared import Suite, Tier
from fedpref.errors import ConfigurationError
from fedpref.evaluation.compare import Table
from fedpref.report.provenance import source_commit, versions

__all__ = ["ALLOWED", "deviations", "expected_path", "keep", "require"]

ALLOWED = 0.005
"""How far an accuracy may be from what is kept: other processors round in another way."""

_METRIC = "user_accuracy"
_FOLDER = Path(__file__).parent.parent / "expected"


def expected_path(suite: Suite, tier: Tier) -> Path:
    """Where the figures of a tier are kept; those of a suite of one's own lie beside it."""
    folder = _FOLDER if suite.path is None else suite.path.parent / "expected"
    return folder / f"{suite.name}-{tier.name}.json"


def keep(path: Path, suite: Suite, tier: Tier, tables: Sequence[Table], reason: str) -> None:
    """Write the figures down.

    Args:
        path: of the file.
        suite: what was run.
        tier: of it.
        tables: what came out.
        reason: why they are new.

    Raises:
        ConfigurationError: no reason is given.
    """
    if not reason.strip():
        raise ConfigurationError("--expect needs a reason why the figures change, in words")
    content = {
        "suite": suite.name,
        "tier": tier.name,
        "seeds": list(tier.seeds),
        "reason": reason,
        "source": source_commit(),
        "versions": versions(),
        "figures": _figures(tables),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def require(path: Path) -> None:
    """Raise ConfigurationError if nothing is kept."""
    if not path.is_file():
        raise ConfigurationError(f"{path} is absent: nothing is expected of this tier yet; add --expect WHY")


def deviations(path: Path, tables: Sequence[Table]) -> list[str]:
    """What differs from the figures that are kept, a sentence each.

    Raises:
        ConfigurationError: none are kept, or they are of other seeds.
    """
    require(path)
    kept = json.loads(path.read_text(encoding="utf-8"))
    expected: Mapping[str, Mapping[str, float]] = kept["figures"]
    for table in tables:
        if list(table.seeds) != kept["seeds"]:
            raise ConfigurationError(f"{path} is of seeds {kept['seeds']}, these are {list(table.seeds)}")
    found, sentences = _figures(tables), []
    for data in dict.fromkeys((*expected, *found)):
        own, others = found.get(data, {}), expected.get(data, {})
        for method in dict.fromkeys((*others, *own)):
            if method not in own or method not in others:
                where = "missing" if method not in own else "not expected"
                sentences.append(f"{data}, {method}: {where}")
            elif not abs(own[method] - others[method]) <= ALLOWED:
                sentences.append(f"{data}, {method}: {own[method]:.4f}, expected {others[method]:.4f}")
    return sentences


def _figures(tables: Sequence[Table]) -> dict[str, dict[str, Any]]:
    return {
        table.data: {row.name: row.cells[_METRIC].estimate.mean for row in table.rows if _METRIC in row.cells}
        for table in tables
    }
