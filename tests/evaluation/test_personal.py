"""What a client's own part is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fedpref.evaluation import evaluate
from fedpref.evaluation.personal import HARM, effects, shared_accuracies, shared_models
from fedpref.seeds import generator
from fedpref.types import ClientState, HeldOut, Pairs, Population, Shard, Weights


def features(chosen: Sequence[float]) -> Pairs:
    """Pairs of one feature whose rejected side is 0, so that the margin of weight 1 is ``chosen``."""
    blank, column = ("",) * len(chosen), np.asarray(chosen, dtype=np.float64).reshape(-1, 1)
    return Pairs(blank, column, np.zeros_like(column), tuple(map(str, range(len(chosen)))), blank)


@dataclass(frozen=True)
class SignOfOwn:
    """The client's part is the sum of its training features; at the prior it is the shared weight."""

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        return (np.asarray(pairs.chosen) - np.asarray(pairs.rejected)) @ weights["w"]

    def personalise(self, weights: Weights, shard: Shard | None, state: ClientState) -> Weights:
        if shard is None:
            return {"w": weights["w"] + 0.5}
        return {"w": np.asarray(shard.pairs.chosen).sum(axis=0)}


class Global:
    def serve(self, state: Any, client_id: int | None) -> Sequence[Weights]:
        return [state]


UP: Weights = {"w": np.array([1.0])}
RULE: Any = SignOfOwn()
GLOBAL: Any = Global()


def population(*people: tuple[Sequence[float], Sequence[float]], unseen: int = 0) -> Population:
    """One client for each (trained, asked), and people with shots who are asked what nobody gets right."""
    shards = [Shard(i, f"user {i}", features(trained)) for i, (trained, _) in enumerate(people)]
    sets = [HeldOut(f"user {i}", i, features(asked)) for i, (_, asked) in enumerate(people)]
    sets += [HeldOut(f"unseen {i}", None, features([0.0]), features([1.0])) for i in range(unseen)]
    return Population(shards, sets)


def run(people: Population) -> Any:
    return evaluate(RULE, GLOBAL, UP, people, generator(0, "evaluate"))


def test_gain_and_harm_are_counted_against_what_a_newcomer_is_served() -> None:
    # The shared weight is up: right, wrong, and right on the three; the third trained on misleading pairs.
    result = run(population(([1.0], [1.0]), ([-1.0], [-1.0]), ([-1.0], [1.0])))
    assert [user.shared_accuracy for user in result.users] == [1.0, 0.0, 1.0]
    assert [user.accuracy for user in result.users] == [1.0, 1.0, 0.0]
    assert result.aggregate["shared_accuracy"] == pytest.approx(2 / 3)
    assert result.aggregate["personal_gain"] == pytest.approx(0.0)
    assert result.aggregate["harmed"] == pytest.approx(1 / 3)


def test_unseen_people_change_no_figure_of_a_run() -> None:
    people = (([1.0], [1.0, -1.0]), ([-1.0], [-1.0]))
    without, with_them = run(population(*people)), run(population(*people, unseen=3))
    assert with_them.aggregate == without.aggregate and with_them.users == without.users


def test_only_a_loss_of_more_than_the_threshold_harms() -> None:
    shared = [0.5, 0.5, 0.5, 0.5]
    result = effects([0.5 - HARM + 1e-9, 0.5 - HARM - 1e-9, 0.5, 0.9], shared)
    assert result["harmed"] == 1 / 4
    assert result["personal_gain"] == pytest.approx((0.4 - 2 * HARM) / 4)


def test_nobody_has_no_effects_and_lengths_must_agree() -> None:
    assert effects([], []) == {}
    with pytest.raises(ValueError, match="2 users have models of their own, 1 a shared one"):
        effects([1.0, 0.0], [1.0])


def test_a_newcomer_starts_at_the_prior_of_the_population() -> None:
    (model,) = shared_models(RULE, GLOBAL, UP)
    np.testing.assert_array_equal(model["w"], [1.5])


def test_accuracies_of_the_shared_model_return_to_their_owners() -> None:
    people = population(([1.0], [1.0, 1.0, -1.0, 1.0]), ([1.0], [-1.0]), ([1.0], [1.0]))
    accuracies = shared_accuracies(RULE, GLOBAL, UP, people, [2, 0])
    np.testing.assert_array_equal(accuracies, [1.0, 3 / 4])
