"""What is kept of a run to compare it with others, and which runs can be compared at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fedpref.errors import ConfigurationError, did_you_mean

__all__ = ["Person", "Record", "methods_of"]


@dataclass(frozen=True)
class Person:
    """How well a run serves one person.

    Attributes:
        accuracy: share of the pairs that is predicted right.
        num_pairs: that the person was asked, at least 1.
        group: hidden group, if it is known.
    """

    accuracy: float
    num_pairs: int
    group: int | None = None


@dataclass(frozen=True)
class Record:
    """One run.

    Attributes:
        name: of the method; records of one name and data set differ in their seed only.
        data: name of the data set; each has a table of its own.
        seed: of the run.
        people: everybody who was asked, by name.
        numbers: of the run as a whole, such as ``bytes_up``.
        asked: hash of what people were asked, as of ``held_out_digest``; empty if it is not known.
    """

    name: str
    data: str
    seed: int
    people: Mapping[str, Person]
    numbers: Mapping[str, float] = field(default_factory=dict)
    asked: str = ""


def methods_of(records: Sequence[Record], base: str | None = None) -> dict[str, dict[int, Record]]:
    """Records of one data set by name and seed: names as they come but the base first, seeds ascending.

    Args:
        records: at least one.
        base: name to compare with; None takes the first.

    Raises:
        ConfigurationError: two records have the same name and seed, no record is of the base, or seeds,
            people or pairs differ between names: the message says how.
    """
    names = list(dict.fromkeys(record.name for record in records))
    if base is not None:
        if base not in names:
            mend = did_you_mean(base, names)
            raise ConfigurationError(f"no run is of {base!r}, which is to compare with.{mend}")
        names = [base, *(name for name in names if name != base)]
    methods: dict[str, dict[int, Record]] = {name: {} for name in names}
    for record in sorted(records, key=lambda record: record.seed):
        if record.seed in methods[record.name]:
            raise ConfigurationError(f"{record.name!r} has two runs of seed {record.seed}; leave one out")
        methods[record.name][record.seed] = record
    first, *others = names
    for name in others:
        _check_same(first, methods[first], name, methods[name])
    return methods


def _check_same(first: str, base: Mapping[int, Record], other: str, runs: Mapping[int, Record]) -> None:
    if base.keys() != runs.keys():
        raise ConfigurationError(
            f"{first!r} has {_seeds(base)}, but {other!r} has {_seeds(runs)}; compare the same seeds: "
            "run those that are missing, or leave runs out"
        )
    for seed, record in base.items():
        if what := _what_differs(record, runs[seed]):
            raise ConfigurationError(
                f"{first!r} and {other!r} were not asked the same in seed {seed}: {what}; "
                "compare runs on the same data"
            )


def _what_differs(one: Record, other: Record) -> str:
    if one.people.keys() != other.people.keys():
        common = len(one.people.keys() & other.people.keys())
        return f"{len(one.people)} and {len(other.people)} people, of whom {common} are in both"
    for name, person in one.people.items():
        twin = other.people[name]
        if person.num_pairs != twin.num_pairs:
            return f"{name!r} judged {person.num_pairs} and {twin.num_pairs} pairs"
        if person.group != twin.group:
            return f"{name!r} is of group {person.group} and of group {twin.group}"
    if one.asked and other.asked and one.asked != other.asked:
        return "the same people, but other pairs or other preferences"
    return ""


def _seeds(runs: Mapping[int, Record]) -> str:
    return f"seed{'s' if len(runs) > 1 else ''} {', '.join(map(str, runs))}"
