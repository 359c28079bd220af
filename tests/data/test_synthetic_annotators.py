"""Directions, tastes and habits of the annotators."""

from __future__ import annotations

import numpy as np
import pytest

from fedpref.data.synthetic.annotators import Annotator, draw_annotator, draw_directions
from fedpref.data.synthetic.candidates import delta_covariance
from fedpref.data.synthetic.recipe import Recipe, resolve

COVARIANCE = delta_covariance("text", "iid", 12)


def people(recipe: Recipe, seed: int = 0) -> list[Annotator]:
    directions = draw_directions(recipe, seed)
    return [draw_annotator(recipe, directions, COVARIANCE, 8, seed, i) for i in range(recipe.num_clients)]


@pytest.mark.parametrize(("num_groups", "cosine"), [(4, 0.0), (2, -0.6), (3, 0.4), (5, -0.2), (11, 0.9)])
def test_any_two_groups_have_the_asked_cosine_and_none_with_the_common_direction(
    num_groups: int, cosine: float
) -> None:
    directions = draw_directions(Recipe(shares=(1 / num_groups,) * num_groups, group_cosine=cosine), 3)
    gram = directions.groups.T @ directions.groups
    np.testing.assert_allclose(gram, cosine + (1 - cosine) * np.eye(num_groups), atol=1e-12)
    np.testing.assert_allclose(directions.common @ directions.groups, 0.0, atol=1e-12)
    assert directions.common @ directions.common == pytest.approx(1.0)


def test_deviations_are_orthonormal() -> None:
    deviations = draw_directions(Recipe(deviation_rank=5), 0).deviations
    np.testing.assert_allclose(deviations.T @ deviations, np.eye(5), atol=1e-12)


def test_reward_differences_have_unit_variance_for_everybody() -> None:
    for person in people(resolve("lowrank", {"num_clients": 10})):
        assert person.theta @ COVARIANCE @ person.theta == pytest.approx(1.0)


@pytest.mark.parametrize(
    "given",
    [{"common_share": 1.0, "deviation_scale": 0.0}, {"shares": (1.0,), "deviation_scale": 0.0}],
)
def test_without_groups_and_deviations_all_tastes_are_equal(given: dict[str, object]) -> None:
    first, *others = people(resolve("clusters", {"num_clients": 8, **given}))
    for other in others:
        np.testing.assert_array_equal(other.theta, first.theta)


def test_deviations_stay_in_their_subspace() -> None:
    recipe = resolve("homog", {"num_clients": 40, "deviation_scale": 0.5, "deviation_rank": 2})
    thetas = np.array([person.theta for person in people(recipe)])
    # The direction of the group and two deviations span everything.
    assert np.linalg.matrix_rank(thetas, tol=1e-9) == 3


@pytest.mark.parametrize("num_clients", [16, 120, 500])
def test_every_number_of_clients_holds_the_groups_in_about_their_shares(num_clients: int) -> None:
    for seed in range(5):
        groups = [person.group for person in people(Recipe(num_clients=num_clients), seed)]
        counts = np.bincount(groups, minlength=4)
        np.testing.assert_allclose(counts, num_clients * np.array(Recipe().shares), atol=3.0)
        assert counts.min() > 0


def test_group_and_reliability_are_independent() -> None:
    both = people(resolve("clusters", {"num_clients": 1000, "shares": (0.5, 0.5), "adversaries": 0.3}))
    in_first = np.array([person.group == 0 for person in both])
    adversary = np.array([person.flip_rate == 1.0 for person in both])
    assert adversary.mean() == pytest.approx(0.3, abs=0.01)
    assert (in_first & adversary).mean() == pytest.approx(0.15, abs=0.01)


def test_mixed_members_belong_to_the_group_of_largest_weight() -> None:
    for person in people(resolve("lowrank", {"num_clients": 30, "membership_alpha": 5.0})):
        assert person.membership.sum() == pytest.approx(1.0)
        assert person.membership[person.group] == person.membership.max() < 1.0


def test_spreads_keep_the_mean_and_sizes_their_bounds() -> None:
    many = people(Recipe(num_clients=4000, beta_spread=0.3, min_pairs=12, max_pairs=100))
    # Standard error of the mean of beta: 3 * 0.31 / sqrt(4000) = 0.015.
    assert np.mean([person.beta for person in many]) == pytest.approx(3.0, abs=0.06)
    sizes = {person.num_pairs for person in many}
    assert min(sizes) == 12 and max(sizes) == 100


def test_without_spread_all_sizes_and_temperatures_are_the_mean() -> None:
    for person in people(Recipe(num_clients=5, beta_spread=0.0, pairs_spread=0.0)):
        assert (person.num_pairs, person.beta) == (60, 3.0)


def test_an_annotator_does_not_depend_on_how_many_there_are() -> None:
    few, many = people(Recipe(num_clients=3)), people(Recipe(num_clients=9))
    for a, b in zip(few, many, strict=False):
        np.testing.assert_array_equal(a.theta, b.theta)
        assert (a.group, a.num_pairs, a.beta) == (b.group, b.num_pairs, b.beta)


def test_drift_turns_taste_by_its_angle_and_keeps_its_scale() -> None:
    person = people(resolve("drift", {"num_clients": 1}))[0]
    start, half, end = person.theta_at(np.array([0.0, 0.5, 1.0]))
    np.testing.assert_array_equal(start, person.theta)
    assert np.arccos(start @ COVARIANCE @ end) == pytest.approx(np.pi / 3)
    assert np.arccos(start @ COVARIANCE @ half) == pytest.approx(np.pi / 6)
    assert end @ COVARIANCE @ end == pytest.approx(1.0)


def test_without_drift_taste_stands_still() -> None:
    person = people(Recipe(num_clients=1))[0]
    np.testing.assert_array_equal(person.theta_at(np.array([1.0]))[0], person.theta)
