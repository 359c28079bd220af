"""Who worked when: a Gantt picture of a sample of clients, a row a client, by device class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from fedpref.report.charts import ticks
from fedpref.report.devices import Job
from fedpref.report.svg import drawing, text
from fedpref.report.units import human_seconds, time_unit

__all__ = ["Wait", "sample_clients", "shown_until_s", "timeline_chart"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 92.0, 22.0, 8.0, 46.0
_ROW, _BAR, _HEADING = 15.0, 9.0, 26.0
_MOST_CLIENTS, _MOST_BARS, _MOST_UPDATES = 24, 600, 80
_LEAST_WIDTH = 0.6


@dataclass(frozen=True)
class Wait:
    """A time in which the server waited for somebody to come online, in virtual seconds."""

    from_s: float
    until_s: float


def sample_clients(jobs: Sequence[Job], classes: Sequence[str]) -> dict[str, list[int]]:
    """At most 24 clients that had a task, equally many of each class as far as there are.

    Half of them are the busiest of their class, the others are evenly chosen from the rest; the one that
    worked least is among them. Each list ascends.
    """
    sample: dict[str, list[int]] = {}
    busy_s: dict[str, dict[int, float]] = {name: {} for name in classes}
    for job in jobs:
        of_class = busy_s[job.device]
        of_class[job.client] = of_class.get(job.client, 0.0) + job.busy_s
    room = _MOST_CLIENTS
    # Small classes first: what they leave is for the others.
    by_size = sorted((name for name in classes if busy_s[name]), key=lambda name: len(busy_s[name]))
    for index, name in enumerate(by_size):
        count = min(room // (len(by_size) - index), len(busy_s[name]))
        room -= count
        ranked = sorted(busy_s[name], key=lambda client: (-busy_s[name][client], client))
        sample[name] = sorted(_half_from_the_top(ranked, count))
    return {name: sample[name] for name in classes if sample.get(name)}


def shown_until_s(jobs: Sequence[Job], span_s: float) -> float:
    """End of the longest window from 0 in which at most 600 of ``jobs`` begin."""
    starts = sorted(job.sent_s for job in jobs)
    if len(starts) <= _MOST_BARS:
        return span_s
    return next((start for start in reversed(starts[: _MOST_BARS + 1]) if start > 0), span_s)


def timeline_chart(
    jobs: Sequence[Job],
    sample: Mapping[str, Sequence[int]],
    styles: Mapping[str, str],
    until_s: float,
    updates_s: Sequence[float] = (),
    waits: Sequence[Wait] = (),
    width: float = 1060.0,
) -> str:
    """Bars from sending to end, split in download, computing and upload; a hollow one failed.

    Args:
        jobs: of the clients in ``sample``, others are left out.
        sample: clients of each class, in drawing order.
        styles: CSS class of each device class.
        until_s: end of the axis, positive; a bar that goes on is cut there.
        updates_s: when the models changed; drawn as fine lines if they are few.
        waits: drawn as shaded bands.
        width: in drawing units.
    """
    tops, headings, bottom = _rows(sample)
    second, unit = time_unit(until_s)

    def x(moment_s: float) -> float:
        return _LEFT + min(max(moment_s, 0.0), until_s) / until_s * (width - _LEFT - _RIGHT)

    body = []
    for wait in waits:
        if wait.from_s < until_s:
            wide = x(wait.until_s) - x(wait.from_s)
            body.append(
                f'<rect class="wait" x="{x(wait.from_s):.1f}" y="{_TOP}" width="{wide:.1f}" '
                f'height="{bottom - _TOP:.1f}"><title>nobody was online</title></rect>'
            )
    inside = [moment_s for moment_s in updates_s if 0 < moment_s <= until_s]
    if len(inside) <= _MOST_UPDATES:
        body += [_vertical(x(moment_s), bottom) for moment_s in inside]
    for name, y in headings.items():
        body.append(f'<rect class="{styles[name]}" x="2" y="{y - 9:.1f}" width="9" height="9" rx="2"/>')
        body.append(text(17, y, name, "axis"))
    for client, top in tops.items():
        body.append(text(_LEFT - 8, top + _BAR, f"client {client}", "tick small end"))
        line_y = top + _BAR + 3
        body.append(
            f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{line_y:.1f}" y2="{line_y:.1f}"/>'
        )
    for job in jobs:
        if job.client in tops and job.sent_s < until_s:
            body.append(_bar(job, styles[job.device], tops[job.client], x, until_s))
    body.append(f'<line class="base" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    for tick in ticks(0.0, until_s / second, 8):
        body.append(text(x(tick * second), bottom + 18, f"{tick:g}", "tick middle"))
    body.append(text((_LEFT + width - _RIGHT) / 2, bottom + 38, f"virtual time ({unit})", "axis middle"))
    return drawing(body, width, bottom + _BOTTOM, f"tasks of {len(tops)} clients over virtual time")


def _half_from_the_top(ranked: Sequence[int], count: int) -> list[int]:
    top = (count + 1) // 2
    rest, others = ranked[top:], count - top
    if not others:
        return list(ranked[:top])
    stride = len(rest) / others
    return [*ranked[:top], *(rest[round((index + 1) * stride) - 1] for index in range(others))]


def _rows(sample: Mapping[str, Sequence[int]]) -> tuple[dict[int, float], dict[str, float], float]:
    """Upper edge of each client's bars, base line of each class's heading, and the bottom of all."""
    tops: dict[int, float] = {}
    headings: dict[str, float] = {}
    y = _TOP
    for name, clients in sample.items():
        headings[name] = y + _HEADING - 9
        y += _HEADING
        for client in clients:
            tops[client] = y
            y += _ROW
    return tops, headings, y + 4


def _bar(job: Job, style: str, top: float, x: Callable[[float], float], until_s: float) -> str:
    time = f"{human_seconds(job.sent_s)} to {human_seconds(job.arrived_s)}"
    told = f"client {job.client}, task {job.task}: {time}, {job.code}, staleness {job.staleness}"
    parts = []
    if job.is_ok and job.parts_s is not None:
        moment_s = job.sent_s
        for name, part_s in zip(("down", "compute", "up"), job.parts_s, strict=True):
            parts.append(_rect(f"job {name}", style, x(moment_s), x(moment_s + part_s), top))
            moment_s += part_s
    else:
        parts.append(_rect("job failed", style, x(job.sent_s), x(job.arrived_s), top))
        if job.arrived_s <= until_s:
            parts.append(_cross(x(job.arrived_s), top))
    return f"<g><title>{escape(told)}</title>{''.join(parts)}</g>"


def _cross(right: float, top: float) -> str:
    left, low, high = right - 6, top + 1.5, top + _BAR - 1.5
    path = f"M{left:.1f},{low}L{right:.1f},{high}M{left:.1f},{high}L{right:.1f},{low}"
    return f'<path class="cross" d="{path}"/>'


def _rect(part: str, style: str, left: float, right: float, top: float) -> str:
    wide = max(right - left, _LEAST_WIDTH)
    return f'<rect class="{part} {style}" x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{_BAR:g}"/>'


def _vertical(x: float, bottom: float) -> str:
    return f'<line class="update" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom:.1f}"/>'
