"""One page about one run: a single offline file without scripts, made from the run directory alone."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpref.report.charts import Curve, Level, curves_chart, people_chart
from fedpref.report.groups import groups_of
from fedpref.report.runs import Run, best_round, read_run
from fedpref.report.storage import write_text
from fedpref.report.units import human_bytes, human_seconds, percent, percent_tick

__all__ = ["write_report"]

_TEMPLATES = Path(__file__).parent / "templates"
_EXTREMES = 10
_SHOWN_EVENTS = 12


def write_report(run_dir: Path) -> Path:
    """Write ``report.html`` into a run directory and return its path. The run may be unfinished.

    Raises:
        StorageError: it is no run directory, a file in it is damaged, or the disk is full.
    """
    import jinja2

    run = read_run(run_dir)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"bytes": human_bytes, "seconds": human_seconds, "percent": percent}
    figures = _figures(run)
    groups = groups_of(run)
    page = environment.get_template("report.html.j2").render(
        run=run,
        figures=figures,
        style=(_TEMPLATES / "report.css").read_text(encoding="utf-8"),
        state=_state(run),
        outcome=_outcome(run, figures),
        cards=_cards(figures),
        tabs=_tabs(run, figures),
        people=_people(run, figures) if run.users else None,
        colours=_colours(run.users, groups.names if groups else ()),
        groups=groups,
        **_extremes(run.users),
        codes=Counter(str(reply["code"]) for reply in run.clients).most_common(),
        events=run.events[-_SHOWN_EVENTS:],
        command=shlex.join(run.manifest.get("command", [])),
    )
    path = run_dir / "report.html"
    write_text(path, page)
    return path


def _figures(run: Run) -> dict[str, Any]:
    """The best known value of each figure: the summary's, else the last round's."""
    figures: dict[str, Any] = {}
    if run.metrics:
        last = run.metrics[-1]
        figures |= {
            "rounds": last["round"],
            "virtual_s": last["clock_s"],
            "wall_s": last["wall_s"],
            "bytes_up": last["bytes_up"],
            "bytes_down": last["bytes_down"],
            "replies_ok": sum(record["clients_ok"] for record in run.metrics),
            "replies_failed": sum(record["clients_failed"] for record in run.metrics),
        }
    best = best_round(run.metrics)
    if best is not None:
        figures |= run.evaluations[-1]["evaluation"]
        figures |= {"best_round": best[0], "best_pair_accuracy": best[1]}
    sent = [record["fold"]["broadcast_ratio"] for record in run.metrics if _has_ratio(record)]
    figures |= {"broadcast_ratio": sent[-1]} if sent else {}
    figures |= run.summary
    return {name: value for name, value in figures.items() if value is not None}


def _has_ratio(record: Mapping[str, Any]) -> bool:
    return record.get("fold", {}).get("broadcast_ratio") is not None


def _state(run: Run) -> str:
    """Where the run stands. The result is written last, so that a run with a summary has finished."""
    state = str(run.status.get("state", "unknown"))
    return "finished" if run.summary and state == "running" else state


def _outcome(run: Run, figures: Mapping[str, Any]) -> str:
    """The run in a sentence or two."""
    state, reached = _state(run), run.status.get("round", 0)
    sentences = []
    if state == "failed":
        sentences.append(
            f"The run failed in round {reached}: {run.status.get('error') or 'no reason was given'}."
        )
    elif state == "finished":
        sentences.append(f"The run finished {_count(int(figures.get('rounds', reached)), 'round')}.")
    else:
        words = {"running": "is still running", "killed": "was killed", "interrupted": "was interrupted"}
        sentences.append(f"The run {words.get(state, 'has an unknown state')}, after round {reached}.")
    if "pair_accuracy" in figures:
        sentences.append(_what_was_learned(figures, len(run.users)))
    return " ".join(sentences)


def _what_was_learned(figures: Mapping[str, Any], num_people: int) -> str:
    text = f"The served model agrees with {percent(figures['pair_accuracy'])} of the held-out preferences"
    if "pair_accuracy_low" in figures:
        low, high = 100 * figures["pair_accuracy_low"], 100 * figures["pair_accuracy_high"]
        text += f" (95\N{NO-BREAK SPACE}% interval {low:.1f}–{percent(high / 100)})"
    if num_people > 1:
        text += (
            f"; for the worst-served tenth of {num_people} people it is {percent(figures['worst_decile'])}"
        )
    if "regret" in figures:
        text += f". The best possible model would get {percent(figures['oracle'])} per person"
    return text + "."


def _cards(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Label, value and remark of each key number that is known."""
    cards: list[tuple[str, str, str]] = []
    for name, label, remark in (
        ("pair_accuracy", "pair accuracy", "over all pairs"),
        ("user_accuracy", "user accuracy", "mean over people"),
        ("worst_decile", "worst decile", "the worst-served tenth"),
        ("worst_group", "worst group", "mean over its people"),
        ("regret", "regret", "to the best possible model"),
    ):
        if name in figures:
            if f"{name}_low" in figures:
                low, high = 100 * figures[f"{name}_low"], 100 * figures[f"{name}_high"]
                remark = f"95\N{NO-BREAK SPACE}% interval {low:.1f}–{high:.1f}"
            cards.append((label, percent(figures[name]), remark))
    if "ece" in figures:
        cards.append(("calibration error", percent(figures["ece"]), f"Brier {figures['brier']:.3f}"))
    if "order_consistency" in figures:
        spread = f"logits towards the first response, s.d. {figures['position_bias_sd']:.2f}"
        cards.append(("position bias", _signed(figures["position_bias"]), spread))
        share = percent(figures["order_consistency"])
        cards.append(("order consistency", share, "same choice in both orders"))
    if "ari" in figures:
        match = f"1 is the planted groups; NMI {figures['nmi']:.2f}"
        cards.append(("adjusted Rand index", f"{figures['ari']:.2f}".replace("-", "−"), match))
    if "broadcast_ratio" in figures:
        cards.append(
            ("models sent", percent(figures["broadcast_ratio"]), "of those that a broadcast would send")
        )
    if "bytes_up" in figures:
        up, down = figures["bytes_up"], figures["bytes_down"]
        cards.append(
            ("transferred", human_bytes(up + down), f"{human_bytes(up)} up, {human_bytes(down)} down")
        )
        wall = f"{human_seconds(figures['wall_s'])} on this machine"
        cards.append(("virtual time", human_seconds(figures["virtual_s"]), wall))
        total = figures["replies_ok"] + figures["replies_failed"]
        cards.append(("failed replies", f"{figures['replies_failed']}", f"of {total}"))
    if "best_round" in figures:
        cards.append(
            (
                "best round",
                f"{figures['best_round']}",
                f"with {percent(figures['best_pair_accuracy'])} of these very pairs: optimistic",
            )
        )
    return cards


@dataclass(frozen=True)
class _Tab:
    """The learning curves over one x axis; charts are SVG."""

    key: str
    title: str
    accuracy: str
    loss: str


def _tabs(run: Run, figures: Mapping[str, Any]) -> list[_Tab]:
    """The same curves over rounds, virtual time and bytes."""
    records = run.evaluations
    if not records:
        return []
    scores = [record["evaluation"] for record in records]
    levels = [Level("best possible", float(figures["oracle"]))] if "oracle" in figures else []
    tabs = []
    for key, title, unit, xs in _axes(records):
        accuracies = [
            _curve("pair accuracy", "a", xs, scores, "pair_accuracy", has_band=True),
            _curve("worst decile", "b", xs, scores, "worst_decile"),
        ]
        loss = _curve("loss", "a", xs, scores, "loss")
        x_title = f"{title} ({unit})" if unit else title
        tabs.append(
            _Tab(
                key,
                title,
                curves_chart(accuracies, x_title, percent_tick, levels, x_is_whole=not unit),
                curves_chart([loss], x_title, _decimals, x_is_whole=not unit, width=400),
            )
        )
    return tabs


def _axes(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str, Sequence[float]]]:
    """Key, title, unit and values of each x axis."""
    clock_s = [float(record["clock_s"]) for record in records]
    sent_bytes = [float(record["bytes_up"] + record["bytes_down"]) for record in records]
    second, time_unit = _unit(max(clock_s), ((86400, "days"), (3600, "hours"), (60, "minutes"), (1, "s")))
    byte, byte_unit = _unit(max(sent_bytes), ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B")))
    return [
        ("round", "round", "", [float(record["round"]) for record in records]),
        ("clock", "virtual time", time_unit, [value / second for value in clock_s]),
        ("bytes", "bytes transferred", byte_unit, [value / byte for value in sent_bytes]),
    ]


def _unit(largest: float, units: Sequence[tuple[float, str]]) -> tuple[float, str]:
    """The largest unit in which ``largest`` is at least 2; else the smallest."""
    return next((unit for unit in units if largest >= 2 * unit[0]), units[-1])


def _curve(
    label: str,
    style: str,
    xs: Sequence[float],
    scores: Sequence[Mapping[str, float]],
    name: str,
    has_band: bool = False,
) -> Curve:
    ys = [score[name] for score in scores]
    if not has_band or any(f"{name}_low" not in score for score in scores):
        return Curve(label, style, xs, ys)
    return Curve(
        label,
        style,
        xs,
        ys,
        [score[f"{name}_low"] for score in scores],
        [score[f"{name}_high"] for score in scores],
    )


def _people(run: Run, figures: Mapping[str, Any]) -> str:
    accuracies = [float(user["accuracy"]) for user in run.users]
    levels = [Level("chance", 0.5, "level faint")]
    if len(accuracies) > 1:
        levels.append(
            Level(f"mean {percent(sum(accuracies) / len(accuracies))}", sum(accuracies) / len(accuracies))
        )
        if "worst_decile" in figures:
            levels.insert(
                1, Level(f"worst decile {percent(figures['worst_decile'])}", figures["worst_decile"])
            )
    names = [str(user["name"]) for user in run.users]
    key = _colour_key(run.users)
    # Where everybody has a colour but one, that one is served by all models.
    absent = -1 if any(key in user for user in run.users) else 0
    groups = [int(user.get(key, absent)) for user in run.users]
    return people_chart(accuracies, names, groups, "accuracy per person", percent_tick, levels)


def _colour_key(users: Sequence[Mapping[str, Any]]) -> str:
    """Colours tell the strategy's groups apart where it has some, else the planted ones."""
    return "served_by" if any("served_by" in user for user in users) else "group"


def _colours(users: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[tuple[str, str]]:
    """Style and name of each group in the legend of people; ``names`` are those of the found groups."""
    key = _colour_key(users)
    found = sorted({int(user[key]) for user in users if key in user})
    legend = [
        (f"g{group % 8}", names[group] if key == "served_by" else f"planted {group}") for group in found
    ]
    is_partial = bool(found) and any(key not in user for user in users)
    return [*legend, ("none", "served by all")] if is_partial else legend


def _extremes(users: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[Mapping[str, Any]]]:
    """The worst and the best served, ten each; nobody stands in both lists."""
    ranked = sorted(users, key=lambda user: (user["accuracy"], str(user["name"])))
    each = min(_EXTREMES, (len(ranked) + 1) // 2)
    return {"worst": ranked[:each], "best": ranked[each:][::-1][:each]}


def _signed(value: float) -> str:
    text = f"{value:+.2f}".replace("-", "−")
    return text if float(f"{value:.2f}") else "0.00"


def _decimals(value: float) -> str:
    return f"{value:.3f}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
