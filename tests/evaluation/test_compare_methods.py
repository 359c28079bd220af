"""Runs as rows of a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from fedpref.errors import ConfigurationError
from fedpref.evaluation.compare import Row, tables
from fedpref.evaluation.metrics import bootstrap_interval, worst_decile
from fedpref.evaluation.paired import compared
from fedpref.evaluation.records import Person, Record
from fedpref.seeds import generator

Marks = Mapping[str, np.ndarray]


def marks(seed: int, right: float, people: int = 12) -> dict[str, np.ndarray]:
    """0 and 1 for 10 to 14 pairs a person."""
    rng = np.random.default_rng(seed)
    return {f"p{i:02d}": (rng.uniform(size=10 + i % 5) < right).astype(float) for i in range(people)}


def run(name: str, of: Marks, seed: int = 0, **rest: object) -> Record:
    people = {person: Person(float(np.mean(each)), len(each)) for person, each in of.items()}
    return Record(**{"name": name, "data": "", "seed": seed, "people": people, "asked": "x", **rest})  # type: ignore[arg-type]


def rows(*records: Record, **options: object) -> Sequence[Row]:
    (table,) = tables(records, **options)  # type: ignore[arg-type]
    return table.rows


def test_a_method_against_itself_differs_by_nothing_and_nobody_is_best() -> None:
    own, twin = rows(run("a", marks(0, 0.7)), run("b", marks(0, 0.7)))
    for metric in ("user_accuracy", "pair_accuracy", "worst_decile"):
        difference = twin.cells[metric].difference
        assert difference is not None and own.cells[metric].difference is None
        assert (difference.mean, difference.low, difference.high) == (0, 0, 0)
        assert not own.cells[metric].is_best and not twin.cells[metric].is_best


def test_with_one_seed_values_and_intervals_are_those_of_the_metrics() -> None:
    of = marks(0, 0.7)
    accuracies, num_pairs = np.array([[each.mean(), len(each)] for each in of.values()]).T
    (row,) = rows(run("a", of))
    expected = {
        "user_accuracy": (accuracies, np.ones(12)),
        "pair_accuracy": (accuracies * num_pairs, num_pairs),
    }
    for metric, (sums, counts) in expected.items():
        found = row.cells[metric].estimate
        assert found.mean == pytest.approx(sums.sum() / counts.sum())
        interval = bootstrap_interval(sums, counts, generator(0, "compare"))
        assert (found.low, found.high) == pytest.approx(interval)
    assert row.cells["worst_decile"].estimate.mean == pytest.approx(worst_decile(accuracies))


def test_with_one_seed_differences_are_those_of_marks_compared() -> None:
    own, base = marks(1, 0.8), marks(0, 0.6)
    _, row = rows(run("base", base), run("own", own))
    expected = compared([own], [base], generator(0, "compare"))
    found = row.cells["pair_accuracy"].difference
    assert found is not None
    assert found.mean == pytest.approx(expected.pair_gain)
    assert (found.low, found.high) == pytest.approx(expected.pair_interval)


def test_a_gain_that_all_people_share_has_an_interval_of_no_width() -> None:
    """Everybody has one of two right; the other method has both: one half more, whoever is drawn."""
    half, all_ = np.array([1.0, 0.0]), np.ones(2)
    base, row = rows(run("a", {"x": half, "y": half, "z": half}), run("b", {"x": all_, "y": all_, "z": all_}))
    for metric in ("user_accuracy", "pair_accuracy", "worst_decile"):
        difference = row.cells[metric].difference
        assert difference is not None
        assert (difference.mean, difference.low, difference.high) == (0.5, 0.5, 0.5)
        assert row.cells[metric].is_best and not base.cells[metric].is_best


def test_who_is_ahead_inside_the_interval_is_not_best() -> None:
    """One person of two gains: drawn twice or not at all, the interval is from 0 to 1."""
    none, all_ = np.zeros(2), np.ones(2)
    _, row = rows(run("a", {"x": none, "y": none}), run("b", {"x": all_, "y": none}))
    cell = row.cells["user_accuracy"]
    assert cell.difference is not None
    assert (cell.difference.mean, cell.difference.low, cell.difference.high) == (0.5, 0, 1)
    assert not cell.is_best


def test_who_is_behind_in_one_seed_is_not_best() -> None:
    def of(value: float) -> dict[str, np.ndarray]:
        return {name: np.full(4, value) for name in "xyz"}

    base = [run("a", of(0.5), seed) for seed in (0, 1)]
    always = rows(*base, run("b", of(1.0), 0), run("b", of(0.75), 1))[1].cells["user_accuracy"]
    once = rows(*base, run("b", of(1.0), 0), run("b", of(0.25), 1))[1].cells["user_accuracy"]
    assert always.is_best and not once.is_best
    assert once.difference is not None
    assert (once.difference.low, once.difference.by_seed) == (0.125, (0.5, -0.25))


def test_a_value_over_seeds_is_the_mean_of_its_seeds() -> None:
    records = [run("a", marks(seed, 0.7), seed, numbers={"bytes_up": 100.0 + seed}) for seed in (0, 1, 2)]
    cells = rows(*records)[0].cells
    alone = [rows(record)[0].cells for record in records]
    for metric in ("user_accuracy", "pair_accuracy", "worst_decile"):
        expected = [of_seed[metric].estimate.mean for of_seed in alone]
        assert cells[metric].estimate.by_seed == pytest.approx(expected)
        assert cells[metric].estimate.mean == pytest.approx(np.mean(expected))
    sent = cells["bytes_up"]
    assert (sent.estimate.mean, sent.estimate.low, sent.estimate.high, sent.over) == (101, 100, 102, "seeds")


def test_the_order_of_seeds_and_of_people_changes_nothing() -> None:
    records = [run(name, marks(seed + len(name), 0.7), seed) for name in ("a", "bb") for seed in (0, 1, 2)]
    reordered = [
        run(one.name, {}, one.seed, people=dict(list(one.people.items())[::-1]))
        for one in (*records[3:][::-1], *records[:3][::-1])
    ]
    assert tables(records) == tables(reordered, base="a")


def test_rows_over_seeds_that_are_copies_are_those_of_one_seed() -> None:
    once = rows(run("a", marks(0, 0.6)), run("b", marks(1, 0.7)))
    thrice = rows(
        *(run(n, marks(s, p), seed) for n, s, p in (("a", 0, 0.6), ("b", 1, 0.7)) for seed in range(3))
    )
    for one, three in zip(once, thrice, strict=True):
        for metric in ("user_accuracy", "worst_decile"):
            first, all_ = one.cells[metric].estimate, three.cells[metric].estimate
            assert (all_.mean, all_.low, all_.high) == pytest.approx((first.mean, first.low, first.high))


def test_people_who_were_not_asked_in_every_seed_count_where_they_were() -> None:
    none, all_ = np.zeros(2), np.ones(2)
    records = [run("a", {"x": all_, "y": none}, 0), run("a", {"z": all_}, 1)]
    (table,) = tables(records)
    found = table.rows[0].cells["user_accuracy"].estimate
    assert (found.by_seed, found.mean, table.num_people) == ((0.5, 1.0), 0.75, 3)
    assert found.low is not None and found.low >= 0


def test_worst_group_is_there_where_all_groups_are_known() -> None:
    people = {f"p{i}": Person(0.2 + 0.5 * (i % 2), 10, i % 2) for i in range(6)}
    (row,) = rows(run("a", {}, people=people))
    assert row.cells["worst_group"].estimate.mean == pytest.approx(0.2)
    people["p5"] = Person(0.7, 10)
    assert "worst_group" not in rows(run("a", {}, people=people))[0].cells


def test_a_number_that_one_run_of_a_row_lacks_is_left_out_there_alone() -> None:
    of = marks(0, 0.7)
    first, second = rows(run("a", of), run("b", of, numbers={"virtual_s": 3.0}))
    assert "virtual_s" not in first.cells
    assert second.cells["virtual_s"].estimate.mean == 3 and second.cells["virtual_s"].difference is None


def test_every_data_set_has_a_table_of_its_own() -> None:
    records = [run(name, marks(0, 0.7), data=data) for data in ("d", "e") for name in ("a", "b")]
    found = tables(records, base="b")
    assert [(table.data, [row.name for row in table.rows]) for table in found] == [
        ("d", ["b", "a"]),
        ("e", ["b", "a"]),
    ]


def test_one_person_alone_has_no_interval_and_is_no_ground_for_a_winner() -> None:
    (table,) = tables([run("a", {"x": np.zeros(3)}), run("b", {"x": np.ones(3)})])
    cell = table.rows[1].cells["user_accuracy"]
    assert (cell.estimate.low, cell.estimate.high, cell.is_best) == (None, None, False)
    assert any("no intervals" in note for note in table.notes)


def test_fewer_than_three_seeds_are_noted() -> None:
    records = [run("a", marks(0, 0.7), seed) for seed in range(3)]
    assert [any("seed" in note for note in tables(records[:n])[0].notes) for n in (1, 2, 3)] == [
        True,
        True,
        False,
    ]


def test_runs_that_do_not_say_what_was_asked_are_noted() -> None:
    of = marks(0, 0.7)
    known, unknown = run("a", of), run("b", of, asked="")
    assert any("Of 2 runs 1 did not note" in note for note in tables([known, unknown])[0].notes)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (run("b", marks(0, 0.7), 1), "'a' has seed 0, but 'b' has seed 1"),
        (run("b", marks(0, 0.7, people=9)), "12 and 9 people, of whom 9 are in both"),
        (run("b", marks(0, 0.7) | {"p03": np.ones(2)}), "'p03' judged 13 and 2 pairs"),
        (run("b", marks(0, 0.7), asked="y"), "the same people, but other pairs or other preferences"),
        (run("a", marks(0, 0.7)), "'a' has two runs of seed 0"),
    ],
)
def test_rows_that_were_not_asked_the_same_are_refused_and_it_is_said_what_differs(
    other: Record, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        tables([run("a", marks(0, 0.7)), other])


def test_groups_that_differ_are_refused() -> None:
    one, other = ({"x": Person(1.0, 3, group)} for group in (0, 1))
    with pytest.raises(ConfigurationError, match="'x' is of group 0 and of group 1"):
        tables([run("a", {}, people=one), run("b", {}, people=other)])


def test_a_base_or_a_metric_that_does_not_exist_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'user_accuracy'"):
        tables([run("a", marks(0, 0.7))], ["user_acuracy"])
    with pytest.raises(ConfigurationError, match="Did you mean 'fedavg'"):
        tables([run("fedavg", marks(0, 0.7))], base="fedavgg")


def test_json_keeps_every_figure() -> None:
    (table,) = tables([run("a", marks(0, 0.6)), run("b", marks(1, 0.9))])
    plain = json.loads(json.dumps(table.as_json()))
    assert plain["base"] == "a" and plain["seeds"] == [0] and plain["num_people"] == 12
    cell, told = table.rows[1].cells["user_accuracy"], plain["rows"][1]["metrics"]["user_accuracy"]
    assert cell.difference is not None
    assert told["mean"] == cell.estimate.mean and told["difference"]["low"] == cell.difference.low
    assert told["is_best"] is True and told["over"] == "people"
