"""The one local convex solve: Bradley-Terry on a few pairs, with a Gaussian prior on the weights.

    minimise  sum_i log(1 + exp(-w.z_i)) + 1/2 (w - m)^T P (w - m)

by Newton's method with backtracking. The prior's mean is the population's, so that a person without pairs
gets what the population has, and one with few is not pulled to zero. The solution needs no memory: it is
found again whenever it is needed, always against the current features.

Source: Boyd and Vandenberghe 2004, algorithms 9.2 and 9.5 (backtracking, Newton); MacKay 1992, "The evidence
framework applied to classification networks", for the Laplace evidence.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fedpref.objectives.margin import bradley_terry_pull

__all__ = ["Posterior", "convex_fit", "laplace"]

_MOST_ITERATIONS = 10
_SUFFICIENT = 1e-4
"""Part of the decrease promised by the slope that a step must bring."""
_CONVERGED = 1e-12
"""Newton decrement, in nats, at which there is nothing to gain."""


class Posterior(NamedTuple):
    """A Gaussian in place of the posterior, and how well the prior foretold the pairs.

    Attributes:
        weights: its mode, shape (dim,).
        covariance: inverse of the objective's Hessian there, shape (dim, dim).
        log_evidence: log-probability of all labels under the prior, in nats, by Laplace's method.
    """

    weights: np.ndarray
    covariance: np.ndarray
    log_evidence: float


def convex_fit(differences: np.ndarray, mean: np.ndarray, precision: float | np.ndarray) -> np.ndarray:
    """The weights that minimise the objective, shape (dim,), float64; ``mean`` where there is no pair.

    With fewer pairs than dimensions the linear systems are of the number of pairs (Woodbury's identity).

    Args:
        differences: z, features of the chosen minus the rejected response, shape (num_pairs, dim).
        mean: m, shape (dim,).
        precision: P: a positive number, the diagonal, shape (dim,), or a positive definite matrix.
    """
    z, m = np.asarray(differences, np.float64), np.asarray(mean, np.float64)
    w = m.copy()
    if len(z) == 0:
        return w
    value = _objective(w, z, m, precision)
    for _ in range(_MOST_ITERATIONS):
        pull = bradley_terry_pull(z @ w)
        gradient = _times(precision, w - m) - pull @ z
        step = -_solve(z * np.sqrt(pull * (1 - pull))[:, None], precision, gradient)
        slope = float(gradient @ step)
        if -slope < _CONVERGED:
            break
        size, trial = 1.0, _objective(w + step, z, m, precision)
        while trial > value + _SUFFICIENT * size * slope and size > 1e-6:
            size /= 2
            trial = _objective(w + size * step, z, m, precision)
        if trial > value:  # rounding is all that is left
            break
        w, value = w + size * step, trial
    return w


def laplace(differences: np.ndarray, mean: np.ndarray, precision: np.ndarray) -> Posterior:
    """The solution with its covariance and evidence; arguments as in ``convex_fit``, P a matrix."""
    w = convex_fit(differences, mean, precision)
    z = np.asarray(differences, np.float64)
    pull = bradley_terry_pull(z @ w)
    hessian = precision + (z * (pull * (1 - pull))[:, None]).T @ z
    log_ratio = np.linalg.slogdet(precision)[1] - np.linalg.slogdet(hessian)[1]
    evidence = log_ratio / 2 - _objective(w, z, np.asarray(mean, np.float64), precision)
    return Posterior(w, np.linalg.inv(hessian), float(evidence))


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
