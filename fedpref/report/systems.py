"""The section about devices: a timeline, how busy they were, how stale their answers, for what energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedpref.report.charts import Curve, curves_chart
from fedpref.report.devices import ClassRow, Job, busy_over_time, class_rows, jobs_of
from fedpref.report.histogram import histogram_chart
from fedpref.report.runs import Run
from fedpref.report.timeline import Wait, sample_clients, shown_until_s, timeline_chart
from fedpref.report.units import human_seconds, percent_tick, time_unit

__all__ = ["Systems", "systems_of"]

_INTERVALS = 48


@dataclass(frozen=True)
class Systems:
    """The section; a part that a run cannot have is empty.

    Attributes:
        classes: one row a device class that has clients.
        timeline: SVG, who worked when.
        shown: what of the run the timeline shows, a sentence.
        busy: SVG, utilisation of each class over time.
        staleness: SVG, how stale the accepted answers were.
        mean_staleness: of them, in versions.
        energy_j: in total, an estimate.
        waited: how often and how long nobody was online, a sentence.
    """

    classes: Sequence[ClassRow]
    timeline: str
    shown: str
    busy: str
    staleness: str
    mean_staleness: float
    energy_j: float
    waited: str


def systems_of(run: Run) -> Systems | None:
    """The section about the devices of a run; None if they are not known or took no time."""
    jobs = jobs_of(run)
    clock_s = float(run.metrics[-1]["clock_s"]) if run.metrics else 0.0
    span_s = max([clock_s, *(job.arrived_s for job in jobs)])
    if not jobs or span_s <= 0:
        return None
    classes = [row for row in class_rows(run, jobs, span_s) if row.clients]
    styles = {row.name: row.style for row in classes}
    accepted = [job for job in jobs if job.is_ok]
    waits = [
        Wait(event["until_s"] - event["waited_s"], event["until_s"])
        for event in run.events
        if event.get("kind") == "wait"
    ]
    timeline, shown = _timeline(run, jobs, styles, span_s, waits)
    return Systems(
        classes=classes,
        timeline=timeline,
        shown=shown,
        busy=_busy_chart(classes, jobs, span_s),
        staleness=_staleness_chart(accepted, styles),
        mean_staleness=sum(job.staleness for job in accepted) / max(len(accepted), 1),
        energy_j=sum(row.energy_j for row in classes),
        waited=_waited(waits),
    )


def _timeline(
    run: Run, jobs: Sequence[Job], styles: Mapping[str, str], span_s: float, waits: Sequence[Wait]
) -> tuple[str, str]:
    """The picture and the sentence about what it leaves out."""
    sample = sample_clients(jobs, list(styles))
    clients = {client for chosen in sample.values() for client in chosen}
    theirs = [job for job in jobs if job.client in clients]
    until_s = shown_until_s(theirs, span_s)
    updates_s = [float(record["clock_s"]) for record in run.metrics]
    chart = timeline_chart(theirs, sample, styles, until_s, updates_s, waits)
    num_active = len({job.client for job in jobs})
    if len(clients) < num_active:
        shown = f"{len(clients)} of the {num_active} clients that were given a task"
        shown += ": of each device class its busiest and some of the others"
    else:
        shown = "All clients that were given a task"
    shown += f"; the first {human_seconds(until_s)} of {human_seconds(span_s)}." if until_s < span_s else "."
    return chart, shown


def _busy_chart(classes: Sequence[ClassRow], jobs: Sequence[Job], span_s: float) -> str:
    second, unit = time_unit(span_s)
    edges_s = np.linspace(0.0, span_s, _INTERVALS + 1)
    middles = [float(middle) for middle in (edges_s[1:] + edges_s[:-1]) / 2 / second]
    curves = []
    for row in classes:
        theirs = [job for job in jobs if job.device == row.name]
        shares = [float(share) for share in busy_over_time(theirs, row.clients, edges_s)]
        curves.append(Curve(row.name, row.style, middles, shares))
    highest = max(max(curve.ys) for curve in curves)
    # The last interval lacks the tasks under way at the end: it is no value to read off.
    return curves_chart(
        curves,
        f"virtual time ({unit})",
        percent_tick,
        width=560,
        height=270,
        y_range=(0.0, min(1.08 * highest, 1.0) or 1.0),
        has_end_values=False,
    )


def _staleness_chart(accepted: Sequence[Job], styles: Mapping[str, str]) -> str:
    """Empty where every answer was fresh."""
    if not any(job.staleness for job in accepted):
        return ""
    values = {name: [job.staleness for job in accepted if job.device == name] for name in styles}
    return histogram_chart(values, styles, "staleness")


def _waited(waits: Sequence[Wait]) -> str:
    if not waits:
        return ""
    total = human_seconds(sum(wait.until_s - wait.from_s for wait in waits))
    times = f"Once, for {total}," if len(waits) == 1 else f"{len(waits)} times, for {total} in all,"
    return f"{times} nobody was online (shaded)."
