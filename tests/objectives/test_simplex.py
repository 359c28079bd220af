"""Mixture weights of one client against what defines them."""

import numpy as np
import pytest

from fedpref.objectives.margin import bradley_terry_pull
from fedpref.objectives.simplex import simplex_weights
from fedpref.seeds import generator


def problem(num_pairs: int = 30, count: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = generator(0, "problem")
    return rng.standard_normal((num_pairs, count)), rng.standard_normal(num_pairs)


@pytest.mark.parametrize("precision", [0.5, 5.0])
def test_at_the_minimum_no_weight_gains_by_growing(precision: float) -> None:
    parts, offset = problem()
    w = simplex_weights(parts, offset, precision, steps=5000)
    assert w.sum() == pytest.approx(1) and (w > 0).all()
    slopes = -bradley_terry_pull(parts @ w + offset) @ parts + precision * np.log(w)
    np.testing.assert_allclose(slopes, slopes.mean(), atol=1e-6)


def test_without_a_prior_only_the_best_components_keep_weight() -> None:
    parts, offset = problem()
    w = simplex_weights(parts, offset, precision=0.0, steps=20_000)
    slopes = -bradley_terry_pull(parts @ w + offset) @ parts
    np.testing.assert_allclose(slopes[w > 1e-2], slopes.min(), atol=1e-2)


def test_without_pairs_or_with_components_that_agree_the_weights_are_uniform() -> None:
    for parts in (np.empty((0, 4)), np.ones((6, 4))):
        np.testing.assert_allclose(simplex_weights(parts, np.zeros(len(parts))), 0.25)
    np.testing.assert_array_equal(simplex_weights(problem(count=1)[0], problem()[1]), [1.0])


def test_margins_of_any_size_give_weights_on_the_simplex() -> None:
    parts, offset = problem()
    for scale in (1e-8, 1e4, 1e8):
        w = simplex_weights(scale * parts, scale * offset)
        assert np.isfinite(w).all() and w.sum() == pytest.approx(1) and (w >= 0).all()
