"""The one local convex solve: Bradley-Terry on a few pairs, with a Gaussian prior on the weights.

    minimise  sum_i log(1 + exp(-w.z_i)) + 1/2 (w - m)^T P (w - m)

by Newton's method with backtracking. The prior's mean is the population's, so that a person without pairs
gets what the population has, and one with few is not pulled to zero. The solution needs no memory: it is
found again whenever it is needed, always against the current features.

Source: Boyd and Vandenberghe 2004, chapter 9 (Newton); MacKay 1992, "The evidence framework applied to
classification networks", for the Laplace evidence.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fedpref.objectives.margin import bradley_terry_pull
from fedpref.objectives.newton import Direction, Minimum, minimum

__all__ = [
    "Posterior",
    "convex_fit",
    "laplace",
    "laplace_flops",
    "precision_flops",
    "precision_of",
]


class Posterior(NamedTuple):
    """A Gaussian in place of the posterior, and how well the prior foretold the pairs.

    Attributes:
        weights: its mode, shape (dim,).
        covariance: inverse of the objective's Hessian there, shape (dim, dim); where the prior's precision
            is a diagonal, the diagonal of that inverse, shape (dim,).
        log_evidence: log-probability of all labels under the prior, in nats, by Laplace's method.
        flops: operations that all this took.
    """

    weights: np.ndarray
    covariance: np.ndarray
    log_evidence: float
    flops: float


def convex_fit(differences: np.ndarray, mean: np.ndarray, precision: float | np.ndarray) -> np.ndarray:
    """The weights that minimise the objective, shape (dim,), float64; ``mean`` where there is no pair.

    With fewer pairs than dimensions the linear systems are of the number of pairs (Woodbury's identity).

    Args:
        differences: z, features of the chosen minus the rejected response, shape (num_pairs, dim).
        mean: m, shape (dim,).
        precision: P: a positive number, the diagonal, shape (dim,), or a positive definite matrix.
    """
    z, m = np.asarray(differences, np.float64), np.asarray(mean, np.float64)
    return _solution(z, m, precision).point


def laplace(differences: np.ndarray, mean: np.ndarray, precision: np.ndarray) -> Posterior:
    """The solution with its covariance and evidence; arguments as in ``convex_fit``, P no number."""
    z, m = np.asarray(differences, np.float64), np.asarray(mean, np.float64)
    found = _solution(z, m, precision)
    w = found.point
    pull = bradley_terry_pull(z @ w)
    curvature = (pull * (1 - pull))[:, None]
    is_diagonal = precision.ndim == 1
    if is_diagonal and len(z) < len(m):
        scaled, by_prior = z * np.sqrt(curvature), z * np.sqrt(curvature) / precision
        inner = np.eye(len(z)) + by_prior @ scaled.T
        covariance = 1 / precision - (by_prior * np.linalg.solve(inner, by_prior)).sum(axis=0)
        log_ratio = -np.linalg.slogdet(inner)[1]
    else:
        prior = np.diag(precision) if is_diagonal else precision
        hessian = prior + (z * curvature).T @ z
        covariance = np.linalg.inv(hessian)
        covariance = np.diag(covariance) if is_diagonal else covariance
        log_ratio = np.linalg.slogdet(prior)[1] - np.linalg.slogdet(hessian)[1]
    evidence = log_ratio / 2 - _objective(w, z, m, precision)
    flops = laplace_flops(len(z), len(m), is_diagonal, found.directions, found.evaluations)
    return Posterior(w, covariance, float(evidence), flops)


def precision_of(covariance: np.ndarray, least_variance: float) -> np.ndarray:
    """Inverse of a covariance whose eigenvalues are first raised to a floor.

    Args:
        covariance: shape (dim, dim), symmetric, or its diagonal, shape (dim,).
        least_variance: the floor.

    Returns:
        Same shape.
    """
    if covariance.ndim == 1:
        inverse: np.ndarray = 1 / np.maximum(covariance, least_variance)
    else:
        values, vectors = np.linalg.eigh(covariance)
        inverse = (vectors / np.maximum(values, least_variance)) @ vectors.T
    return inverse


@lru_cache(maxsize=4096)  # a cohort asks for few different ones, many times
def laplace_flops(
    num_pairs: int, dim: int, is_diagonal: bool = False, directions: int = 1, evaluations: int = 1
) -> float:
    """Operations of ``laplace``: products, linear systems and determinants; at least these.

    Args:
        num_pairs: pairs.
        dim: of the weights.
        is_diagonal: the precision is.
        directions: that Newton's method computed.
        evaluations: of the objective on its way.
    """
    least = min(num_pairs, dim)
    product, gram = 2.0 * num_pairs * dim, 2.0 * num_pairs * dim * least
    prior = 0.0 if is_diagonal else 2.0 * dim**2  # P times a vector
    system = _system(least, 1)
    if num_pairs < dim:
        system += 2 * product + (0.0 if is_diagonal else _system(dim, num_pairs + 1))
    direction = 2 * product + prior + gram + system
    if is_diagonal and num_pairs < dim:
        covariance = gram + _system(num_pairs, dim) + _system(num_pairs, 0)
    else:
        determinants = 1 if is_diagonal else 2
        covariance = 2.0 * num_pairs * dim**2 + _system(dim, dim) + determinants * _system(dim, 0)
    return directions * direction + (evaluations + 1) * (product + prior) + product + covariance


def precision_flops(dim: int, is_diagonal: bool = False) -> float:
    """Operations of ``precision_of``, 9 dim^3 for the eigenvectors (Golub and Van Loan 2013, section 8.3)."""
    return 0.0 if is_diagonal else 11.0 * dim**3


def _system(dim: int, columns: int) -> float:
    """Operations of a factorisation, with as many solutions as there are columns."""
    return 2 * dim**3 / 3 + 2.0 * dim**2 * columns


def _solution(z: np.ndarray, m: np.ndarray, precision: float | np.ndarray) -> Minimum:
    if len(z) == 0:
        return Minimum(m.copy(), 0, 0)

    def direction(w: np.ndarray) -> Direction:
        pull = bradley_terry_pull(z @ w)
        gradient = _times(precision, w - m) - pull @ z
        step = -_solve(z * np.sqrt(pull * (1 - pull))[:, None], precision, gradient)
        return Direction(step, float(gradient @ step))

    return minimum(m.copy(), lambda w: _objective(w, z, m, precision), direction)


def _objective(w: np.ndarray, z: np.ndarray, m: np.ndarray, precision: float | np.ndarray) -> float:
    return float(np.logaddexp(0.0, -(z @ w)).sum() + (w - m) @ _times(precision, w - m) / 2)


def _times(precision: float | np.ndarray, vector: np.ndarray) -> np.ndarray:
    result: np.ndarray = precision @ vector if np.ndim(precision) == 2 else precision * vector
    return result


def _inverse_times(precision: float | np.ndarray, columns: np.ndarray) -> np.ndarray:
    """``P^-1`` times columns, shape (dim, any)."""
    if np.ndim(precision) == 2:
        return np.linalg.solve(np.asarray(precision), columns)
    result: np.ndarray = columns / np.reshape(precision, (-1, 1))
    return result


def _solve(scaled: np.ndarray, precision: float | np.ndarray, vector: np.ndarray) -> np.ndarray:
    """``(P + S^T S)^-1 vector``, with S the rows of ``scaled``, shape (num_pairs, dim)."""
    num_pairs, dim = scaled.shape
    if num_pairs >= dim:
        prior = precision if np.ndim(precision) == 2 else np.diag(np.broadcast_to(precision, dim))
        return np.linalg.solve(prior + scaled.T @ scaled, vector)
    both = _inverse_times(precision, np.column_stack([scaled.T, vector]))
    inner, first = both[:, :-1], both[:, -1]
    result: np.ndarray = first - inner @ np.linalg.solve(np.eye(num_pairs) + scaled @ inner, scaled @ first)
    return result
