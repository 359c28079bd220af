"""A shared basis, and unconstrained weights on it that are fitted at home."""

from __future__ import annotations

import numpy as np
import pytest
from cohorts import assert_cohort_equals_singles, assert_parts_equal_singles

from fedpref.clients.reward_features import RewardFeatures
from fedpref.errors import ConfigurationError
from fedpref.models import Given
from fedpref.objectives.convex import convex_fit
from fedpref.types import ClientState, Pairs, Shard, Task

DIM = 6


def _shard(num_pairs: int = 30) -> Shard:
    rng, names = np.random.default_rng(3), [str(i) for i in range(num_pairs)]
    chosen, rejected = rng.standard_normal((2, num_pairs, DIM)) + np.array([[[0.5]], [[0.0]]])
    return Shard(0, "0", Pairs(names, chosen, rejected, names, names))


def test_the_loss_starts_at_log_2_for_whoever_has_no_pairs() -> None:
    rule = RewardFeatures(Given(DIM), 3)
    weights = rule.fresh(np.random.default_rng(0))
    np.testing.assert_array_equal(rule.margins(weights, _shard().pairs), np.zeros(30))


def test_a_clients_head_lies_in_the_span_of_the_basis_and_is_the_convex_solution_there() -> None:
    rule, shard = RewardFeatures(Given(DIM), 3, ridge=2.0), _shard()
    weights = rule.fresh(np.random.default_rng(0))
    head = rule.personalise(weights, shard, ClientState())["score.weight"][0]
    basis = weights["basis.weight"].astype(np.float64)
    z = np.asarray(shard.pairs.chosen) - np.asarray(shard.pairs.rejected)
    own = convex_fit(z @ basis.T, np.array([1.0, 0.0, 0.0]), 2.0)
    np.testing.assert_allclose(head, own @ basis, atol=1e-6)


def test_a_client_sends_its_weights_as_its_own_value_of_the_mean() -> None:
    rule, shard = RewardFeatures(Given(DIM), 3, learn_prior=True, local_steps=0), _shard()
    weights = rule.fresh(np.random.default_rng(0))
    reply, state = rule.answer(Task(0, weights), shard, ClientState(), np.random.default_rng(0))
    head = rule.personalise(weights, shard, ClientState())["score.weight"][0]
    own = reply.weights["prior.mean"]
    np.testing.assert_allclose(own @ weights["basis.weight"], head, atol=1e-6)
    covariance = reply.weights["prior.second"] - np.outer(own, own)
    assert (np.linalg.eigvalsh(covariance) > 0).all()
    assert (np.linalg.eigvalsh(covariance) <= 1 / rule.ridge + 1e-5).all()  # pairs can only add precision
    assert not state.arrays


def test_only_the_basis_moves_in_local_steps_and_the_loss_falls() -> None:
    rule, shard = RewardFeatures(Given(DIM), 3), _shard()
    weights = rule.fresh(np.random.default_rng(0))
    before = {key: array.copy() for key, array in weights.items()}
    reply, _ = rule.answer(Task(0, weights), shard, ClientState(), np.random.default_rng(0))
    assert reply.metrics["loss_after"] < reply.metrics["loss_before"]
    moved = (reply.weights["basis.weight"] - before["basis.weight"]).astype(np.float64)
    assert np.linalg.matrix_rank(moved, tol=1e-5) == 1  # the outer product of its weights and a head
    for key, array in before.items():
        np.testing.assert_array_equal(weights[key], array)


def test_a_newcomer_gets_the_mean_weights() -> None:
    rule = RewardFeatures(Given(DIM), 2)
    basis = np.arange(2 * DIM, dtype=np.float32).reshape(2, DIM)
    weights = {"basis.weight": basis, "prior.mean": np.array([0.5, -1.0], np.float32)}
    head = rule.personalise(weights, None, ClientState())["score.weight"][0]
    np.testing.assert_array_equal(head, 0.5 * basis[0] - basis[1])


def test_more_features_than_dimensions_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"client\.num_features"):
        RewardFeatures(Given(DIM), DIM + 1)


@pytest.mark.parametrize("learn_prior", [False, True])
@pytest.mark.parametrize("batch_pairs", [None, 8])
def test_a_cohort_gets_what_each_client_gets_alone(learn_prior: bool, batch_pairs: int | None) -> None:
    rule = RewardFeatures(Given(DIM), 3, learn_prior=learn_prior, batch_pairs=batch_pairs)
    weights = [rule.fresh(np.random.default_rng(seed)) for seed in range(2)]
    settings = [{"local_steps": 2}, {"proximal_mu": 0.5}, {}]
    tasks = [Task(i, weights[i % 2], settings=settings[i % 3]) for i in range(6)]
    assert_cohort_equals_singles(rule, tasks, [_shard(count) for count in (30, 1, 0, 40, 2, 7)])


@pytest.mark.parametrize("learn_prior", [False, True])
def test_parts_added_together_are_those_added_one_by_one(learn_prior: bool) -> None:
    rule = RewardFeatures(Given(DIM), 3, learn_prior=learn_prior)
    weights = [rule.fresh(np.random.default_rng(seed % 2)) for seed in range(5)]
    assert_parts_equal_singles(rule, weights, [_shard(30), None, _shard(0), _shard(1), _shard(70)])
