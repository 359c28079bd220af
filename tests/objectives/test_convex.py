"""The local convex solve, against scikit-learn, its own optimality conditions, and integrals."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from fedpref.objectives.convex import convex_fit, laplace, laplace_flops, precision_of
from fedpref.objectives.margin import bradley_terry_pull


def _pairs(num_pairs: int, dim: int) -> np.ndarray:
    rng = np.random.default_rng(7)
    z = rng.standard_normal((num_pairs, dim))
    return z * np.where(rng.random(num_pairs) < 1 / (1 + np.exp(-2 * z[:, 0])), 1, -1)[:, None]


@pytest.mark.parametrize(("num_pairs", "dim"), [(80, 6), (9, 40)])
def test_a_scalar_precision_gives_scikit_learns_ridge_solution(num_pairs: int, dim: int) -> None:
    z = _pairs(num_pairs, dim)
    labels = np.repeat([1, 0], num_pairs)
    # Every pair counts twice there, so its penalty is twice ours.
    fit = LogisticRegression(fit_intercept=False, C=1 / (2 * 3.0), tol=1e-10, max_iter=5000)
    expected = fit.fit(np.concatenate([z, -z]), labels).coef_[0]
    np.testing.assert_allclose(convex_fit(z, np.zeros(dim), 3.0), expected, atol=1e-5)


def test_without_pairs_the_solution_is_the_prior_mean() -> None:
    mean = np.array([0.3, -2.0, 5.0])
    np.testing.assert_array_equal(convex_fit(np.zeros((0, 3)), mean, 4.0), mean)


@pytest.mark.parametrize("num_pairs", [3, 50])
def test_the_gradient_vanishes_around_any_centre_and_precision_matrix(num_pairs: int) -> None:
    rng, z = np.random.default_rng(1), _pairs(num_pairs, 8)
    mean, root = 2 * rng.standard_normal(8), rng.standard_normal((8, 8))
    precision = root @ root.T + 0.1 * np.eye(8)
    w = convex_fit(z, mean, precision)
    np.testing.assert_allclose(precision @ (w - mean), bradley_terry_pull(z @ w) @ z, atol=1e-5)


def test_scalar_diagonal_and_matrix_precisions_agree() -> None:
    for z in (_pairs(5, 8), _pairs(50, 8)):
        scalar = convex_fit(z, np.ones(8), 2.5)
        np.testing.assert_allclose(convex_fit(z, np.ones(8), np.full(8, 2.5)), scalar, atol=1e-9)
        np.testing.assert_allclose(convex_fit(z, np.ones(8), 2.5 * np.eye(8)), scalar, atol=1e-9)


def test_a_start_where_every_pair_is_saturated_does_not_diverge() -> None:
    z = np.array([[1.0], [1.0], [-1.0]])
    w = convex_fit(z, np.array([60.0]), 1e-3)
    # Twice as many pairs say up as say down: the logit is close to log 2 under so weak a prior.
    assert 0.69 < w[0] < 0.80


def test_laplace_evidence_of_one_weight_is_close_to_its_integral() -> None:
    z, mean, variance = _pairs(30, 1), 0.5, 2.0
    grid = np.linspace(-12, 12, 20001)
    log_joint = -np.logaddexp(0, -np.outer(grid, z[:, 0])).sum(1) - (grid - mean) ** 2 / (2 * variance)
    exact = np.log(np.exp(log_joint).sum() * (grid[1] - grid[0]) / np.sqrt(2 * np.pi * variance))
    found = laplace(z, np.array([mean]), np.array([[1 / variance]]))
    assert found.log_evidence == pytest.approx(exact, abs=0.05)


def test_without_pairs_laplace_gives_back_the_prior() -> None:
    precision = np.array([[2.0, 0.5], [0.5, 1.0]])
    found = laplace(np.zeros((0, 2)), np.ones(2), precision)
    assert found.log_evidence == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(found.covariance @ precision, np.eye(2), atol=1e-12)


@pytest.mark.parametrize(("num_pairs", "dim"), [(5, 8), (50, 8), (1, 1)])
def test_a_diagonal_precision_gives_the_diagonal_of_what_its_matrix_gives(num_pairs: int, dim: int) -> None:
    z, diagonal = _pairs(num_pairs, dim), np.linspace(0.5, 3.0, dim)
    found, whole = (laplace(z, np.ones(dim), precision) for precision in (diagonal, np.diag(diagonal)))
    np.testing.assert_allclose(found.weights, whole.weights, atol=1e-9)
    np.testing.assert_allclose(found.covariance, np.diag(whole.covariance), atol=1e-9)
    assert found.log_evidence == pytest.approx(whole.log_evidence, abs=1e-9)


def test_a_precision_is_the_inverse_of_what_lies_above_the_floor() -> None:
    vectors = np.linalg.qr(np.random.default_rng(3).standard_normal((3, 3)))[0]
    covariance = (vectors * [4.0, 1e-9, -0.5]) @ vectors.T
    np.testing.assert_allclose(
        precision_of(covariance, 0.1), (vectors * [0.25, 10.0, 10.0]) @ vectors.T, atol=1e-9
    )
    np.testing.assert_allclose(precision_of(np.array([4.0, 1e-9, -0.5]), 0.1), [0.25, 10.0, 10.0])


@pytest.mark.parametrize("is_diagonal", [False, True])
@pytest.mark.parametrize("num_pairs", [3, 20])
def test_the_least_work_is_that_of_pairs_that_say_nothing(num_pairs: int, is_diagonal: bool) -> None:
    precision, least = np.ones(8) if is_diagonal else np.eye(8), laplace_flops(num_pairs, 8, is_diagonal)
    assert laplace(np.zeros((num_pairs, 8)), np.ones(8), precision).flops == least > 0
    assert laplace(_pairs(num_pairs, 8), np.ones(8), precision).flops > least


def test_a_diagonal_is_less_work_than_a_matrix() -> None:
    for num_pairs in (40, 1000):
        assert laplace_flops(num_pairs, 384, True) < laplace_flops(num_pairs, 384)
    assert laplace_flops(40, 384, True) < laplace_flops(40, 384) / 50
