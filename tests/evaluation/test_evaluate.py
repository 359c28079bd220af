from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from fedpref.errors import ConfigurationError, FederationError
from fedpref.evaluation import Evaluation, evaluate
from fedpref.seeds import generator
from fedpref.types import HeldOut, Pairs, Population, Shard, Weights


def features(chosen: Sequence[float]) -> Pairs:
    """Pairs of one feature whose rejected side is 0, so that the margin of weight 1 is ``chosen``."""
    blank = ("",) * len(chosen)
    column = np.asarray(chosen, dtype=np.float64).reshape(-1, 1)
    return Pairs(blank, column, np.zeros_like(column), tuple(str(row) for row in range(len(chosen))), blank)


@dataclass(frozen=True)
class LinearRule:
    """Counts the pairs of every call."""

    calls: list[int] = field(default_factory=list)

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        self.calls.append(len(pairs))
        return (np.asarray(pairs.chosen) - np.asarray(pairs.rejected)) @ weights["w"]


@dataclass(frozen=True)
class Serving:
    """Serves the state to everybody, and what ``own`` names to some."""

    own: dict[int | None, Sequence[Weights]] = field(default_factory=dict)

    def serve(self, state: Any, client_id: int | None) -> Sequence[Weights]:
        return self.own.get(client_id, [dict(state)])


@dataclass(frozen=True)
class KnownTruth:
    groups: Sequence[int]
    probabilities: Sequence[Sequence[float]]

    def p_chosen(self, index: int) -> np.ndarray:
        return np.array(self.probabilities[index])


UP: Weights = {"w": np.array([1.0])}
DOWN: Weights = {"w": np.array([-1.0])}


def held_out(*sets: Sequence[float], newcomer: int | None = None) -> tuple[HeldOut, ...]:
    return tuple(
        HeldOut(f"user {index}", None if index == newcomer else index, features(chosen))
        for index, chosen in enumerate(sets)
    )


def population_of(sets: Sequence[HeldOut], truth: KnownTruth | None = None) -> Population:
    """One client for every set, newcomers included; nobody has anything to train on."""
    shards = [Shard(index, f"client {index}", features([])) for index in range(len(sets))]
    return Population(shards, sets, truth)


def run(rule: Any, strategy: Any, population: Population, state: Weights = UP) -> Evaluation:
    return evaluate(rule, strategy, state, population, generator(0, "evaluate"))


def test_pairs_weigh_alike_in_pair_accuracy_and_users_in_user_accuracy() -> None:
    result = run(LinearRule(), Serving(), population_of(held_out([1, 1, 1], [-1])))
    assert result.aggregate["pair_accuracy"] == 3 / 4
    assert result.aggregate["user_accuracy"] == 1 / 2
    assert [user.as_row()["accuracy"] for user in result.users] == [1.0, 0.0]


def test_one_global_model_scores_all_pairs_in_one_call() -> None:
    rule = LinearRule()
    run(rule, Serving(), population_of(held_out([1, -1], [2], [3, 4, 5])))
    assert rule.calls == [6]


def test_grouping_by_served_weights_changes_no_score() -> None:
    population = population_of(held_out([1, -1], [2], [-3, 4, 5], [-1, 2]))
    copies = {index: [{"w": UP["w"].copy()}] for index in range(4)}
    rule = LinearRule()
    assert run(rule, Serving(copies), population).users == run(LinearRule(), Serving(), population).users
    assert rule.calls == [2, 1, 3, 2]


def test_margins_return_to_their_owner_when_models_differ() -> None:
    # Clients 0 and 2 share a model that is right on them; client 1 has the opposite one.
    population = population_of(held_out([1, 1], [-1], [1, -1]))
    result = run(LinearRule(), Serving({1: [DOWN]}), population)
    assert [user.accuracy for user in result.users] == [1.0, 1.0, 0.5]


def test_a_newcomer_gets_what_the_strategy_serves_to_nobody_in_particular() -> None:
    population = population_of(held_out([1, 1], [1, 1], newcomer=1))
    result = run(LinearRule(), Serving({None: [DOWN]}), population)
    assert [(user.client_id, user.accuracy) for user in result.users] == [(0, 1.0), (None, 0.0)]


def test_several_served_models_vote() -> None:
    population = population_of(held_out([1, 1]))
    result = run(LinearRule(), Serving({0: [UP, UP, {"w": np.array([-50.0])}]}), population)
    assert result.users[0].accuracy == 1.0


def test_known_truth_replaces_labels_by_expectations() -> None:
    truth = KnownTruth([0, 1], [[0.9, 0.8], [0.3, 0.6]])
    result = run(LinearRule(), Serving(), population_of(held_out([1, 1], [1, 1]), truth))
    # Everything is predicted "chosen": accuracies are the mean probabilities.
    assert [user.accuracy for user in result.users] == pytest.approx([0.85, 0.45])
    assert result.aggregate["oracle"] == pytest.approx((0.85 + 0.65) / 2)
    assert result.aggregate["regret"] == pytest.approx(0.75 - 0.65)
    assert result.aggregate["worst_group"] == pytest.approx(0.45)
    assert [user.group for user in result.users] == [0, 1]


def test_without_truth_nothing_is_said_about_groups_and_the_oracle() -> None:
    result = run(LinearRule(), Serving(), population_of(held_out([1], [1])))
    assert not {"oracle", "regret", "worst_group"} & set(result.aggregate)
    assert set(result.users[0].as_row()) == {"name", "client_id", "num_pairs", "accuracy", "loss"}


def test_users_without_pairs_are_left_out_and_the_truth_is_asked_by_position() -> None:
    truth = KnownTruth([7, 8, 9], [[0.9], [], [0.6]])
    result = run(LinearRule(), Serving(), population_of(held_out([1], [], [1]), truth))
    assert [(user.name, user.group, user.accuracy) for user in result.users] == [
        ("user 0", 7, 0.9),
        ("user 2", 9, 0.6),
    ]


def test_an_interval_needs_two_users() -> None:
    alone = run(LinearRule(), Serving(), population_of(held_out([1, -1])))
    assert "pair_accuracy_low" not in alone.aggregate
    both = run(LinearRule(), Serving(), population_of(held_out([1, -1, 1], [1]))).aggregate
    assert both["pair_accuracy_low"] <= both["pair_accuracy"] <= both["pair_accuracy_high"]
    assert both["user_accuracy_low"] <= both["user_accuracy"] <= both["user_accuracy_high"]


def test_text_pairs_are_joined_in_order() -> None:
    class LengthRule:
        def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
            lengths = zip(pairs.chosen, pairs.rejected, strict=True)
            return np.array([len(chosen) - len(rejected) for chosen, rejected in lengths], dtype=np.float64)

    sets = [
        HeldOut("long", 0, Pairs([""], ["four"], ["two"], ["a"], [""])),
        HeldOut("short", 1, Pairs(["", ""], ["a", "b"], ["cc", "d"], ["b", "c"], ["", ""])),
    ]
    result = run(LengthRule(), Serving(), population_of(sets))
    assert [user.accuracy for user in result.users] == [1.0, 0.25]


def test_a_diverged_model_is_an_error_and_not_a_nan() -> None:
    with pytest.raises(FederationError, match="2 of 3 margins are not finite"):
        run(LinearRule(), Serving(), population_of(held_out([np.nan, 1, np.inf])))


def test_a_population_without_held_out_pairs_cannot_be_evaluated() -> None:
    with pytest.raises(ConfigurationError, match="no held-out pairs"):
        run(LinearRule(), Serving(), population_of(held_out([])))
