from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from fedpref.errors import ConfigurationError, FederationError
from fedpref.seeds import generator
from fedpref.strategies.group_dro import GroupDro, GroupWeights, reweighted
from fedpref.types import Arrival, Fold, Update, Weights

RNG = generator(0, "unused")


def fresh(*address: int | str) -> Weights:
    return {"w": np.zeros(2, np.float32)}


def start(strategy: GroupDro, num_clients: int) -> GroupWeights:
    return strategy.init(fresh, range(num_clients), 100, RNG)


def folded(
    strategy: GroupDro,
    state: GroupWeights,
    losses: Mapping[int, float],
    deltas: Mapping[int, Sequence[float]] | None = None,
    pairs: Mapping[int, int] | None = None,
) -> Fold:
    """A round in which the clients of ``losses`` answer."""
    _, plan = strategy.plan(state, sorted(losses), 0.0, RNG)
    arrivals = []
    for task in plan.tasks:
        client = task.client_id
        weights = {"w": (task.weights["w"] + np.array((deltas or {}).get(client, (0, 0)))).astype(np.float32)}
        num_pairs = (pairs or {}).get(client, 10)
        update = Update(weights, task.weights, num_pairs, {"loss_before": losses[client]}, client)
        arrivals.append(Arrival(task, update, "ok", 0, 0.0, 1.0))
    return strategy.fold(state, arrivals, 0.0, RNG)


def test_two_mirror_image_groups_converge_to_one_half_each_from_any_alpha() -> None:
    """Group g likes w . z_g with z_1 = -z_0: the worst loss is least at w = 0, where both weigh the same."""
    strategy = GroupDro((0, 0, 0, 0, 1), eta=0.3)
    state = start(strategy, 5)
    state = GroupWeights(state.model, state.mean, 0, np.array([0.9, 0.1]), state.importance, state.groups)
    sides = {client: 1.0 if client < 4 else -1.0 for client in range(5)}
    for _ in range(1500):
        margin = float(state.model.weights["w"][0])
        losses = {client: math.log1p(math.exp(-side * margin)) for client, side in sides.items()}
        deltas = {client: (0.3 * side / (1 + math.exp(side * margin)), 0) for client, side in sides.items()}
        state = folded(strategy, state, losses, deltas).state
    np.testing.assert_allclose(state.alpha, 0.5, atol=0.02)
    np.testing.assert_allclose(strategy.serve(state, None)[0]["w"], 0.0, atol=0.02)


@pytest.mark.parametrize("seen", [[0, 1, 2], [0, 2], [1]])
def test_equal_losses_leave_alpha_fixed_whoever_is_seen(seen: list[int]) -> None:
    alpha = np.array([0.5, 0.3, 0.2])
    is_seen = np.isin(range(3), seen)
    after = reweighted(alpha, np.where(is_seen, 0.7, 99.0), is_seen, np.array([1.0, 3.0, 10.0]), 5.0)
    np.testing.assert_allclose(after, alpha, rtol=1e-12)


def test_log_odds_grow_by_eta_times_the_difference_of_losses() -> None:
    alpha, losses = np.array([0.2, 0.5, 0.3]), np.array([0.9, 0.4, 0.6])
    after = reweighted(alpha, losses, np.full(3, True), np.ones(3), 0.7)
    assert after.sum() == pytest.approx(1)
    found = np.log(after[0] / after[1]) - np.log(alpha[0] / alpha[1])
    assert found == pytest.approx(0.7 * (0.9 - 0.4))


def test_a_huge_eta_picks_the_worst_group_and_leaves_the_others_the_floor() -> None:
    after = reweighted(np.full(4, 0.25), np.array([1.0, 3.0, 2.0, 0.0]), np.full(4, True), np.ones(4), 1e6)
    total = 1 + 3 * 0.0025
    np.testing.assert_allclose(after, np.array([0.0025, 1, 0.0025, 0.0025]) / total)


def test_without_eta_every_group_counts_the_same_however_many_clients_it_has() -> None:
    strategy = GroupDro((0, 0, 0, 1), eta=0.0)
    deltas = {0: (1, 0), 1: (1, 0), 2: (4, 0), 3: (0, 1)}
    pairs = {0: 10, 1: 30, 2: 20, 3: 1}
    state = folded(strategy, start(strategy, 4), {0: 9.0, 1: 1.0, 2: 1.0, 3: 0.1}, deltas, pairs).state
    np.testing.assert_array_equal(state.alpha, 0.5)
    # Group 0 moves by (10 + 30 + 4 * 20) / 60 = 2.
    np.testing.assert_allclose(state.model.weights["w"], [0.5 * 2, 0.5 * 1], rtol=1e-6)


def test_groups_that_do_not_answer_leave_their_weight_to_the_others_for_the_round() -> None:
    strategy = GroupDro((0, 1, 2), eta=0.0)
    state = folded(strategy, start(strategy, 3), {0: 1.0, 2: 1.0}, {0: (2, 0), 2: (0, 2)}).state
    np.testing.assert_allclose(state.model.weights["w"], [1, 1])


def test_the_loss_of_a_group_is_the_mean_over_its_pairs() -> None:
    strategy = GroupDro((0, 0, 1), eta=1.0)
    state = folded(strategy, start(strategy, 3), {0: 1.0, 1: 2.0, 2: 1.25}, pairs={0: 30, 1: 10}).state
    np.testing.assert_allclose(state.alpha, 0.5)  # (30 * 1 + 10 * 2) / 40 = 1.25


def test_rarely_sampled_groups_count_by_the_inverse_of_their_probability_up_to_ten() -> None:
    # One of four without replacement: the pair is seen with probability 1/2, each single with 1/4.
    np.testing.assert_allclose(start(GroupDro((0, 0, 1, 2), cohort_size=1), 4).importance, [2, 4, 4])
    # Two of four: the pair is missed with probability 2/4 * 1/3.
    np.testing.assert_allclose(start(GroupDro((0, 0, 1, 2), cohort_size=2), 4).importance, [6 / 5, 2, 2])
    np.testing.assert_array_equal(start(GroupDro(cohort_size=1), 40).importance, 10)
    np.testing.assert_array_equal(start(GroupDro(), 40).importance, 1)


def test_the_mean_of_the_iterates_is_served() -> None:
    strategy = GroupDro(eta=0.0)
    state, iterates = start(strategy, 2), []
    np.testing.assert_array_equal(strategy.serve(state, 0)[0]["w"], 0)
    for round in range(5):
        state = folded(strategy, state, {0: 1.0, 1: 1.0}, {0: (round, 1), 1: (3, 0)}).state
        iterates.append(state.model.weights["w"])
    np.testing.assert_allclose(strategy.serve(state, None)[0]["w"], np.mean(iterates, axis=0), rtol=1e-6)
    assert strategy.models(state).keys() == {"global"}


def test_an_answer_without_a_loss_is_rejected_and_a_rule_that_never_reports_one_is_an_error() -> None:
    strategy = GroupDro(eta=0.0)
    state = start(strategy, 2)
    _, plan = strategy.plan(state, range(2), 0.0, RNG)
    arrivals = []
    for task in plan.tasks:
        metrics = {"loss_before": 0.5} if task.client_id == 0 else {}
        weights = {"w": task.weights["w"] + np.float32(1 + task.client_id)}
        update = Update(weights, task.weights, 1, metrics, task.client_id)
        arrivals.append(Arrival(task, update, "ok", 0, 0.0, 1.0))
    fold = strategy.fold(state, arrivals, 0.0, RNG)
    assert fold.rejected == arrivals[1:]
    np.testing.assert_array_equal(fold.state.model.weights["w"], 1.0)
    with pytest.raises(FederationError, match="loss_before"):
        strategy.fold(state, arrivals[1:], 0.0, RNG)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"eta": -1.0}, r"strategy\.eta"),
        ({"client_groups": (0, 2)}, r"strategy\.client_groups has the groups \[0, 2\]"),
        ({"client_groups": "domains"}, r"strategy\.client_groups='domains'"),
        ({"server_lr": 0.0}, r"strategy\.server_lr"),
    ],
)
def test_bad_options_are_refused_with_their_key(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        GroupDro(**options)


def test_groups_for_another_number_of_clients_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="has 3 entries for 5 clients"):
        start(GroupDro((0, 0, 1)), 5)
