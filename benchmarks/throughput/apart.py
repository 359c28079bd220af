"""What a run does besides training: its log, evaluations and checkpoints, in processor time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from fedpref.benchmarks.throughput.job import Job, Size
from fedpref.benchmarks.throughput.ours import federation
from fedpref.federation.federation import Federation
from fedpref.report.rundir import RunDirectory
from fedpref.simulation.cohort import Cohort

__all__ = ["apart"]

_REPEATS = 3


def apart(job: Job, size: Size) -> Mapping[str, float]:
    """Processor milliseconds that each adds to a round; waits for the disk are not among them.

    Every second round is evaluated, or saved, and compared with the round before it; the log is the median
    round of runs with it less that of runs without, in turn. The evaluation asks one person about 64 pairs.
    """
    never = federation(job, size, Cohort())
    _rounds_ms(never, is_logged=False)  # what is computed once
    runs = [_rounds_ms(never, is_logged) for _ in range(_REPEATS) for is_logged in (False, True)]
    with_log, without = (min(median(run) for run in runs[start::2]) for start in (1, 0))
    evaluated = _rounds_ms(replace(never, evaluate_every=2), is_logged=True)
    saved = _rounds_ms(replace(never, checkpoint_every=2), is_logged=True)
    return {
        "log": with_log - without,
        "evaluation": -_gain(evaluated[1:]),  # rounds 2, 4, … of the run
        "checkpoint": -_gain(saved[2:]),  # after rounds 2, 4, …, so it ends with 3, 5, …
    }


def _gain(rounds_ms: Sequence[float]) -> float:
    """How much shorter the second, fourth, … rounds are than those just before them."""
    return median(second - first for first, second in zip(rounds_ms[::2], rounds_ms[1::2], strict=False))


def _rounds_ms(whole: Federation, is_logged: bool) -> list[float]:
    """Processor milliseconds of each round but the last, which is evaluated and saved always."""
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        with _directory(Path(folder)) if is_logged else nullcontext() as directory:
            whole.run(directory, lambda record: ends.append(1e3 * time.process_time()))
    return [end - begin for begin, end in pairwise(ends[:-1])]


def _directory(folder: Path) -> RunDirectory:
    return RunDirectory.create(
        folder, "apart", config="{}", overrides="[]", config_hash="0" * 64, seed=0, command=["throughput"]
    )
