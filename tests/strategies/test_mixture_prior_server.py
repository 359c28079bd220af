"""The schedule of a mixture prior's server: one Gaussian, a split, a held covariance, and then freedom."""

import json
from typing import Any

import numpy as np
import pytest

from fedpref.errors import ConfigurationError
from fedpref.federation.plain import from_plain, state_classes, to_plain
from fedpref.maths.mixture import FIRST, SECOND, SHARES
from fedpref.seeds import generator
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.mixture_prior import MixturePrior, MixtureState
from fedpref.types import Arrival, Update, Weights

H, K, HORIZON, NUM_CLIENTS = 3, 2, 10, 6


def fresh(*address: int | str) -> Weights:
    return {
        SHARES: np.full(K, 1 / K, np.float32),
        FIRST: np.zeros((K, H), np.float32),
        SECOND: np.eye(H, dtype=np.float32),
    }


def answered(strategy: Any, state: Any, round: int) -> tuple[Any, int]:
    """One round of clients whose moments are drawn; those of a head of norm about 2."""
    _, plan = strategy.plan(state, range(NUM_CLIENTS), 0.0, generator(0, "plan", round))
    arrivals = []
    for task in plan.tasks:
        rng = generator(0, "client", task.client_id, round)
        chances, head = rng.dirichlet(np.ones(K)), 2 * rng.standard_normal(H)
        own = {
            SHARES: chances,
            FIRST: np.outer(chances, head),
            SECOND: np.outer(head, head) + 0.1 * np.eye(H),
        }
        weights = {key: array.astype(np.float32) for key, array in own.items()}
        update = Update(weights, task.weights, 5, {}, task.client_id)
        arrivals.append(Arrival(task, update, "ok", 0, 0.0, 1.0))
    fold = strategy.fold(state, arrivals, 1.0, generator(0, "fold", round))
    return fold.state, fold.updated


def course(strategy: Any, rounds: int = HORIZON) -> list[Any]:
    states = [strategy.init(fresh, range(NUM_CLIENTS), HORIZON, generator(0, "init"))]
    for round in range(rounds):
        states.append(answered(strategy, states[-1], round)[0])
    return states


def covariance(state: MixtureState) -> np.ndarray:
    """Within the components."""
    moments = {key: array.astype(float) for key, array in state.model.weights.items()}
    means = moments[FIRST] / moments[SHARES][:, None]
    found: np.ndarray = moments[SECOND] - (moments[SHARES][:, None] * means).T @ means
    return found


def test_without_a_split_it_is_fedavg_to_the_bit() -> None:
    ours = course(MixturePrior(cohort_size=3, split_at=None))[-1].model.weights
    theirs = course(FedAvg(cohort_size=3, share="clients", server_lr=0.2))[-1].weights
    assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)


def test_until_the_split_it_is_fedavg_and_then_the_components_differ() -> None:
    ours, theirs = course(MixturePrior()), course(FedAvg(share="clients", server_lr=0.2))
    splits_at = ours[0].splits_at
    assert splits_at == round(0.25 * HORIZON)
    for before in range(splits_at):
        assert np.array_equal(ours[before].model.weights[FIRST], theirs[before].weights[FIRST])
    means = ours[splits_at].model.weights[FIRST]
    assert not np.allclose(means[0], means[1])


def test_the_covariance_is_held_for_its_share_of_the_run_and_then_moves() -> None:
    states = course(MixturePrior())
    held = [covariance(state) for state in states[states[0].splits_at : states[0].frees_at]]
    assert len(held) == round(0.3 * HORIZON)
    for later in held[1:]:
        np.testing.assert_allclose(later, held[0], atol=1e-5)
    assert not np.allclose(covariance(states[states[0].frees_at]), held[0], atol=1e-3)


@pytest.mark.parametrize("horizon", [1, 2])
def test_components_that_no_round_could_learn_are_not_drawn(horizon: int) -> None:
    strategy = MixturePrior(split_at=0.9, hold=0.0)
    state = strategy.init(fresh, range(NUM_CLIENTS), horizon, generator(0, "init"))
    for round in range(horizon):
        state, _ = answered(strategy, state, round)
    theirs = course(FedAvg(share="clients", server_lr=0.2))[horizon].weights
    assert all(np.array_equal(state.model.weights[key], theirs[key]) for key in theirs)


def test_a_state_of_the_hold_that_was_saved_goes_on_to_the_bit() -> None:
    strategy, at = MixturePrior(), 4
    states = course(strategy)
    assert states[at].within.dtype == np.float64 and states[at].within.size
    arrays: dict[str, np.ndarray] = {}
    tree = json.loads(json.dumps(to_plain(states[at], arrays)))
    restored = from_plain(tree, arrays, state_classes(strategy))
    for round in range(at, HORIZON):
        restored, _ = answered(strategy, restored, round)
    for key, array in states[-1].model.weights.items():
        assert np.array_equal(restored.model.weights[key], array)


def test_a_part_of_the_gaussians_covariance_remains_within_each_component() -> None:
    states = course(MixturePrior(spread=0.3))
    splits_at = states[0].splits_at
    moments = course(FedAvg(share="clients", server_lr=0.2))[splits_at].weights
    mean = moments[FIRST].sum(axis=0)
    np.testing.assert_allclose(
        covariance(states[splits_at]), 0.3 * (moments[SECOND] - np.outer(mean, mean)), atol=1e-5
    )


def test_a_round_without_answers_moves_neither_the_moments_nor_the_schedule() -> None:
    strategy = MixturePrior()
    state = course(strategy, rounds=1)[-1]
    fold = strategy.fold(state, [], 1.0, generator(0, "fold"))
    assert fold.updated == 0 and fold.state.version == state.version
    assert fold.state.model.weights is state.model.weights


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"split_at": 0.0}, "strategy.split_at"),
        ({"split_at": 1.0}, "strategy.split_at"),
        ({"split_at": 0.7, "hold": 0.3}, "strategy.hold"),
        ({"hold": -0.1}, "strategy.hold"),
        ({"spread": 1.0}, "strategy.spread"),
        ({"server_lr": 0.0}, "strategy.server_lr"),
    ],
)
def test_options_out_of_range_are_refused_by_name(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError, match=key):
        MixturePrior(**options)


def test_a_rule_without_a_prior_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="client=mixture_prior"):
        MixturePrior().init(
            lambda *address: {"score.weight": np.zeros((1, 2), np.float32)}, range(4), 8, generator(0, "init")
        )


def test_more_components_than_clients_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"client\.num_components=2"):
        MixturePrior().init(fresh, [0], 8, generator(0, "init"))
