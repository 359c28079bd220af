"""Accuracy of each hidden group."""

from __future__ import annotations

import pytest

from fedpref.evaluation.by_group import accuracy_by_group
from fedpref.evaluation.records import Person, Record

ANNA, BEN, CLEO = Person(0.9, 10, 0), Person(0.5, 10, 0), Person(0.2, 10, 3)


def record(
    name: str, people: dict[str, Person], seed: int = 0, data: str = "d", shift: float = 0.0
) -> Record:
    shown = {one: Person(own.accuracy + shift, own.num_pairs, own.group) for one, own in people.items()}
    return Record(name, data, seed, shown)


def test_a_group_has_the_mean_of_its_people_and_an_interval_over_them() -> None:
    people = {"anna": ANNA, "ben": BEN, "cleo": CLEO}
    (entry,) = accuracy_by_group([record("one", people), record("two", people, shift=-0.1)], "two")
    assert entry["data"] == "d"
    first, second = entry["groups"]
    assert [(group["group"], group["num_people"]) for group in (first, second)] == [(0, 2), (3, 1)]
    assert [row["name"] for row in first["rows"]] == ["two", "one"]  # the base comes first
    assert [row["mean"] for row in first["rows"]] == pytest.approx([0.6, 0.7])
    low, high = first["rows"][1]["low"], first["rows"][1]["high"]
    assert (low, high) == pytest.approx((0.5, 0.9))  # a quarter of the draws is one person twice
    alone = second["rows"][1]
    assert alone["mean"] == pytest.approx(0.2) and alone["low"] is None


def test_a_mean_over_seeds_is_of_the_seeds_that_have_the_group() -> None:
    both = record("one", {"anna": ANNA, "cleo": CLEO})
    other = record("one", {"anna": BEN, "cleo": Person(0.4, 10, 0)}, seed=1)
    (entry,) = accuracy_by_group([both, other])
    first, second = entry["groups"]
    assert first["seeds"] == [0, 1] and first["rows"][0]["by_seed"] == pytest.approx([0.9, 0.45])
    assert second["seeds"] == [0] and second["rows"][0]["by_seed"] == pytest.approx([0.2])


def test_data_sets_without_several_known_groups_have_no_entry() -> None:
    nobody = record("one", {"anna": Person(0.9, 10), "ben": BEN}, data="unknown")
    alike = record("one", {"anna": ANNA, "ben": BEN}, data="alike")
    assert accuracy_by_group([nobody, alike]) == []
