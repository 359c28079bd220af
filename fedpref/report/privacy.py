"""The section about privacy: what left a client, what others learned of it, and what the clients kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedpref.report.runs import Run

__all__ = ["Privacy", "privacy_of"]

_SHOWN = 20

# What the loop itself says of an answer in the log; all else there is a number that the client reported.
_OF_THE_LOOP = frozenset(
    "round client task code bytes_down bytes_up sent_s arrived_s staleness num_pairs norm "
    "device down_s compute_s up_s energy_j".split()
)


@dataclass(frozen=True)
class Privacy:
    """The section.

    Attributes:
        is_measured: True if the run wrote its card; False if this is what its log of replies still tells.
        sent: totals: ``replies``, ``clients``, ``tensor_bytes``, ``unlisted_replies`` and ``failures``.
        tensors: those that are shown, one row each.
        num_tensors: how many there are.
        numbers: one row each, with the lowest and highest value.
        entries: names of what else a reply has.
        passed_on: tensors that other clients got as one client had sent them; None if not known.
        held: tensors with which the server serves one client alone; None if not known.
        kept: what stayed, with ``clients``, ``bytes`` and ``examined``; None if not known.
        kept_arrays: those that are shown; ``is_sent`` tells if a tensor of that name has left, too.
        num_kept_arrays: how many there are.
    """

    is_measured: bool
    sent: Mapping[str, Any]
    tensors: Sequence[Mapping[str, Any]]
    num_tensors: int
    numbers: Sequence[Mapping[str, Any]]
    entries: Sequence[str]
    passed_on: Sequence[Mapping[str, Any]] | None
    held: Sequence[Mapping[str, Any]] | None
    kept: Mapping[str, Any] | None
    kept_arrays: Sequence[Mapping[str, Any]]
    num_kept_arrays: int


def privacy_of(run: Run) -> Privacy | None:
    """What left the clients of a run; None if nobody has noted anything of it."""
    sent = run.privacy.get("sent") or _from_log(run.clients)
    if sent is None:
        return None
    kept = run.privacy.get("kept")
    names = {tensor["name"] for tensor in sent["tensors"]}
    stayed = [array | {"is_sent": array["name"] in names} for array in kept["arrays"]] if kept else []
    return Privacy(
        is_measured="sent" in run.privacy,
        sent=sent,
        tensors=sent["tensors"][:_SHOWN],
        num_tensors=len(sent["tensors"]),
        numbers=sent["numbers"],
        entries=[entry["name"] for entry in sent["entries"]],
        passed_on=run.privacy.get("passed_on"),
        held=run.privacy.get("held"),
        kept=kept,
        # Those that have left as well come first: nobody may overlook them.
        kept_arrays=sorted(stayed, key=lambda array: not array["is_sent"])[:_SHOWN],
        num_kept_arrays=len(stayed),
    )


def _from_log(clients: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What the log of replies tells: numbers of accepted answers, bytes of tensors, but not their names."""
    answers = [record for record in clients if record.get("bytes_up") or "num_pairs" in record]
    if not answers:
        return None
    values: dict[str, list[tuple[int, float]]] = {}
    for record in answers:
        told = {name: value for name, value in record.items() if name not in _OF_THE_LOOP}
        if "num_pairs" in record:
            told["num-examples"] = record["num_pairs"]
        for name, value in told.items():
            if isinstance(value, (int, float)):
                values.setdefault(name, []).append((record["client"], value))
    return {
        "replies": len(answers),
        "clients": len({record["client"] for record in answers}),
        "tensor_bytes": sum(record.get("bytes_up", 0) for record in answers),
        "unlisted_replies": 0,
        "tensors": [],
        "numbers": [
            {
                "name": name,
                "low": min(value for _, value in told),
                "high": max(value for _, value in told),
                "messages": len(told),
                "clients": len({client for client, _ in told}),
            }
            for name, told in sorted(values.items())
        ],
        "entries": [],
        "failures": {"messages": 0, "clients": 0, "longest_reason_characters": 0},
    }
