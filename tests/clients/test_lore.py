"""A shared basis, and mixing weights on the simplex that are fitted at home."""

from __future__ import annotations

import numpy as np
import pytest

from fedpref.clients.linear_reward import LinearReward
from fedpref.clients.lore import Lore, simplex_fit
from fedpref.errors import ConfigurationError
from fedpref.models import Given
from fedpref.objectives.margin import bradley_terry_pull
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


def test_fitted_weights_are_on_the_simplex_and_stationary_there() -> None:
    rng, prior, ridge = np.random.default_rng(5), np.array([0.5, 0.3, 0.2]), 0.8
    features = rng.standard_normal((25, 3)) + np.array([0.0, 0.6, 0.2])
    w = simplex_fit(features, prior, ridge)
    assert w.sum() == pytest.approx(1.0, abs=1e-12)
    assert (w > 0).all()
    gradient = -(bradley_terry_pull(features @ w) @ features) + ridge * np.log(w / prior)
    assert np.ptp(gradient) < 1e-5  # equal in all directions: no move within the simplex lowers the objective


def test_without_pairs_the_weights_are_the_prior() -> None:
    prior = np.array([0.7, 0.2, 0.1])
    np.testing.assert_allclose(simplex_fit(np.zeros((0, 3)), prior, 1.0), prior, atol=1e-12)


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
