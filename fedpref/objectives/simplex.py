"""Mixture weights of one client: the Bradley-Terry loss over the simplex, a convex problem.

Source: Beck and Teboulle 2003 (mirror descent); with the prior in the mirror step: Duchi et al. 2010.
"""

from __future__ import annotations

import numpy as np

from fedpref.objectives.margin import bradley_terry_pull

__all__ = ["simplex_weights"]


def simplex_weights(
    parts: np.ndarray, offset: np.ndarray, precision: float = 1.0, steps: int = 100
) -> np.ndarray:
    """Weights w on the simplex: minimum of ``sum softplus(-(parts w + offset)) + precision KL(w, uniform)``.

    Mirror steps with the entropy, whose size is set by the loss's curvature: they never overshoot, and w
    stays positive. Without pairs w is uniform.

    Args:
        parts: margin of each pair under each of K components, shape (num_pairs, K).
        offset: the part of each margin that is common to all components, shape (num_pairs,).
        precision: weight of the prior, against a sum over pairs; 0 leaves it out.
        steps: mirror steps.

    Returns:
        Shape (K,), float64, summing to 1.
    """
    count = parts.shape[1]
    w = np.full(count, 1 / count)
    centred = parts - parts.mean(1, keepdims=True)  # a shift of all components leaves the minimum
    curvature = float((np.abs(centred).max(1) ** 2).sum()) / 4
    if curvature == 0:  # no pairs, or components that agree on all of them
        return w
    log_w = np.log(w)
    for _ in range(steps):
        pull = bradley_terry_pull(parts @ w + offset)
        log_w = (curvature * log_w + pull @ centred) / (curvature + precision)
        w = np.exp(log_w - log_w.max())
        w = w / w.sum()
        log_w = np.log(np.maximum(w, np.finfo(np.float64).tiny))
    return w
