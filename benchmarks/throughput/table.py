"""Results as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedpref.benchmarks.throughput.interleaved import Course, ratio

__all__ = ["as_json", "as_text", "markdown"]

REFERENCE = "cohort"


def as_json(courses: Mapping[str, Course], cohort_size: int) -> Mapping[str, Mapping[str, object]]:
    """Figures of each variant, by name: milliseconds a client update, of each round and their median."""
    return {
        name: {
            "ms": 1e3 * course.median_s / cohort_size,
            "rounds_ms": [1e3 * round_s / cohort_size for round_s in course.round_s],
            "times_cohort": ratio(course.round_s, courses[REFERENCE].round_s),
            "processor_ms": 1e3 * course.processor_s / cohort_size,
            "memory_mb": course.memory_mb,
        }
        for name, course in courses.items()
    }


def as_text(job: Mapping[str, Any]) -> str:
    """A job's figures, as Markdown."""
    text = [f"Weights of all variants agree to {max(job['gap'].values()):.0e}."]
    if job["apart_ms"]:
        parts = ", ".join(f"{name} {ms:.1f}" for name, ms in job["apart_ms"].items())
        text[0] += f" Apart, processor milliseconds a round with `cohort`: {parts}."
    for size in job["sizes"]:
        rows = [
            {
                "variant": name,
                "ms a client update": figure["ms"],
                "times cohort": figure["times_cohort"],
                "processor ms": figure["processor_ms"],
                "memory, MB": figure["memory_mb"],
            }
            for name, figure in size["variants"].items()
        ]
        text += [f"{size['clients']:,} clients ({size['conditions']}):", markdown(rows)]
    return "\n\n".join(text)


def markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """A table with the columns of the first row."""
    names = list(rows[0])
    lines = [names, ["---" if isinstance(rows[0][name], str) else "---:" for name in names]]
    lines += [[_cell(row.get(name, "")) for name in names] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
