"""People whom no client has seen: the same law, addresses of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpref.data.assembly import pool
from fedpref.data.synthetic import Synthetic, SyntheticTruth
from fedpref.errors import ConfigurationError
from fedpref.types import Pairs, Population


def draw(seed: int = 0, **given: Any) -> Population:
    return Synthetic(**{"form": "attributes", "num_clients": 6, **given}).population(seed)


def same(one: Pairs, other: Pairs) -> bool:
    sides = [(one.chosen, other.chosen), (one.rejected, other.rejected)]
    return one.pair_ids == other.pair_ids and all(np.array_equal(a, b) for a, b in sides)


def test_unseen_people_change_nothing_about_the_clients() -> None:
    without, with_them = draw(), draw(unseen=4)
    for shard, other in zip(without.shards, with_them.shards, strict=True):
        assert same(shard.pairs, other.pairs)
    for person, other in zip(without.held_out, with_them.held_out[:6], strict=True):
        assert same(person.pairs, other.pairs) and person.shots is None and other.shots is None
    assert with_them.held_out[:6] != [] and len(with_them.held_out) == 10


def test_an_unseen_person_depends_neither_on_the_clients_nor_on_the_other_unseen() -> None:
    few, many = draw(unseen=2).held_out[6], draw(num_clients=20, unseen=5).held_out[20]
    assert few.name == many.name == "unseen-000"
    assert few.shots is not None and many.shots is not None
    assert same(few.pairs, many.pairs) and same(few.shots, many.shots)


def test_an_unseen_person_is_a_newcomer_with_a_hundred_shots() -> None:
    population = draw(unseen=3, test_pairs=17)
    for person in population.held_out[6:]:
        assert person.client_id is None and len(person.pairs) == 17
        assert person.shots is not None and len(person.shots) == 100
        assert not set(person.shots.pair_ids) & set(person.pairs.pair_ids)
    assert any("Unseen people: 3" in note for note in population.notes)
    assert not any("Unseen" in note for note in draw().notes)


def test_the_truth_knows_them_after_the_clients() -> None:
    population = draw(unseen=3)
    truth = population.truth
    assert isinstance(truth, SyntheticTruth)
    assert len(truth.annotators) == len(truth.held_out) == len(truth.groups) == 9
    assert len(truth.training) == 6 and len(truth.shots) == 3
    for index, annotator in enumerate(truth.annotators):
        hidden = truth.held_out[index]
        reward = (hidden.psi_chosen - hidden.psi_rejected) @ annotator.theta
        np.testing.assert_allclose(np.log(hidden.p_chosen / (1 - hidden.p_chosen)), annotator.beta * reward)


def test_groups_of_the_unseen_have_their_shares_too() -> None:
    population = draw(num_clients=1, unseen=120)
    assert population.truth is not None
    counts = np.bincount(population.truth.groups[1:], minlength=4)
    np.testing.assert_allclose(counts / 120, [0.5, 0.25, 0.15, 0.1], atol=0.03)


def test_shots_have_the_noise_of_training_labels_and_held_out_pairs_have_none() -> None:
    truth = draw(num_clients=1, unseen=20, flips=0.3).truth
    assert isinstance(truth, SyntheticTruth)
    flipped = np.concatenate([judgement.is_flipped for judgement in truth.shots])
    assert flipped.mean() == pytest.approx(0.3, abs=0.05)  # 2,000 labels: standard error 0.01
    assert not np.concatenate([judgement.is_flipped for judgement in truth.held_out]).any()


def test_written_texts_come_back_from_the_cache(tmp_path: Path) -> None:
    given = {"preset": "tiny", "num_clients": 2, "unseen": 1, "form": "text", "cache_dir": tmp_path}
    first, second = draw(**given), draw(**given)
    assert first.held_out[-1].shots is not None and second.held_out[-1].shots is not None
    assert first.held_out[-1].shots.chosen == second.held_out[-1].shots.chosen


def test_pooling_leaves_newcomers_what_they_are() -> None:
    population = draw(unseen=2)
    pooled = pool(population)
    assert [person.client_id for person in pooled.held_out] == [0] * 6 + [None] * 2
    assert [person.shots for person in pooled.held_out] == [person.shots for person in population.held_out]


@pytest.mark.parametrize("unseen", [-1, 1.5, True])
def test_a_number_of_people_is_a_whole_number(unseen: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"data\.unseen="):
        Synthetic(unseen=unseen)
