"""What the runs of a suite say: records for the tables, and the runs that failed, which are results too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedpref.benchmarks.suite.declared import Suite
from fedpref.cli.compare import record_of
from fedpref.evaluation.records import Person, Record
from fedpref.report.runs import Run, read_run
from fedpref.report.storage import read_json

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


def records_of(suite: Suite, paths: Sequence[Path]) -> tuple[list[Record], list[Failure]]:
    """Records of finished runs, and what became of the others; in the order of the paths.

    A run on unseen people gives further records, one a number of pairs that they show, as data sets of their
    own.
    """
    records: list[Record] = []
    failures: list[Failure] = []
    for path in paths:
        job, run = read_json(path / "job.json"), read_run(path)
        if run.status.get("state") != "finished":
            failures.append(Failure(job["data"], job["method"], job["seed"], str(run.status.get("error"))))
            continue
        records.append(_record(job, run, suite.data[job["data"]].target))
        records += _newcomers(job, run)
    return records, failures


def score(path: Path, metric: str) -> float | None:
    """A figure of a finished run; None of one that failed."""
    run = read_run(path)
    return float(run.summary[metric]) if run.status.get("state") == "finished" else None


def _record(job: Mapping[str, Any], run: Run, target: float | None) -> Record:
    found = record_of(run, job["method"], job["data"])
    return found if target is None else replace(found, numbers={**found.numbers, **_to_target(run, target)})


def _newcomers(job: Mapping[str, Any], run: Run) -> list[Record]:
    if not run.few_shot:
        return []
    found = []
    for place, point in enumerate(run.few_shot["points"]):
        if point["shots"] in SHOTS:
            people = {one["name"]: Person(one["accuracies"][place], 1) for one in run.few_shot["people"]}
            data = f"{job['data']}, newcomers with {point['shots']} pairs"
            found.append(Record(job["method"], data, job["seed"], people))
    return found


def _to_target(run: Run, target: float) -> dict[str, float]:
    """Virtual seconds and bytes until user accuracy reached the target; nothing where it never did."""
    for record in run.evaluations:
        if record["evaluation"]["user_accuracy"] >= target:
            moved = record["bytes_up"] + record["bytes_down"]
            return {"to_target_s": float(record["clock_s"]), "to_target_bytes": float(moved)}
    return {}
