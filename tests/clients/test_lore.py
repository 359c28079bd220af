"""A shared basis, and mixing weights on the simplex that are fitted at home."""

from __future__ import annotations

import numpy as np
import pytest
from cohorts import assert_cohort_equals_singles, assert_parts_equal_singles

from fedpref.clients.linear_reward import LinearReward
from fedpref.clients.lore import Lore
from fedpref.errors import ConfigurationError
from fedpref.models import Given
from fedpref.types import ClientState, Pairs, Shard, Task

DIM = 6


def _shard(num_pairs: int = 30) -> Shard:
    rng, names = np.random.default_rng(3), [str(i) for i in range(num_pairs)]
    chosen, rejected = rng.standard_normal((2, num_pairs, DIM)) + np.array([[[0.5]], [[0.0]]])
    return Shard(0, "0", Pairs(names, chosen, rejected, names, names))


def test_one_head_is_bradley_terry_bit_for_bit() -> None:
    shard, plain = _shard(), LinearReward(Given(DIM), local_steps=7, batch_pairs=8)
    lore = Lore(Given(DIM), 1, local_steps=7, batch_pairs=8)
    theirs, ours = plain.fresh(np.random.default_rng(0)), lore.fresh(np.random.default_rng(0))
    for task in range(3):
        rng = [np.random.default_rng(task) for _ in range(2)]
        theirs = plain.answer(Task(0, theirs), shard, ClientState(), rng[0])[0].weights
        ours = lore.answer(Task(0, ours), shard, ClientState(), rng[1])[0].weights
        np.testing.assert_array_equal(ours["basis.weight"], theirs["score.weight"])
    own = lore.personalise(ours, shard, ClientState())
    np.testing.assert_array_equal(lore.margins(own, shard.pairs), plain.margins(theirs, shard.pairs))


def test_a_client_sends_its_weights_as_its_own_value_of_the_mean() -> None:
    rule, shard = Lore(Given(DIM), 3, ridge=0.5), _shard()
    weights = rule.fresh(np.random.default_rng(0))
    reply, state = rule.answer(Task(0, weights), shard, ClientState(), np.random.default_rng(0))
    own = reply.weights["prior.mean"]
    assert own.sum() == pytest.approx(1.0, abs=1e-6) and (own > 0).all() and np.ptp(own) > 0.1
    head = rule.personalise(weights, shard, ClientState())["score.weight"][0]
    np.testing.assert_allclose(own @ weights["basis.weight"], head, atol=1e-6)
    assert not state.arrays


def test_a_dear_divergence_leaves_everybody_the_mean_weights() -> None:
    rule, shard = Lore(Given(DIM), 3, ridge=1e9), _shard()
    weights = rule.fresh(np.random.default_rng(0))
    served, newcomer = (
        rule.personalise(weights, who, ClientState())["score.weight"] for who in (shard, None)
    )
    np.testing.assert_allclose(served, newcomer, atol=1e-5)


def test_permuting_heads_permutes_weights_and_leaves_the_client_its_head() -> None:
    rule, shard = Lore(Given(DIM), 3), _shard()
    weights = rule.fresh(np.random.default_rng(0))
    order = [2, 0, 1]
    permuted = {key: array[order] for key, array in weights.items()}
    one = rule.personalise(weights, shard, ClientState())["score.weight"]
    other = rule.personalise(permuted, shard, ClientState())["score.weight"]
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_more_heads_than_dimensions_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"client\.num_heads"):
        Lore(Given(DIM), DIM + 1)


@pytest.mark.parametrize("batch_pairs", [None, 8])
def test_a_cohort_gets_what_each_client_gets_alone(batch_pairs: int | None) -> None:
    rule = Lore(Given(DIM), 3, batch_pairs=batch_pairs)
    weights = [rule.fresh(np.random.default_rng(seed)) for seed in range(2)]
    settings = [{"local_steps": 2}, {"proximal_mu": 0.5}, {}]
    tasks = [Task(i, weights[i % 2], settings=settings[i % 3]) for i in range(6)]
    assert_cohort_equals_singles(rule, tasks, [_shard(count) for count in (30, 1, 0, 40, 2, 7)])


def test_parts_added_together_are_those_added_one_by_one() -> None:
    rule = Lore(Given(DIM), 3)
    weights = [rule.fresh(np.random.default_rng(seed % 2)) for seed in range(5)]
    assert_parts_equal_singles(rule, weights, [_shard(30), None, _shard(0), _shard(1), _shard(70)])
