"""``fedpref runs``: what the run directories say of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["details", "details_text", "list_text", "rows"]


def rows(out: Path) -> list[dict[str, Any]]:
    """One row a run below ``out``, newest first."""
    from fedpref.report.runs import list_runs

    return [run.as_row() for run in reversed(list_runs(out))]


def list_text(table: Sequence[Mapping[str, Any]]) -> str:
    """The rows as an aligned table."""
    if not table:
        return "no runs here; start one with: fedpref run"
    columns = list(table[0])
    cells = [[_cell(row[column]) for column in columns] for row in table]
    widths = [max(len(line[i]) for line in [columns, *cells]) for i in range(len(columns))]
    lines = [columns, *cells]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def details(directory: Path) -> dict[str, Any]:
    """Status, summary and evaluations of one run.

    Raises:
        StorageError: it is no run directory.
    """
    from fedpref.report.runs import read_run

    run = read_run(directory)
    return {
        **run.as_row(),
        "status": dict(run.status),
        "summary": dict(run.summary),
        "notes": list(run.notes),
        "evaluations": [
            {"round": record["round"], "clock_s": record["clock_s"], **record["evaluation"]}
            for record in run.evaluations
        ],
    }


def details_text(run: Mapping[str, Any]) -> str:
    """Key numbers as lines, then the learning curve."""
    lines = [f"{key}: {_cell(value)}" for key, value in run.items() if not isinstance(value, (Mapping, list))]
    lines += [f"  {key}: {_cell(value)}" for key, value in run["summary"].items()]
    lines += [f"  note: {note}" for note in run["notes"]]
    lines += [
        f"  round {record['round']:>4}  pair accuracy {record['pair_accuracy']:.3f}  "
        f"loss {record['loss']:.3f} nats"
        for record in run["evaluations"]
    ]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
