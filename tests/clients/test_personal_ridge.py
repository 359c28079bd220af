"""The global head with a ridge solution around it at home."""

from __future__ import annotations

import numpy as np
import pytest
from cohorts import assert_cohort_equals_singles, assert_parts_equal_singles

from fedpref.clients.linear_reward import LinearReward
from fedpref.clients.personal_ridge import PersonalRidge
from fedpref.errors import ConfigurationError
from fedpref.models import Given
from fedpref.objectives.convex import convex_fit
from fedpref.types import ClientState, Pairs, Personal, Shard, Task

DIM = 4


def _shard(num_pairs: int = 30) -> Shard:
    rng, names = np.random.default_rng(3), [str(i) for i in range(num_pairs)]
    chosen, rejected = rng.standard_normal((2, num_pairs, DIM)) + np.array([[[0.5]], [[0.0]]])
    return Shard(0, "0", Pairs(names, chosen, rejected, names, names))


def test_training_is_linear_rewards_bit_for_bit() -> None:
    shard, ridge, plain = _shard(), PersonalRidge(Given(DIM)), LinearReward(Given(DIM))
    task = Task(0, plain.fresh(np.random.default_rng(0)))
    one, state = ridge.answer(task, shard, ClientState(), np.random.default_rng(1))
    other, _ = plain.answer(task, shard, ClientState(), np.random.default_rng(1))
    np.testing.assert_array_equal(one.weights["score.weight"], other.weights["score.weight"])
    assert not state.arrays
    assert not state.numbers


def test_a_client_gets_the_ridge_solution_around_the_global_head() -> None:
    rule, shard = PersonalRidge(Given(DIM), ridge=2.0), _shard()
    assert isinstance(rule, Personal)
    weights = {"score.weight": np.arange(DIM, dtype=np.float32)[None]}
    own = rule.personalise(weights, shard, ClientState())["score.weight"][0]
    z = np.asarray(shard.pairs.chosen) - np.asarray(shard.pairs.rejected)
    np.testing.assert_allclose(own, convex_fit(z, np.arange(DIM), 2.0), atol=1e-5)


def test_whoever_has_no_pairs_gets_the_global_head() -> None:
    rule = PersonalRidge(Given(DIM))
    weights = {"score.weight": np.ones((1, DIM), np.float32)}
    empty = Shard(0, "0", _shard().pairs.take([]))
    for shard in (None, empty):
        np.testing.assert_array_equal(
            rule.personalise(weights, shard, ClientState())["score.weight"], weights["score.weight"]
        )


def test_a_ridge_of_zero_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"client\.ridge"):
        PersonalRidge(Given(DIM), ridge=0.0)


def test_a_cohort_trains_the_global_head_as_each_client_does_alone() -> None:
    rule = PersonalRidge(Given(DIM))
    weights = rule.fresh(np.random.default_rng(0))
    shards = [_shard(count) for count in (30, 0, 1, 50)]
    assert_cohort_equals_singles(rule, [Task(i, weights) for i in range(4)], shards)


@pytest.mark.parametrize("dim", [DIM, 200])  # with many dimensions the solves are of the pairs, one by one
def test_parts_added_together_are_those_added_one_by_one(dim: int) -> None:
    rule, rng = PersonalRidge(Given(dim)), np.random.default_rng(0)
    shards: list[Shard | None] = [None]
    for i, count in enumerate((30, 1, 0, 40)):
        names, (chosen, rejected) = [str(pair) for pair in range(count)], rng.standard_normal((2, count, dim))
        shards.append(Shard(i, str(i), Pairs(names, chosen, rejected, names, names)))
    weights = [{"score.weight": rng.standard_normal((1, dim)).astype(np.float32)} for _ in shards]
    assert_parts_equal_singles(rule, weights, shards)
