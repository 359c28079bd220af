"""Comparisons as tables: for a terminal, for Markdown, for LaTeX. Made from the JSON of a comparison alone.

For each chosen metric there are its value and the difference to the first row, with intervals; then, in one
column each, the usual figures that were not chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedpref.report.units import human_bytes, human_joules, human_seconds

__all__ = ["FORMATS", "as_markdown", "as_table", "as_tex"]

_USUAL = (
    "user_accuracy",
    "pair_accuracy",
    "worst_decile",
    "worst_group",
    "bytes_up",
    "bytes_down",
    "virtual_s",
)
_TITLES = {
    "bytes_up": "up",
    "bytes_down": "down",
    "virtual_s": "virtual time",
    "wall_s": "wall time",
    "k_star": "k*",
}
_NONE = "-"
_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # At the start of a row LaTeX would take them for arguments of the line break before it.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    # Two in a row would become a dash.
    "-": "{-}",
}
_MARKDOWN = frozenset("\\`*_[]<>|~$&")


@dataclass(frozen=True)
class _Line:
    """Cells of a row, the name first; ``best`` are the places of those that are ahead of all others."""

    cells: Sequence[str]
    best: frozenset[int] = frozenset()


@dataclass(frozen=True)
class _Body:
    """What all formats show."""

    heading: Sequence[str]
    lines: Sequence[_Line]
    notes: Sequence[str]


def as_table(comparison: Mapping[str, Any], chosen: Sequence[str], by_seed: bool = False) -> str:
    """Aligned columns; the best of a column has a star.

    Args:
        comparison: as of ``fedpref.evaluation.compare.Table.as_json``.
        chosen: metrics to show with intervals and differences.
        by_seed: also one line a seed.
    """
    body = _body(comparison, chosen, by_seed, "A star")
    lines = [
        [_printable(text) + ("*" if place in line.best else "") for place, text in enumerate(line.cells)]
        for line in (_Line(body.heading), *body.lines)
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([*(line.rstrip() for line in shown), "", *map(_printable, body.notes)])


def as_markdown(comparison: Mapping[str, Any], chosen: Sequence[str], by_seed: bool = False) -> str:
    """A table of GitHub's Markdown, the best of a column in bold; arguments as for ``as_table``."""
    body = _body(comparison, chosen, by_seed, "Bold")
    rows = [[_markdown(title) for title in body.heading], ["---", *["---:"] * (len(body.heading) - 1)]]
    for line in body.lines:
        name, *figures = line.cells
        bold = [f"**{text}**" if place in line.best else text for place, text in enumerate(figures, start=1)]
        rows.append([_markdown(name).strip(), *bold])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, *(f"\n{_markdown(note)}" for note in body.notes)])


def as_tex(comparison: Mapping[str, Any], chosen: Sequence[str], by_seed: bool = False) -> str:
    """A ``tabular`` that needs no package, and a paragraph of notes; arguments as for ``as_table``."""
    body = _body(comparison, chosen, by_seed, "Bold")
    rows = [" & ".join(map(_tex, body.heading)) + r" \\"]
    for line in body.lines:
        name, *figures = line.cells
        bold = [
            rf"\textbf{{{_tex_figure(text)}}}" if place in line.best else _tex_figure(text)
            for place, text in enumerate(figures, start=1)
        ]
        rows.append(" & ".join([_tex(name).strip(), *bold]) + r" \\")
    notes = " ".join(_tex(note) for note in body.notes)
    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'r' * (len(body.heading) - 1)}}}",
            r"\hline",
            rows[0],
            r"\hline",
            *rows[1:],
            r"\hline",
            r"\end{tabular}",
            "",
            rf"{{\footnotesize {notes}\par}}",
        ]
    )


FORMATS: Mapping[str, Callable[[Mapping[str, Any], Sequence[str], bool], str]] = {
    "table": as_table,
    "md": as_markdown,
    "tex": as_tex,
}
"""The functions of this module by the name of their format."""


def _body(comparison: Mapping[str, Any], chosen: Sequence[str], by_seed: bool, mark: str) -> _Body:
    rows, seeds = comparison["rows"], comparison["seeds"]
    usual = [name for name in _USUAL if name not in chosen and any(name in row["metrics"] for row in rows)]
    has_differences = len(rows) > 1
    heading = [""]
    for metric in chosen:
        heading += [_title(metric), "difference"] if has_differences else [_title(metric)]
    lines = []
    for row in rows:
        line = _line(row, chosen, usual, has_differences)
        lines.append(line)
        if by_seed:
            lines += [
                _Line((f"  seed {seed}", *_of_seed(row, place, chosen, usual, has_differences)))
                for place, seed in enumerate(seeds)
            ]
    told = f"{mark}: ahead of each other row in every seed, by an interval above 0."
    has_best = any(line.best for line in lines)
    notes = [_legend(comparison, chosen), *([told] if has_best else []), *comparison["notes"]]
    return _Body([*heading, *map(_title, usual)], lines, notes)


def _line(
    row: Mapping[str, Any], chosen: Sequence[str], usual: Sequence[str], has_differences: bool
) -> _Line:
    cells, best = [str(row["name"])], set()
    for metric in chosen:
        cell = row["metrics"].get(metric)
        if cell is not None and cell["is_best"]:
            best.add(len(cells))
        cells.append(_NONE if cell is None else _estimate(metric, cell, cell["over"], _value))
        if has_differences:
            difference = cell and cell["difference"]
            cells.append(_estimate(metric, difference, cell["over"], _signed) if difference else _NONE)
    for metric in usual:
        cell = row["metrics"].get(metric)
        cells.append(_NONE if cell is None else _value(metric, cell["mean"]))
    return _Line(cells, frozenset(best))


def _of_seed(
    row: Mapping[str, Any], place: int, chosen: Sequence[str], usual: Sequence[str], has_differences: bool
) -> Iterator[str]:
    for metric in (*chosen, *usual):
        cell = row["metrics"].get(metric)
        yield _NONE if cell is None else _value(metric, cell["by_seed"][place])
        if has_differences and metric in chosen:
            difference = cell and cell["difference"]
            yield _signed(metric, difference["by_seed"][place]) if difference else _NONE


def _legend(comparison: Mapping[str, Any], chosen: Sequence[str]) -> str:
    """What was compared, and what the intervals are."""
    rows, seeds = comparison["rows"], comparison["seeds"]
    cells = [row["metrics"][metric] for row in rows for metric in chosen if metric in row["metrics"]]
    numbers = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    people = comparison["num_people"]
    told = f"{people} {'person' if people == 1 else 'people'}, {numbers}."
    if any(cell["over"] == "people" and cell["low"] is not None for cell in cells):
        told += " Intervals of accuracies: 95 %, from drawing people anew, with these seeds."
    if len(seeds) > 1 and any(cell["over"] == "seeds" for cell in cells):
        told += " Of other figures: from the least to the most of the seeds."
    if len(rows) > 1:
        told += f" Differences are to {comparison['base']}, on the same pairs."
    return told


# ----------------------------------------------------------------------------------------------- cells


def _title(metric: str) -> str:
    return _TITLES.get(metric, metric.replace("_", " "))


def _estimate(metric: str, estimate: Mapping[str, Any], over: str, shown: Callable[[str, float], str]) -> str:
    text = shown(metric, estimate["mean"])
    if estimate["low"] is None:
        return text
    low, high = shown(metric, estimate["low"]), shown(metric, estimate["high"])
    return text if over == "seeds" and low == high else f"{text} [{low}, {high}]"


def _value(metric: str, value: float) -> str:
    for is_of_it, shown in (
        (metric.endswith("_s"), human_seconds),
        (metric.endswith("_j"), human_joules),
        (metric == "k_star", "{:.3g}".format),  # pairs, which are whole in a single run
        ("bytes" in metric, human_bytes),
    ):
        if is_of_it:
            return shown(value) if value >= 0 else f"-{shown(-value)}"
    return f"{value:.4g}" if abs(value) >= 10 else f"{value:.3f}"


def _signed(metric: str, value: float) -> str:
    """With its sign; what rounds to nothing has none."""
    text = _value(metric, value)
    if not any(digit in text for digit in "123456789"):
        return text.removeprefix("-")
    return text if text.startswith("-") else f"+{text}"


# ------------------------------------------------------------------------------------------- escaping


def _printable(text: str) -> str:
    """Without control characters, which a terminal would obey."""
    return "".join(char if char.isprintable() else " " for char in text)


def _markdown(text: str) -> str:
    return "".join(f"\\{char}" if char in _MARKDOWN else char for char in _printable(text))


def _tex(text: str) -> str:
    return "".join(_TEX.get(char, char) for char in _printable(text))


def _tex_figure(text: str) -> str:
    """A figure with a true minus, or a dash for none."""
    return "--" if text == _NONE else text.replace("-", "$-$")
