"""What the devices did with their virtual time: who worked when, for how much of it, at what energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpref.report.runs import Run

__all__ = ["ClassRow", "Job", "busy_over_time", "class_rows", "jobs_of", "utilisation"]


@dataclass(frozen=True)
class Job:
    """One task as the log has it, from being sent to its end.

    Attributes:
        client: who.
        task: its number.
        device: the client's device class.
        code: "ok", or why there is no update.
        sent_s: moment on the virtual clock.
        arrived_s: when it ended for the server, by an answer or without one.
        staleness: versions between the two.
        parts_s: seconds of download, computing and upload; None for a task that was not answered.
        energy_j: estimate for the computing.
    """

    client: int
    task: int
    device: str
    code: str
    sent_s: float
    arrived_s: float
    staleness: int
    parts_s: tuple[float, float, float] | None
    energy_j: float

    @property
    def is_ok(self) -> bool:
        """True if its update was accepted."""
        return self.code == "ok"

    @property
    def busy_s(self) -> float:
        """Virtual seconds that it took."""
        return self.arrived_s - self.sent_s


@dataclass(frozen=True)
class ClassRow:
    """A device class in numbers; seconds are virtual, the energy is an estimate."""

    name: str
    style: str
    kind: str
    power_w: float
    clients: int
    jobs: int
    failed: int
    busy: float
    computing: float
    energy_j: float


def utilisation(busy_s: float, num_clients: int, span_s: float) -> float:
    """Share of the time for which clients held a task: ``busy_s / (num_clients * span_s)``.

    All clients count, those that are offline or were never asked too, so that classes can be compared.

    Args:
        busy_s: seconds between sending and end, summed over the tasks.
        num_clients: of the population or of a device class.
        span_s: virtual time of the run; 0 gives 0.
    """
    return busy_s / (num_clients * span_s) if num_clients and span_s > 0 else 0.0


def jobs_of(run: Run) -> list[Job]:
    """The tasks of a run whose fleet is known, as they ended; else nothing."""
    devices = run.fleet.get("devices")
    return [_job(record, devices[record["client"]]) for record in run.clients] if devices else []


def class_rows(run: Run, jobs: Sequence[Job], span_s: float) -> list[ClassRow]:
    """One row a device class."""
    return [
        _class_row(name, f"g{index % 8}", run.fleet, [job for job in jobs if job.device == name], span_s)
        for index, name in enumerate(run.fleet["classes"])
    ]


def busy_over_time(jobs: Sequence[Job], num_clients: int, edges_s: np.ndarray) -> np.ndarray:
    """Utilisation within each of the intervals between ``edges_s``, which ascend.

    The mean of the intervals, weighted by their lengths, is the utilisation of the whole.
    """
    worked_s = np.zeros_like(edges_s)
    # Seconds worked until t: those since each start before t, less those since each end before t.
    for sign, moments in ((1, [job.sent_s for job in jobs]), (-1, [job.arrived_s for job in jobs])):
        ordered = np.sort(np.asarray(moments, dtype=np.float64))
        sums = np.concatenate([[0.0], np.cumsum(ordered)])
        before = np.searchsorted(ordered, edges_s)
        worked_s += sign * (before * edges_s - sums[before])
    shares: np.ndarray = np.diff(worked_s) / (num_clients * np.diff(edges_s))
    return shares


def _job(record: Mapping[str, Any], device: str) -> Job:
    is_known = all(record.get(name) is not None for name in ("down_s", "compute_s", "up_s"))
    parts_s = (record["down_s"], record["compute_s"], record["up_s"]) if is_known else None
    return Job(
        client=int(record["client"]),
        task=int(record["task"]),
        device=device,
        code=str(record["code"]),
        sent_s=float(record["sent_s"]),
        arrived_s=float(record["arrived_s"]),
        staleness=int(record["staleness"]),
        parts_s=parts_s,
        energy_j=float(record.get("energy_j") or 0.0),
    )


def _class_row(
    name: str, style: str, fleet: Mapping[str, Any], jobs: Sequence[Job], span_s: float
) -> ClassRow:
    clients = int(fleet["clients"][name])
    computing_s = sum(job.parts_s[1] for job in jobs if job.parts_s is not None)
    return ClassRow(
        name=name,
        style=style,
        kind=str(fleet["classes"][name]["kind"]),
        power_w=float(fleet["classes"][name]["power_w"]),
        clients=clients,
        jobs=len(jobs),
        failed=sum(not job.is_ok for job in jobs),
        busy=utilisation(sum(job.busy_s for job in jobs), clients, span_s),
        computing=utilisation(computing_s, clients, span_s),
        energy_j=sum(job.energy_j for job in jobs),
    )
