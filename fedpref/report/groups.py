"""What the report says about groups: found or planted, who is in them, and how alike their models choose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedpref.report.charts import Curve, Level, curves_chart
from fedpref.report.membership import Membership, membership_chart
from fedpref.report.runs import Run

__all__ = ["GroupRow", "Groups", "groups_of", "true_groups"]


@dataclass(frozen=True)
class GroupRow:
    """How well the people of one group are served; ``clients`` and ``oracle`` where known."""

    name: str
    style: str
    people: int
    accuracy: float
    clients: int | None = None
    oracle: float | None = None


@dataclass(frozen=True)
class Groups:
    """The section; a part that a run cannot have is empty.

    Attributes:
        names: of the groups that the strategy found.
        has_strays: True if at some time a client was in no group.
        membership: SVG, who belongs to which group over the rounds.
        match: SVG, how well they match the planted groups over the rounds.
        agreement: one row a model: its name, and the share on which it chooses as each model does.
        found: accuracy by the strategy's groups.
        planted: accuracy by the hidden groups.
    """

    names: Sequence[str]
    has_strays: bool
    membership: str
    match: str
    agreement: Sequence[tuple[str, Sequence[float]]]
    found: Sequence[GroupRow]
    planted: Sequence[GroupRow]


def groups_of(run: Run) -> Groups | None:
    """The section about the groups of a run; None if it has no groups of either kind."""
    history = [
        Membership(int(record["round"]), record["groups"]) for record in run.metrics if "groups" in record
    ]
    planted = _planted(run.users)
    if not history and len(planted) < 2:
        return None
    names = _names(run, history)
    return Groups(
        names=names,
        has_strays=any(None in state.groups for state in history),
        membership=membership_chart(history, names, true_groups(run.users)) if history else "",
        match=_match_chart(run),
        agreement=_agreement(run),
        found=_found(run.users, history[-1].groups, names) if history else [],
        planted=planted,
    )


def _names(run: Run, history: Sequence[Membership]) -> list[str]:
    """As the models are called; before the run has ended only numbers are known."""
    models = [name.replace("/", " ") for name in run.agreement.get("models", [])]
    seen = [group for state in history for group in state.groups if group is not None]
    return models + [f"group {number}" for number in range(len(models), max(seen, default=-1) + 1)]


def true_groups(users: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Hidden group of each client, by the first held-out set of it that tells."""
    known: dict[int, int] = {}
    for user in users:
        if "group" in user and "client_id" in user:
            known.setdefault(int(user["client_id"]), int(user["group"]))
    return known


def _match_chart(run: Run) -> str:
    scored = [record for record in run.evaluations if "ari" in record["evaluation"]]
    if not scored:
        return ""
    rounds = [float(record["round"]) for record in scored]
    curves = [
        Curve("adjusted Rand index", "a", rounds, [record["evaluation"]["ari"] for record in scored]),
        Curve(
            "normalised mutual information", "b", rounds, [record["evaluation"]["nmi"] for record in scored]
        ),
    ]
    levels = [Level("chance", 0.0, "level faint"), Level("the planted groups", 1.0, "level faint")]
    return curves_chart(
        curves, "round", lambda value: f"{value:.2f}", levels, x_is_whole=True, width=560, height=270
    )


def _agreement(run: Run) -> list[tuple[str, Sequence[float]]]:
    names = [str(name).replace("/", " ") for name in run.agreement.get("models", [])]
    return list(zip(names, run.agreement.get("shares", []), strict=True))


def _found(
    users: Sequence[Mapping[str, Any]], groups: Sequence[int | None], names: Sequence[str]
) -> list[GroupRow]:
    clients = Counter(groups)
    return [
        GroupRow(names[group], f"g{group % 8}", len(members), _mean(members, "accuracy"), clients[group])
        for group, members in _by(users, "served_by").items()
    ]


def _planted(users: Sequence[Mapping[str, Any]]) -> list[GroupRow]:
    return [
        GroupRow(
            name=f"planted {group}",
            style="",
            people=len(members),
            accuracy=_mean(members, "accuracy"),
            oracle=_mean(members, "oracle") if all("oracle" in user for user in members) else None,
        )
        for group, members in _by(users, "group").items()
    ]


def _by(users: Sequence[Mapping[str, Any]], key: str) -> dict[int, list[Mapping[str, Any]]]:
    members: dict[int, list[Mapping[str, Any]]] = {}
    for user in users:
        if key in user:
            members.setdefault(int(user[key]), []).append(user)
    return dict(sorted(members.items()))


def _mean(users: Sequence[Mapping[str, Any]], key: str) -> float:
    return sum(float(user[key]) for user in users) / len(users)
