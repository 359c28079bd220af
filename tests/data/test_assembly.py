"""Rows, split and partition together make a population."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from fedpref.data import (
    Dirichlet,
    Iid,
    Natural,
    PairSplit,
    Partition,
    Pooled,
    Rows,
    SizeSkew,
    held_out_people,
    inspect,
    pool,
    population,
)
from fedpref.types import HeldOut, Pairs, Population, Shard


def judged(num_pairs: int = 60, num_people: int = 6) -> Rows:
    """Every pair is judged by two people, in opposite order."""
    judgements = [(pair, person % num_people) for pair in range(num_pairs) for person in (pair, pair + 1)]
    sides = [("good", "bad") if row % 2 else ("bad", "good") for row in range(len(judgements))]
    labelled = [(pair, *side) for (pair, _), side in zip(judgements, sides, strict=True)]
    return Rows(
        prompts=tuple(f"question {pair}" for pair, _ in judgements),
        chosen=tuple(f"{chosen} answer {pair}" for pair, chosen, _ in labelled),
        rejected=tuple(f"{rejected} answer {pair}" for pair, _, rejected in labelled),
        clients=tuple(f"person {person}" for _, person in judgements),
        topics=tuple(f"topic {pair % 3}" for pair, _ in judgements),
        splits=("",) * len(judgements),
        pair_ids=tuple(f"pair {pair}" for pair, _ in judgements),
        source="rows.jsonl",
        notes=("A note of the source.",),
    )


@pytest.mark.parametrize(
    "rule", [Natural(), Pooled(), Iid(5), Dirichlet(5), SizeSkew(5)], ids=lambda rule: type(rule).__name__
)
def test_no_pair_that_anybody_trains_on_is_asked_of_anybody(rule: Partition) -> None:
    rows = judged()

    people = population(rows, rule, PairSplit(0.25), seed=0)

    trained = [pair_id for shard in people.shards for pair_id in shard.pairs.pair_ids]
    asked = [pair_id for held_out in people.held_out for pair_id in held_out.pairs.pair_ids]
    assert not set(trained) & set(asked)
    assert sorted(trained + asked) == sorted(rows.pair_ids)
    assert len(set(asked)) == 15


def test_a_natural_population_gives_people_their_own_judgements() -> None:
    rows = judged()
    own = {(client, chosen) for client, chosen in zip(rows.clients, rows.chosen, strict=True)}

    people = population(rows, Natural(), PairSplit(), seed=0)

    for shard in people.shards:
        assert {(shard.name, chosen) for chosen in shard.pairs.chosen} <= own
    for held_out in people.held_out:
        assert held_out.client_id is not None
        assert people.shards[held_out.client_id].name == held_out.name
        assert {(held_out.name, chosen) for chosen in held_out.pairs.chosen} <= own


def test_pooling_a_natural_population_equals_the_pooled_partition() -> None:
    rows = judged()

    pooled = pool(population(rows, Natural(), PairSplit(), seed=0))
    at_once = population(rows, Pooled(), PairSplit(), seed=0)

    def asked(people: Population) -> list[tuple[str, int | None, object]]:
        return [(one.name, one.client_id, one.pairs.chosen) for one in people.held_out]

    assert len(pooled) == len(at_once) == 1
    assert Counter(pooled.shards[0].pairs.chosen) == Counter(at_once.shards[0].pairs.chosen)
    assert asked(pooled) == asked(at_once)


@dataclass(frozen=True)
class KnownTruth:
    groups: tuple[int, ...] = (0, 1)
    p: np.ndarray = field(default_factory=lambda: np.array([0.5]))

    def p_chosen(self, held_out: int) -> np.ndarray:
        return self.p


def test_pooling_keeps_feature_vectors_truth_and_who_is_asked() -> None:
    def pairs(value: float) -> Pairs:
        return Pairs(["q"], np.full((1, 2), value), np.zeros((1, 2)), [f"id {value}"], ["t"])

    truth = KnownTruth()
    two = Population(
        shards=[Shard(0, "a", pairs(1.0)), Shard(1, "b", pairs(2.0))],
        held_out=[HeldOut("a", 0, pairs(3.0)), HeldOut("b", 1, pairs(4.0))],
        truth=truth,
    )

    one = pool(two)

    assert np.array_equal(np.asarray(one.shards[0].pairs.chosen), [[1.0, 1.0], [2.0, 2.0]])
    assert one.shards[0].pairs.pair_ids == ("id 1.0", "id 2.0")
    assert [asked.name for asked in one.held_out] == ["a", "b"]
    assert one.truth is truth


def test_notes_say_what_was_read_how_it_was_split_and_who_is_a_newcomer() -> None:
    rows = judged()
    splits = tuple("test" if client == "person 0" else "train" for client in rows.clients)
    own_pairs = replace(rows, splits=splits, pair_ids=tuple(str(row) for row in range(len(rows))))

    people = population(own_pairs, Natural(), PairSplit(), seed=0)

    assert people.notes[0] == "A note of the source."
    assert "Training rows: 100; held out: 20 (the rows' own split)." in people.notes
    assert "Asked as newcomers, since they train nothing: 1 (person 0)." in people.notes
    assert any(note.startswith("Clients that train but have no held-out pairs: 5") for note in people.notes)
    assert any("under another pair id: 20." in note for note in people.notes)


def test_people_below_min_pairs_train_nothing_and_a_note_counts_their_rows() -> None:
    rows = judged()
    train = [row for row, client in enumerate(rows.clients) if client != "person 0"]
    with_a_rare_person = rows.take([*train, rows.clients.index("person 0")])
    given = replace(
        with_a_rare_person,
        pair_ids=tuple(str(row) for row in range(len(with_a_rare_person))),
        splits=("test", *["train"] * (len(with_a_rare_person) - 1)),
    )

    people = population(given, Natural(min_pairs=2), PairSplit(), seed=0)

    assert "person 0" not in {shard.name for shard in people.shards}
    assert "Training rows not used, of people below partition.min_pairs: 1." in people.notes


def test_known_people_meet_their_own_model_and_others_are_newcomers() -> None:
    asked = held_out_people(judged(), {"person 1": 0, "person 4": 1})

    assert {one.name: one.client_id for one in asked} == {
        "person 0": None,
        "person 1": 0,
        "person 2": None,
        "person 3": None,
        "person 4": 1,
        "person 5": None,
    }
    assert sum(len(one.pairs) for one in asked) == len(judged())


def test_an_inspection_counts_clients_pairs_and_texts() -> None:
    rows = judged(num_pairs=60, num_people=6)

    found = inspect(rows)

    assert found.num_rows == 120
    assert found.num_pairs == 60
    assert found.num_texts == 120
    assert set(found.clients.values()) == {20}
    assert found.rows_per_client == (20.0,) * 7
    assert found.topics == {"topic 0": 40, "topic 1": 40, "topic 2": 40}
    assert found.splits == {}
    assert found.chosen_is_longer == 0.5


def test_examples_are_spread_over_the_rows_and_never_repeat() -> None:
    assert [example.row for example in inspect(judged()).examples] == [0, 59, 119]
    assert [example.row for example in inspect(judged().take([0, 1])).examples] == [0, 1]


def test_a_population_refuses_owners_that_do_not_exist_and_names_that_repeat() -> None:
    none = Pairs((), (), (), (), ())

    with pytest.raises(ValueError, match="shard 0 belongs to client 1"):
        Population([Shard(1, "a", none)], [])
    with pytest.raises(ValueError, match="held-out set 'a' names client 1"):
        Population([Shard(0, "a", none)], [HeldOut("a", 1, none)])
    with pytest.raises(ValueError, match="names of held-out sets repeat"):
        Population([Shard(0, "a", none)], [HeldOut("b", None, none), HeldOut("b", 0, none)])
