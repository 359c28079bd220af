"""Mixture weights of one client against what defines them."""

from __future__ import annotations

import numpy as np
import pytest

from fedpref.objectives.margin import bradley_terry_pull
from fedpref.objectives.simplex import simplex_fit, simplex_fit_flops
from fedpref.seeds import generator

UNIFORM = np.full(4, 0.25)
SKEWED = np.array([0.6, 0.25, 0.1, 0.05])


def problem(num_pairs: int = 30, count: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = generator(0, "problem")
    return rng.standard_normal((num_pairs, count)), rng.standard_normal(num_pairs)


@pytest.mark.parametrize("precision", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("prior", [UNIFORM, SKEWED], ids=["uniform", "skewed"])
def test_at_the_minimum_no_weight_gains_by_growing(precision: float, prior: np.ndarray) -> None:
    parts, offset = problem()
    w = simplex_fit(parts, prior, precision, offset).weights
    assert w.sum() == pytest.approx(1, abs=1e-12) and (w > 0).all()
    slopes = -bradley_terry_pull(parts @ w + offset) @ parts + precision * np.log(w / prior)
    np.testing.assert_allclose(slopes, slopes @ w, atol=1e-4)


def test_without_a_prior_only_the_best_components_keep_weight() -> None:
    parts, offset = problem()
    w = simplex_fit(parts, UNIFORM, 0.0, offset, most_steps=50).weights
    slopes = -bradley_terry_pull(parts @ w + offset) @ parts
    assert (w < 1e-6).any()
    np.testing.assert_allclose(slopes[w > 1e-2], slopes.min(), atol=1e-2)


def test_without_pairs_or_with_components_that_agree_the_weights_are_the_prior() -> None:
    for parts in (np.empty((0, 4)), np.ones((6, 4))):
        for precision in (0.0, 1.0):
            fit = simplex_fit(parts, SKEWED, precision)
            np.testing.assert_allclose(fit.weights, SKEWED, atol=1e-12)
    np.testing.assert_array_equal(simplex_fit(problem(count=1)[0], np.ones(1), 1.0).weights, [1.0])


def test_a_prior_that_rules_a_component_out_can_be_overruled() -> None:
    parts = np.tile([-3.0, 3.0], (40, 1))  # the second component explains everything
    assert simplex_fit(parts, np.array([1.0, 0.0]), 1.0).weights[1] > 0.5


def test_a_large_precision_holds_the_weights_at_the_prior() -> None:
    parts, offset = problem()
    fit = simplex_fit(parts, SKEWED, 1e9, offset)
    np.testing.assert_allclose(fit.weights, SKEWED, atol=1e-6)


def test_a_common_shift_of_all_components_is_an_offset() -> None:
    parts, offset = problem()
    shifted = simplex_fit(parts + offset[:, None], SKEWED, 0.5).weights
    np.testing.assert_allclose(shifted, simplex_fit(parts, SKEWED, 0.5, offset).weights, atol=1e-6)


@pytest.mark.parametrize("precision", [0.0, 1.0])
@pytest.mark.parametrize("scale", [1e-8, 1e4, 1e8])
def test_margins_of_any_size_give_weights_on_the_simplex(scale: float, precision: float) -> None:
    parts, offset = problem()
    w = simplex_fit(scale * parts, UNIFORM, precision, scale * offset).weights
    assert np.isfinite(w).all() and w.sum() == pytest.approx(1) and (w >= 0).all()


def test_margins_that_are_no_numbers_leave_the_prior() -> None:
    parts, offset = problem()
    parts[3, 1] = np.nan
    np.testing.assert_allclose(simplex_fit(parts, SKEWED, 1.0, offset).weights, SKEWED, atol=1e-12)


def test_the_least_work_is_that_of_a_fit_with_nothing_to_gain() -> None:
    assert simplex_fit(np.ones((6, 4)), SKEWED, 1.0).flops == simplex_fit_flops(6, 4)
    parts, offset = problem()
    assert simplex_fit(parts, SKEWED, 1.0, offset).flops > 2 * simplex_fit_flops(*parts.shape)
