"""What a run leaves behind, and how it is shown.

This room imports types, errors, seeds and NumPy; matplotlib, Jinja2 and Rich are imported where they are
used, so that writing a run directory costs none of them. It knows neither strategies nor evaluation:
``storage``, ``jsonl`` and ``lock`` keep files whole, ``rundir`` writes a run, ``runs`` reads one back, and
``console``, ``html`` and ``picture`` show only what can be read from such a directory. ``compare`` and
``sweep`` show many runs, from plain data alone.
"""

from __future__ import annotations

from fedpref.report.rundir import RunDirectory
from fedpref.report.runs import Run, list_runs, read_run

__all__ = ["Run", "RunDirectory", "list_runs", "read_run"]
