"""A mixture of Gaussians by its moments: how one Gaussian becomes K, and how their spread is held.

The moments are means over clients: ``prior.weight`` a_k, the share of component k, shape (K,);
``prior.first`` F, rows ``a_k m_k``, shape (K, H); ``prior.second`` S, shape (H, H) or its diagonal (H,). All
components have one covariance, ``C = S - sum_k a_k m_k m_k^T``.

EM for a mixture that starts from random means often ends with two groups in one component and the covariance
stretched over both. Here it starts from the one Gaussian that fits best: its components are drawn along the
directions in which that Gaussian is widest, and a small covariance is held until they found their groups.

Source: ours; splitting a centre to get a start is the idea of Linde, Buzo and Gray 1980, "An algorithm for
vector quantizer design".
"""

from __future__ import annotations

import numpy as np

from fedpref.types import Weights

__all__ = ["FIRST", "SECOND", "SHARES", "apart", "total_covariance", "with_covariance"]

SHARES, FIRST, SECOND = "prior.weight", "prior.first", "prior.second"
_LEAST_SHARE = 1e-12


def total_covariance(moments: Weights) -> np.ndarray:
    """``S - m m^T`` with m the mean of all components, float64, shape (H, H) or its diagonal (H,)."""
    mean = moments[FIRST].sum(axis=0, dtype=np.float64)
    second = moments[SECOND].astype(np.float64)
    return second - (np.outer(mean, mean) if second.ndim == 2 else mean**2)


def with_covariance(moments: Weights, covariance: np.ndarray) -> Weights:
    """The same shares and means, float32, with a covariance C of shape (H, H) or its diagonal (H,)."""
    first = moments[FIRST].astype(np.float64)
    means = first / np.maximum(moments[SHARES].astype(np.float64), _LEAST_SHARE)[:, None]
    between = first.T @ means if covariance.ndim == 2 else (first * means).sum(axis=0)
    return {**moments, SECOND: (between + covariance).astype(np.float32)}


def apart(moments: Weights, spread: float, rng: np.random.Generator) -> tuple[Weights, np.ndarray]:
    """K components with equal shares, drawn from the Gaussian that has these moments.

    Their means are drawn with ``1 - spread`` of its variance along its K - 1 main directions, which is what K
    points can span.

    Args:
        moments: of one Gaussian, or of a mixture, which is taken for one.
        spread: part of the covariance that remains within each component, in (0, 1).
        rng: the draws.

    Returns:
        The new moments, float32, and the covariance within their components, float64.
    """
    covariance = total_covariance(moments)
    num_components, dim = moments[FIRST].shape
    if covariance.ndim == 2:
        values, vectors = np.linalg.eigh(covariance)
    else:
        order = np.argsort(covariance, kind="stable")
        values, vectors = covariance[order], np.eye(dim)[:, order]
    num_axes = min(num_components - 1, dim)
    axes = vectors[:, dim - num_axes :] * np.sqrt(np.maximum(values[dim - num_axes :], 0.0))
    draws = rng.standard_normal((num_components, num_axes))
    means = moments[FIRST].sum(axis=0, dtype=np.float64) + np.sqrt(1 - spread) * draws @ axes.T
    shares = np.full(num_components, 1 / num_components)
    drawn = {
        **moments,
        SHARES: shares.astype(np.float32),
        FIRST: (shares[:, None] * means).astype(np.float32),
    }
    within = spread * covariance
    return with_covariance(drawn, within), within
