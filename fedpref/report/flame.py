"""Where the time of a run went: phases as a table, and a flame-like picture of who called whom.

Both are made of samples: stacks of functions, outermost first, and how often each was seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from fedpref.report.svg import drawing, text

__all__ = ["PHASES", "Frame", "flame_page", "is_in", "phase_of", "phase_table"]

Frame = str
"""A function as ``module:name``, such as ``fedpref.strategies.fedavg:fold``."""

PHASES = {
    "data": "rows, partition, population",
    "features": "what frozen backbones give, kept for the run",
    "compute": "client rules at work",
    "transport": "messages, validation, devices and links",
    "aggregation": "the strategy's plans and folds",
    "evaluation": "held-out pairs",
    "checkpoint": "states to disk",
    "report": "logs, console and the report",
    "start": "imports, configuration and all else",
}

# The outermost frame of these rooms decides, since an evaluation computes and a fold calls mathematics …
_DECIDED_BY_ROOM = {
    "fedpref.data": "data",
    "fedpref.evaluation": "evaluation",
    "fedpref.report": "report",
    "fedpref.strategies": "aggregation",
    "fedpref.clients": "compute",
}
# … but for functions that are named for what they do.
_DECIDED_BY_NAME = {"warm": "features", "_save": "checkpoint", "_restore": "checkpoint"}
_TRANSPORT = ("fedpref.flower", "fedpref.simulation")

_WIDTH, _ROW, _LEAST_SHARE = 1200.0, 18.0, 0.002


def phase_of(stack: Sequence[Frame], rule: str = "", strategy: str = "") -> str:
    """Which of ``PHASES`` a stack belongs to.

    Args:
        stack: outermost first.
        rule: module or package of the client rule, where it is a plug-in.
        strategy: module or package of the strategy, where it is a plug-in.
    """
    decided = {**_DECIDED_BY_ROOM, rule: "compute", strategy: "aggregation"}
    is_transport = False
    if any(frame.endswith(":<module>") for frame in stack):  # an import
        return "start"
    for frame in stack:
        module, _, name = frame.partition(":")
        if name in _DECIDED_BY_NAME and module.startswith("fedpref."):
            return _DECIDED_BY_NAME[name]
        for room, phase in decided.items():
            if is_in(module, room):
                return phase
        is_transport = is_transport or module.startswith(_TRANSPORT)
    return "transport" if is_transport else "start"


def is_in(module: str, package: str) -> bool:
    """True for the package itself and for modules below it."""
    return module == package or module.startswith(package + ".")


def phase_table(seconds: Mapping[str, float], rounds: int) -> str:
    """Seconds of every phase, 0 where none are given, its share, and ms a round; the largest first."""
    total, seconds = sum(seconds.values()), {phase: seconds.get(phase, 0.0) for phase in PHASES}
    lines = [f"{'phase':<12} {'seconds':>9} {'share':>7} {'ms a round':>11}"]
    for phase, value in sorted(seconds.items(), key=lambda item: -item[1]):
        share = value / total if total > 0 else 0.0
        a_round = "-" if phase in ("start", "data", "features") else f"{1000 * value / max(rounds, 1):.1f}"
        lines.append(f"{phase:<12} {value:9.2f} {share:7.1%} {a_round:>11}  {PHASES[phase]}")
    lines.append(f"{'all':<12} {total:9.2f}")
    return "\n".join(lines)


@dataclass
class _Node:
    """A function below its callers, with the samples that it was seen in."""

    count: int = 0
    phases: dict[str, int] = field(default_factory=dict)
    below: dict[Frame, _Node] = field(default_factory=dict)

    @property
    def phase(self) -> str:
        """The phase of most of its samples."""
        return max(self.phases, key=lambda phase: self.phases[phase])


def flame_page(samples: Mapping[tuple[Frame, ...], int], phases: Mapping[tuple[Frame, ...], str]) -> str:
    """A page with the picture: callers above, what they call below, as wide as it took time.

    Args:
        samples: how often each stack was seen.
        phases: of each stack.
    """
    root, depth = _tree(samples, phases), max((len(stack) for stack in samples), default=0)
    height = _ROW * (depth + 1)
    body = _boxes("all", root, 0.0, _WIDTH, 0, max(root.count, 1))
    used = [phase for phase in PHASES if phase in set(phases.values())]
    legend = "".join(f'<li class="{phase}">{phase}: {escape(PHASES[phase])}</li>' for phase in used)
    picture = drawing(body, _WIDTH, height, "Time of the run by function, callers above")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>fedpref profile</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>Where the time went</h1><ul>{legend}</ul><div>{picture}</div></body></html>\n"
    )


def _tree(samples: Mapping[tuple[Frame, ...], int], phases: Mapping[tuple[Frame, ...], str]) -> _Node:
    root = _Node()
    for stack, count in samples.items():
        node, phase = root, phases[stack]
        for frame in (None, *stack):
            node = node if frame is None else node.below.setdefault(frame, _Node())
            node.count += count
            node.phases[phase] = node.phases.get(phase, 0) + count
    return root


def _boxes(name: Frame, node: _Node, x: float, width: float, row: int, total: int) -> list[str]:
    short = name.removeprefix("fedpref.")
    label = f"{short} {node.count / total:.1%}"
    phase = node.phase if node.phases else "start"
    boxes = [
        f'<g class="{phase}"><title>{escape(label)}</title><rect x="{x:.2f}" y="{row * _ROW:g}" '
        f'width="{max(width - 0.5, 0.2):.2f}" height="{_ROW - 1:g}"/>'
    ]
    if width > 40:
        boxes.append(text(x + 3, row * _ROW + 13, short[: int(width / 6.4)], "name"))
    boxes.append("</g>")
    for frame, child in sorted(node.below.items(), key=lambda item: -item[1].count):
        share = width * child.count / max(node.count, 1)
        if child.count >= _LEAST_SHARE * total:
            boxes += _boxes(frame, child, x, share, row + 1, total)
            x += share
    return boxes


_STYLE = """
:root { color-scheme: light dark; font: 15px system-ui, sans-serif }
body { margin: 1.5rem auto; max-width: 1240px; padding: 0 1rem }
div { overflow-x: auto } svg { min-width: 760px; width: 100% }
.name { font: 11px ui-monospace, monospace; fill: #111 }
ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem 1.2rem }
li::before { content: ""; display: inline-block; width: .8em; height: .8em; margin-right: .4em;
  background: var(--colour) }
rect { fill: var(--colour) }
.data { --colour: #b9c6d8 } .features { --colour: #8fc7c0 } .compute { --colour: #f0b35a }
.transport { --colour: #9bbcf0 } .aggregation { --colour: #c7a6e8 } .evaluation { --colour: #a5d38a }
.checkpoint { --colour: #e6a3b5 } .report { --colour: #d9cf8b } .start { --colour: #c9c9c9 }
"""
