"""What the runs of a suite say: records for the tables, and the runs that failed, which are results too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fedpref.benchmarks.suite.declared import Suite
from fedpref.benchmarks.suite.job import Job
from fedpref.benchmarks.suite.metrics import COSTS, NEWCOMERS, SHOTS, newcomers_table
from fedpref.cli.compare import record_of
from fedpref.evaluation.compare import Table
from fedpref.evaluation.few_shot import curve_of
from fedpref.evaluation.records import Person, Record
from fedpref.report.runs import Run, read_run, status_of
from fedpref.report.storage import read_json
from fedpref.seeds import generator

__all__ = ["SHOTS", "Failure", "newcomers", "records_of", "score"]


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
    own; their ``k_star`` is the fewest pairs that surely beat what the suite's base serves them. What
    exchange costs is told of federated methods alone.
    """
    failures: list[Failure] = []
    finished: list[tuple[Job, Run]] = []
    for job, path in zip(jobs, paths, strict=True):
        run = read_run(path)
        if run.status.get("state") == "finished":
            finished.append((job, run))
        else:
            failures.append(Failure(job.data, job.method, job.seed, str(run.status.get("error"))))
    bases = {(job.data, job.seed): run for job, run in finished if job.method == suite.base}
    records: list[Record] = []
    for job, run in finished:
        target, base = suite.data[job.data].target, bases.get((job.data, job.seed))
        records.append(_record(job, run, target, base, suite.method(job.method).is_federated))
        records += _newcomers(job, run)
    return records, failures


def newcomers(compared: Sequence[Table]) -> dict[str, list[tuple[str, Table]]]:
    """Tables of newcomers by data set, each with the pairs that they show, in words."""
    found: dict[str, list[tuple[str, Table]]] = {}
    for table in compared:
        data, is_of_newcomers, shown = table.data.partition(NEWCOMERS)
        if is_of_newcomers:
            found.setdefault(data, []).append((shown, table))
    return found


def score(path: Path, metric: str) -> float | None:
    """A figure of a finished run; None of one that failed."""
    if status_of(path).get("state") != "finished":
        return None
    return float(read_json(path / "summary.json")[metric])


def _record(job: Job, run: Run, target: float | None, base: Run | None, is_federated: bool) -> Record:
    found = record_of(run, job.method, job.data)
    own = {name: number for name, number in found.numbers.items() if name != "k_star"}  # over its own model
    reached = {} if target is None else _to_target(run, target)
    numbers = {**own, **reached, **_k_star(run, base)}
    told = {name: number for name, number in numbers.items() if is_federated or name not in COSTS}
    return replace(found, numbers=told)


def _k_star(run: Run, base: Run | None) -> dict[str, float]:
    """The fewest pairs with which newcomers are surely better off than with the base; nothing if none are."""
    if base is None or not run.few_shot or not run.few_shot["resamples"] or not base.few_shot:
        return {}
    curve = run.few_shot
    plain = {one["name"]: one["reference"] for one in base.few_shot["people"]}
    names = [one["name"] for one in curve["people"]]
    found = curve_of(
        names,
        [point["shots"] for point in curve["points"]],
        np.array([one["accuracies"] for one in curve["people"]]).T,
        np.array([plain[name] for name in names]),
        curve["resamples"],
        generator(int(run.manifest["seed"]), "few_shot", "bootstrap"),
    )
    return {} if found.k_star is None else {"k_star": float(found.k_star)}


def _newcomers(job: Job, run: Run) -> list[Record]:
    if not run.few_shot:
        return []
    places = {point["shots"]: place for place, point in enumerate(run.few_shot["points"])}
    if not run.few_shot["resamples"]:  # nothing adapts the model: it serves them alike with any pairs
        places = dict.fromkeys(SHOTS, 0)
    # Who is unseen, and what they are asked, comes from the same draw as the rest.
    asked = str(run.summary.get("held_out_sha256", ""))
    found = []
    for shots in (shots for shots in SHOTS if shots in places):
        people = {one["name"]: Person(one["accuracies"][places[shots]], 1) for one in run.few_shot["people"]}
        data = newcomers_table(job.data, shots)
        found.append(Record(job.method, data, job.seed, people, asked=asked))
    return found


def _to_target(run: Run, target: float) -> dict[str, float]:
    """Virtual seconds and bytes until user accuracy reached the target; nothing where it never did."""
    for record in run.evaluations:
        if record["evaluation"]["user_accuracy"] >= target:
            moved = record["bytes_up"] + record["bytes_down"]
            return {"to_target_s": float(record["clock_s"]), "to_target_bytes": float(moved)}
    return {}
