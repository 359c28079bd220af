"""One page about one run: a single offline file without scripts, made from the run directory alone."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpref.report.cards import cards_of
from fedpref.report.charts import Level, people_chart
from fedpref.report.few_shot import few_shot_of
from fedpref.report.gain import gain_of
from fedpref.report.groups import groups_of
from fedpref.report.learning import tabs_of
from fedpref.report.participation import participation_of
from fedpref.report.privacy import privacy_of
from fedpref.report.runs import Run, best_round, read_run
from fedpref.report.span import span_of
from fedpref.report.storage import write_text
from fedpref.report.systems import systems_of
from fedpref.report.template import style, template
from fedpref.report.units import percent, percent_tick

__all__ = ["write_report"]

_EXTREMES = 10
_SHOWN_EVENTS = 12


def write_report(run_dir: Path) -> Path:
    """Write ``report.html`` into a run directory and return its path. The run may be unfinished.

    Raises:
        StorageError: it is no run directory, a file in it is damaged, or the disk is full.
    """
    run = read_run(run_dir)
    figures = _figures(run)
    groups = groups_of(run)
    page = template("report.html.j2").render(
        run=run,
        figures=figures,
        style=style("report.css"),
        state=_state(run),
        outcome=_outcome(run, figures),
        cards=cards_of(figures),
        tabs=tabs_of(run, figures),
        people=_people(run, figures) if run.users else None,
        colours=_colours(run.users, groups.names if groups else ()),
        groups=groups,
        systems=systems_of(run),
        participation=participation_of(run),
        gain=gain_of(run),
        few_shot=few_shot_of(run),
        span=span_of(run),
        privacy=privacy_of(run),
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


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
