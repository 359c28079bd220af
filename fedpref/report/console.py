"""What the terminal says: one line a round, three lines at the end.

On a terminal the lines scroll above a live bar with the time left; elsewhere they are plain. ``NO_COLOR``
and ``TERM=dumb`` are respected (by Rich).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from fedpref.report.units import human_bytes, human_seconds

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

__all__ = ["RunConsole", "closing_lines", "eta_s", "round_line"]


def eta_s(record: Mapping[str, Any], rounds: int) -> float | None:
    """Wall time that the remaining rounds will take at the mean pace so far, in seconds.

    None in round 0, which is the evaluation before training, and at the end.
    """
    done = int(record["round"])
    return float(record["wall_s"]) / done * (rounds - done) if 0 < done < rounds else None


def round_line(record: Mapping[str, Any], rounds: int) -> str:
    """One line for a record of ``metrics.jsonl``; rounds count from 1, 0 is before training.

    ``round  3/20  acc 0.712 [0.695, 0.729]  clients 12 ok 0 failed  4.10 MB  virtual 6 min 02 s  eta 14 s``
    """
    done = int(record["round"])
    transferred = human_bytes(int(record["bytes_up"]) + int(record["bytes_down"]))
    parts = [
        f"round {done:>{len(str(rounds))}}/{rounds}",
        f"acc {accuracy(record.get('evaluation') or {}):<20}",
        f"clients {record['clients_ok']} ok {record['clients_failed']} failed",
        f"{transferred:>7}",
        f"virtual {human_seconds(float(record['clock_s']))}",
    ]
    left_s = eta_s(record, rounds)
    if left_s is not None:
        parts.append(f"eta {human_seconds(left_s)}")
    return "  ".join(parts)


def closing_lines(
    summary: Mapping[str, Any], rounds: int, report: str, adapters: str, follow_up: str
) -> tuple[str, str, str]:
    """The last three lines of a run: what was done, where it lies, what to do next.

    Args:
        summary: the final figures as in ``summary.json``.
        rounds: rounds that were asked for.
        report: path of the report.
        adapters: path of the saved adapters, or an empty string.
        follow_up: commands to try next.
    """
    failed = int(summary["replies_failed"])
    replies = int(summary["replies_ok"]) + failed
    transferred = human_bytes(int(summary["bytes_up"]) + int(summary["bytes_down"]))
    done = [
        "done",
        f"{summary['rounds']}/{rounds} rounds",
        f"pair accuracy {accuracy(summary)}",
        f"failed replies {failed}/{replies}",
        transferred,
        f"virtual {human_seconds(float(summary['virtual_s']))}",
        f"wall {human_seconds(float(summary['wall_s']))}",
    ]
    files = [f"adapters: {adapters}"] if adapters else []
    return "  ".join(done), "  ".join(["files", *files, f"report: {report}"]), f"next  {follow_up}"


def accuracy(evaluation: Mapping[str, Any]) -> str:
    """``0.712 [0.695, 0.729]``; without the interval or ``–`` where there is none."""
    if evaluation.get("pair_accuracy") is None:
        return "–"
    text = f"{evaluation['pair_accuracy']:.3f}"
    if evaluation.get("pair_accuracy_low") is None:
        return text
    return f"{text} [{evaluation['pair_accuracy_low']:.3f}, {evaluation['pair_accuracy_high']:.3f}]"


class RunConsole:
    """Shows a run while it goes; a context manager.

    Args:
        rounds: rounds that were asked for.
        file: where to write; standard output if None.
    """

    def __init__(self, rounds: int, file: IO[str] | None = None) -> None:
        from rich.console import Console

        class Patient(Console):
            def on_broken_pipe(self) -> None:
                """The reader of a pipe, such as head, has left; the run goes on without it."""
                self.quiet = True
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

        self._rounds = rounds
        self._console: Console = Patient(file=file, highlight=False, soft_wrap=True)
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (BarColumn(), TextColumn("{task.percentage:.0f} %"), TextColumn("{task.description}"))
            self._progress = Progress(*columns, console=self._console, transient=True)
            self._progress.add_task("", total=self._rounds)
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def round(self, record: Mapping[str, Any]) -> None:
        """Show one record of ``metrics.jsonl``."""
        failed = int(record["clients_failed"])
        self._print(round_line(record, self._rounds), style="yellow" if failed else "")
        if self._progress is not None:
            left_s = eta_s(record, self._rounds)
            words = "" if left_s is None else f"{human_seconds(left_s)} left"
            task = self._progress.task_ids[0]
            self._progress.update(task, completed=int(record["round"]), description=words)

    def say(self, line: str) -> None:
        """Show any other line."""
        self._print(line)

    def close_with(self, lines: tuple[str, ...]) -> None:
        """Show the last lines, the first word of each in bold."""
        for line in lines:
            word, rest = line[:5], line[5:]
            self._console.print(word, style="bold", end="", markup=False)
            self._print(rest)

    def _print(self, line: str, style: str = "") -> None:
        self._console.print(line, style=style, markup=False, crop=False, overflow="ignore", no_wrap=True)
