from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from fedpref.errors import ConfigurationError, FederationError
from fedpref.evaluation import Evaluation, evaluate
from fedpref.evaluation.evaluate import model_agreement
from fedpref.evaluation.groups import adjusted_rand_index, agreement, normalised_mutual_information
from fedpref.evaluation.metrics import order_consistency, position_bias
from fedpref.seeds import generator
from fedpref.types import ClientId, HeldOut, Pairs, Population, Shard, Weights


def features(chosen: Sequence[float]) -> Pairs:
    """Pairs of one feature whose rejected side is 0."""
    blank = ("",) * len(chosen)
    column = np.asarray(chosen, dtype=np.float64).reshape(-1, 1)
    return Pairs(blank, column, np.zeros_like(column), tuple(str(row) for row in range(len(chosen))), blank)


def population_of(*sets: Sequence[float], truth: Any = None, newcomers: Sequence[int] = ()) -> Population:
    held_out = [
        HeldOut(f"user {index}", None if index in newcomers else index, features(chosen))
        for index, chosen in enumerate(sets)
    ]
    return Population([Shard(i, f"client {i}", features([])) for i in range(len(sets))], held_out, truth)


@dataclass(frozen=True)
class ToySelector:
    """Logit w * (first - second) + bias, with the model's own bias towards slot A."""

    def both_orders(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        difference = (np.asarray(pairs.chosen) - np.asarray(pairs.rejected))[:, 0] * weights["w"][0]
        return np.stack([difference, -difference], axis=1) + weights["bias"][0]

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        raise AssertionError("both orders hold the margin: nothing is computed twice")


@dataclass(frozen=True)
class ToyGroups:
    """Serves each grouped client the model of its group, and all models to others."""

    of_client: Mapping[ClientId, int] = field(default_factory=dict)

    def groups(self, state: Any) -> Mapping[ClientId, int]:
        return self.of_client

    def models(self, state: Sequence[Weights]) -> Mapping[str, Weights]:
        return {f"selector/{u}": model for u, model in enumerate(state)}

    def serve(self, state: Sequence[Weights], client_id: ClientId | None) -> Sequence[Weights]:
        group = None if client_id is None else self.of_client.get(client_id)
        return list(state) if group is None else [state[group]]


@dataclass(frozen=True)
class KnownGroups:
    groups: Sequence[int]

    def p_chosen(self, index: int) -> np.ndarray:
        return np.array([0.8])


def model(w: float, bias: float = 0.0) -> Weights:
    return {"w": np.array([w]), "bias": np.array([bias])}


def run(strategy: Any, population: Population, *state: Weights) -> Evaluation:
    return evaluate(ToySelector(), strategy, state, population, generator(0, "evaluate"))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------ indices


@pytest.mark.parametrize("num_clients", [1, 2, 7, 60])
@pytest.mark.parametrize(("num_found", "num_true"), [(1, 1), (1, 4), (4, 1), (3, 5), (60, 60)])
def test_indices_are_those_of_scikit_learn(num_clients: int, num_found: int, num_true: int) -> None:
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    rng = generator(0, "groupings", num_clients)
    found, true = (rng.integers(count, size=num_clients).tolist() for count in (num_found, num_true))
    for one, other in ((found, true), (true, true), (range(num_clients), true), (found, range(num_clients))):
        assert adjusted_rand_index(one, other) == pytest.approx(adjusted_rand_score(other, one), abs=1e-12)
        mutual = normalised_mutual_information(one, other)
        assert mutual == pytest.approx(normalized_mutual_info_score(other, one), abs=1e-9)


@pytest.mark.parametrize("index", [adjusted_rand_index, normalised_mutual_information])
def test_names_of_groups_do_not_matter(index: Any) -> None:
    true = [0, 0, 1, 1, 2, 2, 2]
    assert index([5, 5, 0, 0, 1, 1, 1], true) == pytest.approx(1.0)
    assert index([0, 1, 0, 1, 0, 1, 0], true) < 0.3


def test_the_rand_index_of_a_hand_counted_case() -> None:
    # Of six pairs of clients, one is together in both groupings, three in the first, two in the second:
    # by chance 3 * 2 / 6 = 1 would be, at most the mean of both, 2.5.
    assert adjusted_rand_index([0, 0, 0, 1], [0, 0, 1, 1]) == pytest.approx((1 - 1) / (2.5 - 1))
    # Of ten, two are together in both, four in the first and four in the second: by chance 1.6.
    assert adjusted_rand_index([0, 0, 0, 1, 1], [0, 0, 1, 1, 1]) == pytest.approx((2 - 1.6) / (4 - 1.6))


def test_mutual_information_of_independent_groupings_is_zero_and_of_a_split_group_is_known() -> None:
    assert normalised_mutual_information([0, 1, 0, 1], [0, 0, 1, 1]) == pytest.approx(0.0, abs=1e-12)
    # Four singletons against two groups of two: I = log 2, entropies log 4 and log 2.
    assert normalised_mutual_information([0, 1, 2, 3], [0, 0, 1, 1]) == pytest.approx(
        math.log(2) / (1.5 * math.log(2))
    )


# ---------------------------------------------------------------------------------- agreement


def test_agreement_counts_equal_choices_whatever_the_margins() -> None:
    shares = agreement(np.array([[1.0, 2.0, -3.0, 4.0], [0.1, -9.0, -0.1, 0.2], [-1.0, -1.0, 1.0, -1.0]]))
    np.testing.assert_allclose(shares, [[1, 3 / 4, 0], [3 / 4, 1, 1 / 4], [0, 1 / 4, 1]])


def test_a_tie_agrees_half_of_the_time_but_always_with_itself() -> None:
    np.testing.assert_array_equal(agreement(np.array([[0.0, 0.0], [1.0, -1.0]])), [[1, 0.5], [0.5, 1]])


def test_agreement_does_not_depend_on_which_side_is_called_chosen() -> None:
    margins = generator(0, "agreement").standard_normal((4, 50))
    flips = np.where(generator(1, "agreement").uniform(size=50) < 0.5, -1.0, 1.0)
    np.testing.assert_array_equal(agreement(margins), agreement(margins * flips))


def test_agreement_of_a_strategys_models_is_over_all_held_out_pairs() -> None:
    # Models w = 1 and w = -1 disagree wherever the feature is not 0, which ties for both.
    population = population_of([1, -2], [], [3, 0])
    found = model_agreement(ToySelector(), {"selector/0": model(1), "selector/1": model(-1)}, population)  # type: ignore[arg-type]
    assert found.as_json() == {
        "models": ["selector/0", "selector/1"],
        "shares": [[1.0, 0.125], [0.125, 1.0]],
    }


def test_agreement_needs_pairs() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        agreement(np.zeros((2, 0)))
    with pytest.raises(ConfigurationError, match="no held-out pairs"):
        model_agreement(ToySelector(), {"a": model(1)}, population_of([]))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------ order effects


def test_position_bias_is_what_swapping_leaves_unchanged() -> None:
    orders = np.array([[2.0, -2.0], [1.5, 0.5], [-1.0, -3.0]])
    np.testing.assert_array_equal(position_bias(orders), [0.0, 1.0, -2.0])
    np.testing.assert_array_equal(position_bias(orders[:, ::-1]), position_bias(orders))


def test_a_selector_is_consistent_where_it_chooses_the_same_response_twice() -> None:
    assert order_consistency(np.array([[2.0, -2.0], [0.1, -3.0], [-1.0, 4.0], [1.0, 1.0]])) == 0.75
    assert order_consistency(np.zeros((3, 2))) == 0.5  # an untrained head tosses a coin


def test_a_constant_bias_changes_no_accuracy_and_is_found() -> None:
    population = population_of([2, -0.4], [1])
    plain, biased = (run(ToyGroups(), population, model(1, bias)).aggregate for bias in (0.0, 0.7))
    changed = {name for name in plain if plain[name] != pytest.approx(biased[name])}
    assert changed == {"position_bias", "order_consistency"}
    assert (plain["position_bias"], biased["position_bias"]) == (0.0, pytest.approx(0.7))
    assert biased["position_bias_sd"] == pytest.approx(0.0)
    assert (plain["order_consistency"], biased["order_consistency"]) == (1.0, pytest.approx(2 / 3))


def test_where_several_vote_the_bias_is_that_of_their_mean_logit() -> None:
    result = run(ToyGroups(), population_of([1], [1]), model(1, 0.6), model(1, -0.2), model(1, 0.2))
    assert result.aggregate["position_bias"] == pytest.approx(0.2)


def test_only_what_is_served_counts() -> None:
    result = run(ToyGroups({0: 0, 1: 1}), population_of([1], [1]), model(1, 0.0), model(1, 0.5))
    assert result.aggregate["position_bias"] == pytest.approx(0.25)
    assert result.aggregate["position_bias_sd"] == pytest.approx(0.25)


def test_logits_that_are_not_finite_stop_the_evaluation() -> None:
    with pytest.raises(FederationError, match="4 of 4 margins are not finite"):
        run(ToyGroups(), population_of([1, -2]), model(math.inf))


# ------------------------------------------------------------------------- groups in evaluation


def test_found_groups_are_compared_with_planted_ones_over_grouped_clients_only() -> None:
    # Client 3 has no group and user 4 is a newcomer; the others are grouped as planted, under other names.
    population = population_of([1], [1], [1], [1], [1], truth=KnownGroups([0, 0, 1, 0, 0]), newcomers=[4])
    result = run(ToyGroups({0: 7, 1: 7, 2: 2}), population, *[model(1)] * 8)
    assert result.aggregate["ari"] == result.aggregate["nmi"] == 1.0
    assert [user.served_by for user in result.users] == [7, 7, 2, None, None]
    assert result.groups == {0: 7, 1: 7, 2: 2}


def test_without_groups_or_without_truth_there_is_no_index() -> None:
    truth = KnownGroups([0, 1])
    for strategy, known in ((ToyGroups({}), truth), (ToyGroups({0: 0, 1: 1}), None)):
        population = population_of([1], [1], truth=known)
        assert not {"ari", "nmi"} & run(strategy, population, model(1), model(1)).aggregate.keys()


def test_a_group_is_in_the_row_of_a_user_only_where_there_is_one() -> None:
    result = run(ToyGroups({0: 1}), population_of([1], [1]), model(1), model(1))
    assert [user.as_row().get("served_by") for user in result.users] == [1, None]
    assert "served_by" not in result.users[1].as_row()
