"""Who takes part: the share of each kind of clients in the population and in the accepted answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedpref.report.groups import true_groups
from fedpref.report.runs import Run

__all__ = ["PartRow", "Participation", "part_rows", "participation_of"]


@dataclass(frozen=True)
class PartRow:
    """One kind of clients.

    Attributes:
        name: of the kind.
        style: its CSS class, or an empty string.
        clients: how many there are.
        silent: how many of them never had an answer accepted.
        answers: accepted, of all of them.
        of_clients: share of the population.
        of_answers: share of all accepted answers.
        staleness: mean over the accepted answers, in versions; None without any.
        accuracy: mean over the people of these clients; None if not known (yet).
    """

    name: str
    style: str
    clients: int
    silent: int
    answers: int
    of_clients: float
    of_answers: float
    staleness: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Participation:
    """The section; a table is empty where the run has one kind of clients only.

    Attributes:
        devices: by device class.
        planted: by hidden group.
        has_staleness: True if some answer was stale.
    """

    devices: Sequence[PartRow]
    planted: Sequence[PartRow]
    has_staleness: bool


def participation_of(run: Run) -> Participation | None:
    """Who took part in a run; None if its clients are all of one kind or nobody has answered."""
    classes = list(run.fleet.get("classes", ()))
    device_of = dict(enumerate(run.fleet.get("devices", ())))
    groups = true_groups(run.users)
    names = sorted(set(groups.values()))
    devices = part_rows(run, device_of, {name: f"g{i % 8}" for i, name in enumerate(classes)})
    planted = part_rows(
        run,
        {client: f"planted {group}" for client, group in groups.items()},
        {f"planted {group}": "" for group in names},
    )
    has_staleness = any(record.get("staleness") for record in run.clients)
    if not any(row.answers for row in [*devices, *planted]):
        return None
    found = Participation(
        devices if len(devices) > 1 else (), planted if len(planted) > 1 else (), has_staleness
    )
    return found if found.devices or found.planted else None


def part_rows(run: Run, kind_of: Mapping[int, str], styles: Mapping[str, str]) -> list[PartRow]:
    """One row a kind in ``styles`` that has clients; clients without a kind are left out."""
    accepted = [record for record in run.clients if record["code"] == "ok" and record["client"] in kind_of]
    clients = Counter(kind_of.values())
    answers = Counter(kind_of[record["client"]] for record in accepted)
    heard = Counter(kind_of[client] for client in {record["client"] for record in accepted})
    staleness: Counter[str] = Counter()
    for record in accepted:
        staleness[kind_of[record["client"]]] += record.get("staleness", 0)
    accuracies: dict[str, list[float]] = {}
    for user in run.users:
        if user.get("client_id") in kind_of:
            accuracies.setdefault(kind_of[user["client_id"]], []).append(float(user["accuracy"]))
    return [
        PartRow(
            name=kind,
            style=style,
            clients=clients[kind],
            silent=clients[kind] - heard[kind],
            answers=answers[kind],
            of_clients=clients[kind] / len(kind_of),
            of_answers=answers[kind] / max(len(accepted), 1),
            staleness=staleness[kind] / answers[kind] if answers[kind] else None,
            accuracy=sum(accuracies[kind]) / len(accuracies[kind]) if kind in accuracies else None,
        )
        for kind, style in styles.items()
        if clients[kind]
    ]
