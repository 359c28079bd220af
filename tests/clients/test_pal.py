"""Ideal points: distances, mixtures of prototypes, and what a client learns at home."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cohorts import assert_cohort_equals_singles, assert_parts_equal_singles

from fedpref.clients.pal import Pal
from fedpref.data.synthetic import Synthetic
from fedpref.errors import ConfigurationError, FederationError
from fedpref.federation.federation import Federation
from fedpref.models import Given
from fedpref.seeds import generator
from fedpref.strategies.fedavg import FedAvg
from fedpref.types import ClientState, HasWorkload, Pairs, Personal, Reply, Settings, Shard, Task, Weights

DIM, LATENT, COUNT = 5, 3, 4
MAP, PROTOTYPES, MIXTURE = "map.weight", "prototypes.weight", "mixture.weight"


def rule(**options: object) -> Pal:
    base = {"backbone": Given(DIM), "latent_dim": LATENT, "num_prototypes": COUNT}
    return Pal(**{**base, **options})  # type: ignore[arg-type]


def pairs_of(chosen: np.ndarray, rejected: np.ndarray) -> Pairs:
    count = len(chosen)
    return Pairs(("",) * count, chosen, rejected, tuple(map(str, range(count))), ("",) * count)


def random_shard(num_pairs: int = 30, seed: int = 0) -> Shard:
    """Judged by an ideal point, with noise."""
    rng = generator(seed, "pairs")
    point, (left, right) = 2 * rng.standard_normal(DIM), rng.standard_normal((2, num_pairs, DIM))
    nearer = ((right - point) ** 2).sum(1) - ((left - point) ** 2).sum(1)
    likes_left = (nearer + rng.logistic(size=num_pairs) > 0)[:, None]
    return Shard(
        seed, str(seed), pairs_of(np.where(likes_left, left, right), np.where(likes_left, right, left))
    )


def weights_of(seed: int = 1) -> dict[str, np.ndarray]:
    shapes = {MAP: (LATENT, DIM), PROTOTYPES: (COUNT, LATENT)}
    return {
        key: (0.5 * generator(seed, key).standard_normal(shape)).astype(np.float32)
        for key, shape in shapes.items()
    }


def train(
    learner: Pal, weights: Weights, shard: Shard, settings: Settings | None = None
) -> tuple[Reply, ClientState]:
    task = Task(shard.client_id, weights, settings=settings or {})
    return learner.answer(task, shard, ClientState(), generator(0, "task"))


def served(learner: Pal, weights: Weights, mixture: np.ndarray, pairs: Pairs) -> np.ndarray:
    return learner.margins({**weights, MIXTURE: mixture}, pairs)


def test_one_pair_by_hand() -> None:
    learner = Pal(Given(2), num_prototypes=2, latent_dim=2)
    weights = {
        MAP: np.eye(2, dtype=np.float32),
        PROTOTYPES: np.array([[0.0, 0.0], [4.0, 0.0]], np.float32),
    }
    pairs = pairs_of(np.array([[1.0, 0.0]]), np.array([[3.0, 1.0]]))  # near the first, near the second
    for mixture, expected in ([1, 0], 10 - 1), ([0, 1], 2 - 9), ([0.5, 0.5], 2 - 1):
        assert served(learner, weights, np.array(mixture), pairs)[0] == pytest.approx(expected)


def test_margins_are_differences_of_squared_distances_to_the_mixture() -> None:
    shard, weights, mixture = random_shard(), weights_of(), np.array([0.1, 0.2, 0.3, 0.4])
    point = mixture @ weights[PROTOTYPES].astype(np.float64)
    chosen, rejected = (
        np.asarray(side, np.float32).astype(np.float64) @ weights[MAP].astype(np.float64).T - point
        for side in (shard.pairs.chosen, shard.pairs.rejected)
    )
    expected = (rejected**2).sum(1) - (chosen**2).sum(1)
    np.testing.assert_allclose(served(rule(), weights, mixture, shard.pairs), expected, atol=1e-5)


def test_a_rotation_of_map_and_prototypes_changes_nothing() -> None:
    shard, weights = random_shard(), weights_of()
    turn = np.linalg.qr(generator(5, "turn").standard_normal((LATENT, LATENT)))[0]
    turned = {
        MAP: (turn @ weights[MAP]).astype(np.float32),
        PROTOTYPES: (weights[PROTOTYPES] @ turn.T).astype(np.float32),
    }
    first, second = (rule().personalise(some, shard, ClientState()) for some in (weights, turned))
    np.testing.assert_allclose(first[MIXTURE], second[MIXTURE], atol=1e-4)
    np.testing.assert_allclose(
        rule().margins(first, shard.pairs), rule().margins(second, shard.pairs), atol=1e-3
    )


def test_equally_distant_items_are_a_toss_up_and_swapped_ones_negate_the_margin() -> None:
    shard, weights = random_shard(), weights_of()
    swapped = pairs_of(np.asarray(shard.pairs.rejected), np.asarray(shard.pairs.chosen))
    np.testing.assert_array_equal(rule().margins(weights, swapped), -rule().margins(weights, shard.pairs))
    same = pairs_of(np.asarray(shard.pairs.chosen), np.asarray(shard.pairs.chosen))
    assert not rule().margins(weights, same).any()


def test_a_client_learns_weights_on_the_simplex_and_nothing_else() -> None:
    shard, weights = random_shard(), weights_of()
    personal = rule(precision=0.1).personalise(weights, shard, ClientState())
    mixture = personal[MIXTURE]
    assert mixture.sum() == pytest.approx(1) and (mixture >= 0).all() and np.ptp(mixture) > 0.1
    assert personal.keys() - weights.keys() == {MIXTURE}
    assert all(personal[key] is weights[key] for key in weights)
    newcomer = rule().personalise(weights, None, ClientState())
    losses = [np.logaddexp(0, -rule().margins(w, shard.pairs)).mean() for w in (personal, newcomer)]
    assert losses[0] < losses[1]


def test_a_newcomer_without_pairs_is_at_the_middle_of_the_prototypes() -> None:
    weights, shard = weights_of(), random_shard()
    for nobody in (None, Shard(0, "0", shard.pairs.take([]))):
        newcomer = rule().personalise(weights, nobody, ClientState())
        np.testing.assert_array_equal(newcomer[MIXTURE], np.full(COUNT, 0.25))
    np.testing.assert_array_equal(rule().margins(weights, shard.pairs), rule().margins(newcomer, shard.pairs))


def test_with_one_prototype_everybody_shares_one_ideal_point() -> None:
    learner, shards = rule(num_prototypes=1), [random_shard(seed=seed) for seed in range(2)]
    weights = learner.fresh(generator(0, "global"))
    for shard in (*shards, None):
        assert learner.personalise(weights, shard, ClientState())[MIXTURE].tolist() == [1.0]
    point, place = weights[PROTOTYPES][0].astype(np.float64), weights[MAP].astype(np.float64)
    chosen, rejected = (
        np.asarray(side, np.float32).astype(np.float64)
        for side in (shards[0].pairs.chosen, shards[0].pairs.rejected)
    )
    far = [((side @ place.T - point) ** 2).sum(1) for side in (rejected, chosen)]
    np.testing.assert_allclose(learner.margins(weights, shards[0].pairs), far[0] - far[1], atol=1e-6)


@pytest.mark.parametrize("mu", [0.0, 0.7])
def test_a_step_goes_down_the_gradient_with_the_mixture_fixed(mu: float) -> None:
    learner, shard, weights = rule(local_steps=1, batch_pairs=None, lr=0.01), random_shard(), weights_of()
    mixture = learner.personalise(weights, shard, ClientState())[MIXTURE]
    reply, _ = train(learner, weights, shard, {"proximal_mu": mu})  # at the anchor the pull is nothing
    for key in weights:
        direction = generator(3, key).standard_normal(weights[key].shape)
        ahead, behind = (
            np.logaddexp(
                0,
                -served(
                    learner,
                    {**weights, key: (weights[key] + sign * 1e-2 * direction).astype(np.float32)},
                    mixture,
                    shard.pairs,
                ),
            ).mean()
            for sign in (1, -1)
        )
        moved = np.vdot(reply.weights[key].astype(np.float64) - weights[key], direction)
        assert moved == pytest.approx(-0.01 * (ahead - behind) / 2e-2, rel=1e-2, abs=1e-6)


def test_training_lowers_the_loss_keeps_nothing_and_sends_no_mixture() -> None:
    learner, shard = rule(local_steps=50), random_shard()
    reply, state = train(learner, weights_of(), shard)
    assert reply.metrics["loss_after"] < reply.metrics["loss_before"]
    assert reply.weights.keys() == {MAP, PROTOTYPES}
    assert not state.arrays and not state.numbers
    assert isinstance(learner, Personal) and isinstance(learner, HasWorkload)
    assert 0 < learner.workload(Task(0, {}), shard).flops < reply.metrics["flops"]


def test_fresh_weights_start_near_log_two_with_prototypes_that_differ() -> None:
    learner, shard = rule(map_std=1e-3), random_shard()
    weights = learner.fresh(generator(0, "global"))
    reply, _ = train(learner, weights, shard)
    assert reply.metrics["loss_before"] == pytest.approx(math.log(2), abs=1e-2)
    assert np.abs(np.diff(weights[PROTOTYPES], axis=0)).min() > 0
    again = learner.fresh(generator(0, "global"))
    assert all(np.array_equal(weights[key], again[key]) for key in weights)


@pytest.mark.slow
def test_several_ideal_points_serve_opposite_tastes_and_one_does_not() -> None:
    population = Synthetic(preset="conflict", form="attributes", num_clients=20, test_pairs=40).population(3)
    accuracy = []
    for count in (1, 3):
        learner = Pal(Given(12), num_prototypes=count, local_steps=10, batch_pairs=None)
        result = Federation(population, learner, FedAvg(), rounds=20, seed=0).run()
        accuracy.append(result.evaluation.aggregate["user_accuracy"])
    assert accuracy[1] > accuracy[0] + 0.03


def test_a_client_without_pairs_returns_what_it_received() -> None:
    weights = weights_of()
    reply, _ = train(rule(), weights, Shard(0, "0", random_shard().pairs.take([])))
    assert reply.num_pairs == 0 and reply.weights == weights


def test_a_client_whose_every_step_is_skipped_fails() -> None:
    pairs = random_shard(4).pairs
    hopeless = pairs_of(np.full((4, DIM), np.nan), np.asarray(pairs.rejected))
    with pytest.raises(FederationError, match="finite gradient"):
        train(rule(), weights_of(), Shard(0, "0", hopeless))


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"num_prototypes": 0}, "num_prototypes"),
        ({"latent_dim": DIM + 1}, "latent_dim"),
        ({"latent_dim": 0}, "latent_dim"),
        ({"lr": 0.0}, "lr"),
        ({"precision": -1.0}, "precision"),
        ({"map_std": 0.0}, "map_std"),
        ({"spread": 0.0}, "spread"),
        ({"local_steps": -1}, "local_steps"),
        ({"batch_pairs": 0}, "batch_pairs"),
    ],
)
def test_bad_options_are_refused_with_their_key(options: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"client\.{key}"):
        rule(**options)


def test_weights_of_another_shape_and_other_kinds_of_task_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="needs weights"):
        rule(num_prototypes=2).margins(weights_of(), random_shard().pairs)
    with pytest.raises(ConfigurationError, match="'score'"):
        rule().answer(Task(0, weights_of(), "score"), random_shard(), ClientState(), generator(0, "task"))


@pytest.mark.parametrize("batch_pairs", [None, 4])
def test_a_cohort_gets_what_each_client_gets_alone(batch_pairs: int | None) -> None:
    settings: list[Settings] = [{"local_steps": 2}, {"proximal_mu": 0.5}, {}]
    shards = [random_shard(count, i) for i, count in enumerate((30, 1, 0, 40, 2, 9))]
    if batch_pairs:  # with the whole shard in each batch, no step would be finite
        chosen = np.array(shards[5].pairs.chosen)
        chosen[1, 0] = np.nan
        shards[5] = Shard(5, "5", pairs_of(chosen, np.asarray(shards[5].pairs.rejected)))
    tasks = [Task(i, weights_of(i % 2), settings=settings[i % 3]) for i in range(6)]
    with np.errstate(invalid="ignore"):
        assert_cohort_equals_singles(rule(batch_pairs=batch_pairs), tasks, shards)


@pytest.mark.parametrize("precision", [0.0, 1.0])
def test_parts_added_together_are_those_added_one_by_one(precision: float) -> None:
    shards = [None, *(random_shard(count, i) for i, count in enumerate((30, 1, 0, 40)))]
    assert_parts_equal_singles(rule(precision=precision), [weights_of(i % 2) for i in range(5)], shards)
