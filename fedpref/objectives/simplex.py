"""Mixture weights of one client: Bradley-Terry on a few pairs over the simplex, with a prior; convex.

    minimise  sum_i log(1 + exp(-(w.f_i + o_i))) + precision KL(w | prior)

by Newton's method in the logarithms of the weights, whose steps keep them positive and summing to 1. With
``dw_k = w_k e_k`` the Hessian for ``sqrt(w) e`` is ``S^T S + precision I``, S of one row a pair: it stays
well-conditioned where weights go to zero.

Source: Kivinen and Warmuth 1997, "Exponentiated gradient versus gradient descent for linear predictors", for
steps that multiply; Boyd and Vandenberghe 2004, section 10.2, for Newton's under a linear constraint.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fedpref.objectives.margin import bradley_terry_pull
from fedpref.objectives.newton import Direction, minimum

__all__ = ["SimplexFit", "curvatures", "dampings", "moved", "simplex_fit", "simplex_fit_flops", "start_of"]

_LEAST_WEIGHT = 1e-9
"""Of the prior: a component that it rules out could never come back."""
_LEAST_LOG = -600.0
"""Of a weight, so that its root is a normal number."""
_DAMPING = 1e-5
"""Part of the largest curvature that takes the place of a smaller precision in the Hessian."""


class SimplexFit(NamedTuple):
    """The weights, shape (K,), and the operations that they took."""

    weights: np.ndarray
    flops: float


def simplex_fit(
    parts: np.ndarray,
    prior: np.ndarray,
    precision: float,
    offset: np.ndarray | float = 0.0,
    most_steps: int = 10,
) -> SimplexFit:
    """The weights on the simplex that minimise the objective, float64; ``prior`` where there is no pair.

    Args:
        parts: f, margin of each pair under each of K components, shape (num_pairs, K).
        prior: shape (K,), on the simplex up to rounding; each weight is taken as at least 1e-9.
        precision: weight of the prior, against a sum over pairs; 0 leaves it out.
        offset: o, the part of each margin that is common to all components, shape (num_pairs,).
        most_steps: of Newton's method.
    """
    start = start_of(prior)
    log_prior = np.log(start)
    damping = float(dampings(curvatures(parts).sum(), precision)) if len(parts) else math.nan
    if math.isnan(damping):
        return SimplexFit(start, 0.0)

    def objective(log_w: np.ndarray) -> float:
        w = np.exp(log_w)
        loss = np.logaddexp(0.0, -(parts @ w + offset)).sum()
        return float(loss + precision * (w @ (log_w - log_prior)))

    def direction(log_w: np.ndarray) -> Direction:
        w = np.exp(log_w)
        root, pull = np.sqrt(w), bradley_terry_pull(parts @ w + offset)
        gradient = precision * (log_w - log_prior) - pull @ parts
        scaled = parts * np.sqrt(pull * (1 - pull))[:, None] * root
        hessian = scaled.T @ scaled + damping * np.eye(len(w))
        free, normal = np.linalg.solve(hessian, np.column_stack([root * gradient, root])).T
        step = normal * ((root @ free) / (root @ normal)) - free  # so that the weights' sum stays
        return Direction(step / root, float((root * gradient) @ step))

    found = minimum(log_prior, objective, direction, moved, most_steps)
    flops = simplex_fit_flops(len(parts), len(start), found.directions, found.evaluations)
    return SimplexFit(np.exp(found.point), flops)


def start_of(prior: np.ndarray) -> np.ndarray:
    """The prior as weights that are all positive and sum to 1, shape (..., K)."""
    start = np.maximum(np.asarray(prior, np.float64), _LEAST_WEIGHT)
    result: np.ndarray = start / start.sum(axis=-1, keepdims=True)
    return result


def curvatures(parts: np.ndarray) -> np.ndarray:
    """A bound of the loss's curvature for each pair, shape (num_pairs,)."""
    spread = parts - parts.mean(axis=1, keepdims=True)  # a shift of all components leaves the minimum
    result: np.ndarray = np.abs(spread).max(axis=1) ** 2 / 4
    return result


def dampings(curvature: np.ndarray, precision: float) -> np.ndarray:
    """What is added to the diagonal of the Hessian of clients whose pairs have these curvatures in sum.

    NaN where there is no fit: nothing to learn from, or not finite.
    """
    found = np.maximum(precision, _DAMPING * curvature)
    return np.where(np.isfinite(curvature) & (found > 0), found, np.nan)


@lru_cache(maxsize=4096)  # a cohort asks for few different ones, many times
def simplex_fit_flops(num_pairs: int, count: int, directions: int = 1, evaluations: int = 1) -> float:
    """Operations of ``simplex_fit`` with a precision: products and linear systems; at least these.

    Args:
        num_pairs: pairs.
        count: K.
        directions: that Newton's method computed.
        evaluations: of the objective.
    """
    direction = 4.0 * num_pairs * count + 2.0 * num_pairs * count**2 + 2 * count**3 / 3 + 4.0 * count**2
    return directions * direction + evaluations * 2.0 * num_pairs * count


def moved(log_w: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Logarithms of weights after a step, on the simplex again; shapes (…, K)."""
    trial = log_w + step
    total = np.logaddexp.reduce(trial, axis=-1, keepdims=True)
    result: np.ndarray = np.maximum(trial - total, _LEAST_LOG)
    return result
