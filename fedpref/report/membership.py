"""Who belongs to which group, over the rounds: a chart of bands that part where clients move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from fedpref.report.charts import ticks
from fedpref.report.svg import drawing, text

__all__ = ["Membership", "changes", "membership_chart"]

_LEFT, _RIGHT, _TOP, _HEIGHT, _BOTTOM = 16.0, 136.0, 10.0, 230.0, 44.0
_GAP, _BEND, _NODE, _TRUE_SPACE = 9.0, 46.0, 5.0, 170.0
_MOST_CHANGES = 24

Group = int | None
_Label = Callable[[Group], str]


@dataclass(frozen=True)
class Membership:
    """Group of every client after a round; None for a client that is in none."""

    round: int
    groups: Sequence[Group]


def changes(history: Sequence[Membership]) -> list[Membership]:
    """The first state and every later one that differs from the one before; at most 24, evenly chosen."""
    kept = [
        now
        for before, now in zip([None, *history], history, strict=False)
        if before is None or list(before.groups) != list(now.groups)
    ]
    if len(kept) <= _MOST_CHANGES:
        return kept
    stride = (len(kept) - 1) / (_MOST_CHANGES - 1)
    return [kept[round(index * stride)] for index in range(_MOST_CHANGES)]


def membership_chart(
    history: Sequence[Membership],
    names: Sequence[str],
    true_groups: Mapping[int, int] | None = None,
    width: float = 1060.0,
) -> str:
    """Bands as high as their groups; a client that moves bends from one band to another.

    Args:
        history: states in the order of their rounds, at least one.
        names: name of every group.
        true_groups: hidden group of the clients whose group is known: a last column shows who of each
            band belongs to which.
        width: in drawing units.
    """
    states = changes(history)
    last = history[-1].round
    x_high = width - _RIGHT - (_TRUE_SPACE if true_groups else 0.0)

    def x(round_: float) -> float:
        return _LEFT + round_ / max(last, 1) * (x_high - _LEFT)

    def label(group: Group) -> str:
        return "no group" if group is None else names[group]

    columns = [_Column.of(state.groups, len(names)) for state in states]
    places = [x(state.round) for state in states]
    body = []
    for index, (column, start) in enumerate(zip(columns, places, strict=True)):
        is_last = index == len(columns) - 1
        end = x(last) if is_last else places[index + 1]
        # One column may be both the first and the last; its bands then have a little width.
        end = max(end, start + 2 * _NODE)
        body += _ribbons(column, column if is_last else columns[index + 1], start, end, not is_last, label)
    for column, start in zip(columns, places, strict=True):
        body += [_node(start, *column.span(group), _style(group)) for group in column.order]
    final = columns[-1]
    if true_groups:
        true_column = _Column.of([true_groups.get(client) for client in range(len(final.groups))], 0)
        body += _ribbons(
            final,
            true_column,
            max(x(last), places[-1] + 2 * _NODE),
            width - _RIGHT,
            True,
            label,
            bend=_TRUE_SPACE,
        )
        body += [_node(width - _RIGHT, *true_column.span(group), "true") for group in true_column.order]
        body += _labels(true_column, width, lambda group: f"planted {group}" if group is not None else "?")
    else:
        body += _labels(final, width, label)
    bottom = _TOP + _HEIGHT + 10
    body.append(f'<line class="base" x1="{_LEFT}" x2="{x_high:.1f}" y1="{bottom}" y2="{bottom}"/>')
    if last > 0:
        whole = [tick for tick in ticks(0.0, float(last), 8) if tick == round(tick)]
        body += [text(x(tick), bottom + 18, f"{tick:g}", "tick middle") for tick in whole]
    body.append(text((_LEFT + x_high) / 2, bottom + 38, "round", "axis middle"))
    told = f"members of {len(names)} groups over {last} rounds"
    return drawing(body, width, _TOP + _HEIGHT + _BOTTOM + 8, told)


@dataclass(frozen=True)
class _Column:
    """Clients at one moment, stacked group by group; those without a group stand lowest."""

    groups: Sequence[Group]
    order: Sequence[Group]
    tops: Mapping[Group, float]
    unit: float

    @classmethod
    def of(cls, groups: Sequence[Group], num_groups: int) -> _Column:
        counts = Counter(groups)
        found = sorted({*range(num_groups), *(group for group in counts if group is not None)})
        order: list[Group] = [*found, *([None] if None in counts else [])]
        unit = (_HEIGHT - _GAP * (len(order) - 1)) / max(len(groups), 1)
        tops, y = {}, _TOP
        for group in order:
            tops[group] = y
            y += counts[group] * unit + _GAP
        return cls(groups, order, tops, unit)

    def span(self, group: Group) -> tuple[float, float]:
        """Upper and lower edge of a band."""
        top = self.tops[group]
        return top, top + self.unit * sum(other == group for other in self.groups)


def _ribbons(
    here: _Column,
    there: _Column,
    start: float,
    end: float,
    does_bend: bool,
    label: _Label,
    bend: float = _BEND,
) -> list[str]:
    """One ribbon for all clients that go the same way; level, then bent just before ``end``."""
    ways = Counter(zip(here.groups, there.groups, strict=True))
    from_y, to_y = dict(here.tops), dict(there.tops)
    drawn = []
    starts: dict[tuple[Group, Group], float] = {}
    for source in here.order:
        for target in there.order:
            starts[source, target] = from_y[source]
            from_y[source] += ways[source, target] * here.unit
    for target in there.order:
        for source in here.order:
            count = ways[source, target]
            if not count:
                continue
            y0, y1 = starts[source, target], to_y[target]
            to_y[target] += count * there.unit
            high0, high1 = count * here.unit, count * there.unit
            title = f"{label(source)}: {count} client{'s' if count > 1 else ''}"
            turn = end - min(bend, end - start) if does_bend else end
            drawn.append(
                f'<path class="flow {_style(source)}" d="{_ribbon(start, turn, end, y0, y1, high0, high1)}">'
                f"<title>{escape(title)}</title></path>"
            )
    return drawn


def _ribbon(start: float, turn: float, end: float, y0: float, y1: float, high0: float, high1: float) -> str:
    middle = (turn + end) / 2
    return (
        f"M{start:.1f},{y0:.1f}H{turn:.1f}C{middle:.1f},{y0:.1f} {middle:.1f},{y1:.1f} {end:.1f},{y1:.1f}"
        f"V{y1 + high1:.1f}C{middle:.1f},{y1 + high1:.1f} {middle:.1f},{y0 + high0:.1f} "
        f"{turn:.1f},{y0 + high0:.1f}H{start:.1f}Z"
    )


def _node(x: float, top: float, bottom: float, style: str) -> str:
    if bottom - top < 0.05:
        return ""
    return (
        f'<rect class="node {style}" x="{x:.1f}" y="{top:.1f}" width="{_NODE}" height="{bottom - top:.1f}"/>'
    )


def _labels(column: _Column, width: float, label: _Label) -> list[str]:
    texts = []
    lowest = 0.0
    for group in column.order:
        top, bottom = column.span(group)
        count = sum(other == group for other in column.groups)
        y = max((top + bottom) / 2 + 4, lowest)
        lowest = y + 15
        texts.append(text(width - _RIGHT + 14, y, f"{label(group)} · {count}", "tick"))
    return texts


def _style(group: Group) -> str:
    return "none" if group is None else f"g{group % 8}"
