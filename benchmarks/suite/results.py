"""What the runs of a suite say: records for the tables, and the runs that failed, which are results too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedpref.benchmarks.suite.declared import Suite
from fedpref.benchmarks.suite.job import Job
from fedpref.cli.compare import record_of
from fedpref.evaluation.records import Person, Record
from fedpref.report.runs import Run, read_run

__all__ = ["Failure", "records_of", "score"]

SHOTS = (0, 1, 5, 20, 100)
"""Pairs shown by newcomers, of which the tables tell."""


@dataclass(frozen=True)
class Failure:
    """A run that ended with an error."""

    data: str
    method: str
    seed: int
    error: str


def records_of(
    suite: Suite, jobs: Sequence[Job], paths: Sequence[Path]
) -> tuple[list[Record], list[Failure]]:
    """Records of finished runs, and what became of the others; in the order of the jobs.

    Names are those of the jobs: a directory may be older than a name, and two jobs may share one.

    A run on unseen people gives further records, one a number of pairs that they show, as data sets of their
    own.
    """
    records: list[Record] = []
    failures: list[Failure] = []
    for job, path in zip(jobs, paths, strict=True):
        run = read_run(path)
        if run.status.get("state") != "finished":
            failures.append(Failure(job.data, job.method, job.seed, str(run.status.get("error"))))
            continue
        records.append(_record(job, run, suite.data[job.data].target))
        records += _newcomers(job, run)
    return records, failures


def score(path: Path, metric: str) -> float | None:
    """A figure of a finished run; None of one that failed."""
    run = read_run(path)
    return float(run.summary[metric]) if run.status.get("state") == "finished" else None


def _record(job: Job, run: Run, target: float | None) -> Record:
    found = record_of(run, job.method, job.data)
    return found if target is None else replace(found, numbers={**found.numbers, **_to_target(run, target)})


def _newcomers(job: Job, run: Run) -> list[Record]:
    if not run.few_shot:
        return []
    found = []
    for place, point in enumerate(run.few_shot["points"]):
        if point["shots"] in SHOTS:
            people = {one["name"]: Person(one["accuracies"][place], 1) for one in run.few_shot["people"]}
            pairs = "1 pair" if point["shots"] == 1 else f"{point['shots']} pairs"
            data = f"{job.data}, newcomers with {pairs}"
            # Who is unseen, and what they are asked, comes from the same draw as the rest.
            asked = str(run.summary.get("held_out_sha256", ""))
            found.append(Record(job.method, data, job.seed, people, asked=asked))
    return found


def _to_target(run: Run, target: float) -> dict[str, float]:
    """Virtual seconds and bytes until user accuracy reached the target; nothing where it never did."""
    for record in run.evaluations:
        if record["evaluation"]["user_accuracy"] >= target:
            moved = record["bytes_up"] + record["bytes_down"]
            return {"to_target_s": float(record["clock_s"]), "to_target_bytes": float(moved)}
    return {}
