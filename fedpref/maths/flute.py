"""FLUTE's server steps: the factors of one low-rank model of all clients, balanced or made orthogonal.

The heads of all clients are the rows of one array ``heads`` (N, k), so that with W = heads^T the clients'
linear models are the columns of ``B W``, shape (H, N). Neither step changes what ``B W`` means to first
order (balance) or at all (SVD); they decide how its size is shared between the factors.

Source: Liu et al. 2024, "Federated Representation Learning in the Under-Parameterized Regime" (FLUTE),
arXiv:2406.04596. The regulariser is the balance term of two-factor matrix sensing: Tu et al. 2016,
arXiv:1507.03566, equation 3. The SVD step is ours.
"""

from __future__ import annotations

import numpy as np

__all__ = ["balance_defect", "balanced_factors", "balanced_step", "stable_rate"]


def balance_defect(representation: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """``D = B^T B - W W^T``, shape (k, k).

    Args:
        representation: B, shape (H, k).
        heads: W^T, shape (N, k), a row a client.
    """
    defect: np.ndarray = representation.T @ representation - heads.T @ heads
    return defect


def stable_rate(representation: np.ndarray, heads: np.ndarray, fraction: float) -> float:
    """The step size ``fraction / max(|B^T B|, |W W^T|)``, spectral norms; 0 where both factors are zero.

    Near balance a step of that size multiplies the defect in the largest direction by ``1 - 4 fraction``, and
    where one factor is zero by ``(1 - fraction)^2``: below 1/2 it is stable for any number of clients.
    """
    largest = max(np.linalg.norm(factor.T @ factor, 2) for factor in (representation, heads))
    return float(fraction / largest) if largest > 0 else 0.0


def balanced_step(
    representation: np.ndarray, heads: np.ndarray, rate: float
) -> tuple[np.ndarray, np.ndarray]:
    """One simultaneous gradient step on ``|D|_F^2 / 4``: ``B - rate B D`` and ``W + rate D W``.

    Args:
        representation: B, shape (H, k).
        heads: W^T, shape (N, k).
        rate: lambda; the factor 4 of the gradient is absorbed.
    """
    defect = balance_defect(representation, heads)
    return representation - rate * representation @ defect, heads + rate * heads @ defect


def balanced_factors(representation: np.ndarray, heads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``U S^(1/2)`` and ``V S^(1/2)`` of the rank-k SVD ``B W = U S V^T``: the same models, in balance.

    The factors come back as they are where ``B W`` has a rank below k: a direction that is zero in both
    factors has no gradient, and could never grow again.

    Args:
        representation: B, shape (H, k).
        heads: W^T, shape (N, k).
    """
    basis_b, triangle_b = np.linalg.qr(representation)
    basis_w, triangle_w = np.linalg.qr(heads)
    left, sizes, right = np.linalg.svd(triangle_b @ triangle_w.T)
    rank = representation.shape[1]
    if len(sizes) < rank or sizes[-1] <= np.finfo(np.float32).eps * sizes[0]:
        return representation, heads
    roots = np.sqrt(sizes)
    return basis_b @ left * roots, basis_w @ right.T * roots
