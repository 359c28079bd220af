"""A mixture prior of personal heads, learned from moments that are running means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from cohorts import assert_cohort_equals_singles, assert_parts_equal_singles

from fedpref.cli.compose import compose, parse_words, plain
from fedpref.cli.targets import build
from fedpref.clients.mixture_prior import MixturePrior, prior_of
from fedpref.errors import ConfigurationError
from fedpref.maths.mixture import apart
from fedpref.models import Given
from fedpref.types import ClientState, HasWorkload, Pairs, Shard, Task, Weights, Workload

DIM = 3


def _shard(head: np.ndarray, num_pairs: int, seed: int) -> Shard:
    rng, names = np.random.default_rng(seed), [str(i) for i in range(num_pairs)]
    z = rng.standard_normal((num_pairs, len(head)))
    z *= np.where(rng.random(num_pairs) < 1 / (1 + np.exp(-(z @ head))), 1, -1)[:, None]
    return Shard(seed, str(seed), Pairs(names, z, np.zeros_like(z), names, names))


def _em(rule: MixturePrior, weights: Weights, shards: Sequence[Shard], rounds: int) -> Weights:
    """Rounds in which all take part: FedAvg with equal shares and a step of 1."""
    for _ in range(rounds):
        replies = [
            rule.answer(Task(0, weights), shard, ClientState(), np.random.default_rng(0))[0].weights
            for shard in shards
        ]
        weights = {
            key: np.stack([reply[key] for reply in replies]).mean(axis=0).astype(np.float32)
            for key in weights
        }
    return weights


def test_moments_give_back_the_prior_that_they_are_of() -> None:
    means = np.array([[1.0, 0.0, 2.0], [-1.0, 3.0, 0.0]])
    covariance = np.array([[1.0, 0.3, 0.0], [0.3, 0.5, 0.1], [0.0, 0.1, 0.2]])
    shares = np.array([0.25, 0.75])
    moments = {
        "prior.weight": shares,
        "prior.first": shares[:, None] * means,
        "prior.second": covariance + (shares[:, None] * means).T @ means,
    }
    prior = prior_of(moments, 1e-6, 1e-6)
    np.testing.assert_allclose(prior.weights, shares)
    np.testing.assert_allclose(prior.means, means)
    np.testing.assert_allclose(np.linalg.inv(prior.precision), covariance, atol=1e-9)


def test_no_variance_falls_below_its_floor() -> None:
    moments = {"prior.weight": np.ones(1), "prior.first": np.zeros((1, 2)), "prior.second": np.zeros((2, 2))}
    np.testing.assert_allclose(prior_of(moments, 0.05, 0.1).precision, 20 * np.eye(2))


def test_a_client_without_pairs_sends_back_what_came_and_weighs_nothing() -> None:
    rule = MixturePrior(Given(DIM), 2)
    weights = rule.fresh(np.random.default_rng(0))
    empty = _shard(np.zeros(DIM), 0, 0)
    reply, _ = rule.answer(Task(0, weights), empty, ClientState(), np.random.default_rng(0))
    assert reply.num_pairs == 0
    for key, array in weights.items():
        np.testing.assert_array_equal(reply.weights[key], array)


def test_one_component_learns_along_which_direction_people_differ() -> None:
    rng = np.random.default_rng(2)
    heads = np.array([2.0, 0.0, 0.0]) + rng.standard_normal((60, 1)) * np.array([0.0, 1.5, 0.0])
    shards = [_shard(head, 60, seed) for seed, head in enumerate(heads)]
    rule = MixturePrior(Given(DIM), 1)
    learned = _em(rule, rule.fresh(rng), shards, 15)
    prior = prior_of(learned, rule.least_variance, rule.least_weight)
    variances = np.diag(np.linalg.inv(prior.precision))
    assert variances[1] > 5 * max(variances[0], variances[2])
    np.testing.assert_allclose(prior.means[0], heads.mean(axis=0), atol=0.3)


def test_two_opposite_tastes_become_two_components_and_clients_know_theirs() -> None:
    tastes = np.array([[2.0, 1.0, 0.0], [-2.0, 1.0, 0.0]])
    shards = [_shard(tastes[seed % 2], 25, seed) for seed in range(40)]
    rule = MixturePrior(Given(DIM), 2)
    one = _em(rule, rule.fresh(np.random.default_rng(1)), shards, 5)
    learned = _em(rule, apart(one, 0.2, np.random.default_rng(1))[0], shards, 15)
    prior = prior_of(learned, rule.least_variance, rule.least_weight)
    order = np.argsort(-prior.means[:, 0])
    np.testing.assert_allclose(prior.means[order], tastes, atol=0.6)
    for seed, shard in enumerate(shards[:6]):
        own = rule.personalise(learned, shard, ClientState())["score.weight"][0]
        assert np.linalg.norm(own - tastes[seed % 2]) < np.linalg.norm(own - tastes[1 - seed % 2])
    newcomer = rule.personalise(learned, None, ClientState())["score.weight"][0]
    np.testing.assert_allclose(newcomer, tastes.mean(axis=0), atol=0.4)


def test_the_diagonal_of_a_wide_head_travels_without_its_square() -> None:
    rule = MixturePrior(Given(200), 1, covariance="diagonal")
    weights = rule.fresh(np.random.default_rng(0))
    assert weights["prior.second"].shape == (200,)
    shard = _shard(np.eye(200)[0] * 3, 20, 1)
    reply, _ = rule.answer(Task(0, weights), shard, ClientState(), np.random.default_rng(0))
    spread = reply.weights["prior.second"] - reply.weights["prior.first"][0] ** 2
    assert (spread > 0).all()
    assert (spread <= rule.init_variance + 1e-5).all()  # pairs can only add precision


@pytest.mark.parametrize(
    ("kind", "dim", "ndim"),
    [("auto", 64, 2), ("auto", 65, 1), ("full", 65, 2), ("diagonal", 64, 1)],
)
def test_a_covariance_is_learned_whole_up_to_64_features_unless_told_otherwise(
    kind: Literal["full", "diagonal", "auto"], dim: int, ndim: int
) -> None:
    weights = MixturePrior(Given(dim), 1, covariance=kind).fresh(np.random.default_rng(0))
    assert weights["prior.second"].ndim == ndim


def test_the_preset_of_the_strategy_brings_the_rule_and_makes_moments_running_means() -> None:
    words = ["strategy=mixture_prior", "strategy.inner.server_lr=0.1", "cohort_size=7"]
    config = plain(compose(parse_words(words).all_overrides))
    assert config["client"]["_target_"].endswith("MixturePrior")
    inner = build(config["strategy"], "strategy").inner
    assert (inner.cohort_size, inner.share, inner.server_lr) == (7, "clients", 0.1)
    assert inner.split_at is not None


def test_an_unknown_covariance_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"client\.covariance"):
        MixturePrior(Given(DIM), covariance="round")  # type: ignore[arg-type]


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize("num_pairs", [2, 30])
def test_a_client_does_at_least_the_work_that_was_told_and_just_that_where_it_learns_nothing(
    num_pairs: int, covariance: Literal["full", "diagonal"]
) -> None:
    rule = MixturePrior(Given(DIM), 2, covariance=covariance)
    weights, shard = rule.fresh(np.random.default_rng(0)), _shard(np.ones(DIM), num_pairs, 1)
    told = rule.workload(Task(0, {}), shard)
    assert isinstance(rule, HasWorkload) and told.memory_bytes > 0

    def reported(shard: Shard) -> float:
        reply, _ = rule.answer(Task(0, weights), shard, ClientState(), np.random.default_rng(0))
        return reply.metrics["flops"]

    same = np.zeros((num_pairs, DIM))
    names = [str(i) for i in range(num_pairs)]
    assert reported(Shard(0, "0", Pairs(names, same, same, names, names))) == told.flops < reported(shard)


def test_a_client_without_pairs_and_a_task_that_is_refused_are_no_work() -> None:
    rule = MixturePrior(Given(DIM), 2)
    for task, num_pairs in ((Task(0, {}), 0), (Task(0, {}, "score"), 5)):
        assert rule.workload(task, _shard(np.zeros(DIM), num_pairs, 0)) == Workload(0.0, 0.0)


def test_a_wide_diagonal_takes_no_square_of_the_dimension_in_memory() -> None:
    shard = _shard(np.eye(1000)[0], 10, 1)
    diagonal, full = (
        MixturePrior(Given(1000), 1, covariance=kind).workload(Task(0, {}), shard)
        for kind in ("diagonal", "full")
    )
    assert diagonal.memory_bytes < 8 * 1000**2 < full.memory_bytes
    assert diagonal.flops < full.flops / 100


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_a_cohort_sends_the_moments_that_each_client_sends_alone(
    covariance: Literal["full", "diagonal"],
) -> None:
    rule, rng = MixturePrior(Given(DIM), 3, covariance=covariance), np.random.default_rng(3)
    shards = [
        _shard(2 * rng.standard_normal(DIM), n, seed) for seed, n in enumerate([40, 0, 2, 1, 7, 200, 5])
    ]
    broken = shards[4].pairs.chosen.copy()
    broken[1, 0] = np.nan
    shards[4] = Shard(4, "4", replace(shards[4].pairs, chosen=broken))
    learned = _em(rule, rule.fresh(rng), [shards[0], shards[5]], 2)
    parted = {**learned, "prior.first": learned["prior.first"] + rng.standard_normal((3, DIM)).astype("f")}
    tasks = [Task(i, parted if i % 2 else learned) for i in range(len(shards))]
    with np.errstate(invalid="ignore"):
        assert_cohort_equals_singles(rule, tasks, shards)


def test_a_cohort_in_which_no_client_has_pairs_sends_back_what_came() -> None:
    rule = MixturePrior(Given(DIM), 2)
    weights = rule.fresh(np.random.default_rng(0))
    assert_cohort_equals_singles(rule, [Task(0, weights)], [_shard(np.zeros(DIM), 0, 0)])


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_parts_added_together_are_those_added_one_by_one(covariance: Literal["full", "diagonal"]) -> None:
    rule, rng = MixturePrior(Given(DIM), 3, covariance=covariance), np.random.default_rng(3)
    people = [_shard(2 * rng.standard_normal(DIM), n, seed) for seed, n in enumerate([40, 0, 2, 1, 200])]
    fresh = rule.fresh(rng)
    parted = {**fresh, "prior.first": fresh["prior.first"] + rng.standard_normal((3, DIM)).astype("f") / 9}
    shards = [None, *people]
    assert_parts_equal_singles(rule, [parted if i % 2 else fresh for i in range(6)], shards)
