"""Sections of BENCHMARKS.md, each written by the benchmark that measured it."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from fedpref.report.provenance import source_commit

__all__ = ["conditions", "granted_cores", "origin", "put_section", "this_command"]

_HEADING = "# Benchmarks\n\nEvery section was written by its command; compare within a section only.\n"


def conditions() -> str:
    """What the machine grants now: a figure without it says little."""
    all_, granted = os.cpu_count(), granted_cores()
    return f"{all_} cores, {granted} of them granted to this process, load {os.getloadavg()[0]:.1f}"


def granted_cores() -> int:
    """Cores that this process may use; all of them where the system grants none singly, as macOS."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def origin() -> str:
    """The source code that is run."""
    commit = source_commit()
    if commit is None:
        return "an installed package"
    return f"commit {commit['commit'][:10]}" + (" with changes" if commit["is_changed"] else "")


def this_command(module: str) -> list[str]:
    """How a module was started, but for the files that it writes."""
    words = [word for word in sys.argv[1:] if not word.startswith(("json=", "table="))]
    return ["python", "-m", module, *words]


def put_section(file: Path, title: str, command: Sequence[str], text: str) -> None:
    """Write a section, in place of the one with this title, if there is one.

    Args:
        file: made if absent.
        title: of the section.
        command: that measured it.
        text: Markdown without headings of the first two levels.
    """
    before = file.read_text(encoding="utf-8") if file.exists() else _HEADING
    section = f"## {title}\n\n    {shlex.join(command)}\n\n{text.strip()}\n"
    parts = [part for part in re.split(r"(?m)^(?=## )", before) if not part.startswith(f"## {title}\n")]
    file.write_text("\n".join(part.strip() + "\n" for part in (*parts, section)), encoding="utf-8")
