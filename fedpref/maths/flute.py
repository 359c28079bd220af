"""FLUTE's server steps: on the factors of one low-rank model of all clients, or on the rows of classifiers.

The scalar heads of all clients are the rows of one array ``heads`` (N, k), so that with W = heads^T the
clients' linear models are the columns of ``B W``, shape (H, N). Neither step on the factors changes what
``B W`` means to first order (balance) or at all (SVD); they decide how its size is shared between them.

A client's classifier has a row for each of C answers. Its step draws them apart, towards a regular simplex.

Source: Liu et al. 2024, "Federated Representation Learning in the Under-Parameterized Regime" (FLUTE),
arXiv:2406.04596. The regulariser of factors is the balance term of two-factor matrix sensing: Tu et al. 2016,
arXiv:1507.03566, equation 3; that of classifiers is neural collapse: Papyan et al. 2020, arXiv:2008.08186.
The SVD step is ours.
"""

from __future__ import annotations

import numpy as np

__all__ = [
    "balance_defect",
    "balanced_factors",
    "balanced_step",
    "collapse_defect",
    "collapse_gradient",
    "stable_rate",
]

_RESOLUTION = 1e-7
"""A defect below it is the rounding of float32 weights."""


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


def collapse_defect(rows: np.ndarray) -> float:
    """``NC(W) = |W W^T / |W W^T|_F - T|_F``, T = (I - 11^T/C) / sqrt(C - 1): 0 for a regular simplex.

    The size of W does not count. It is 0 for a W of zeros, which has no shape.

    Args:
        rows: W, shape (C, k), a row for each of at least two answers; two of them should be opposite.
    """
    shape = _shape_of(rows)
    return 0.0 if shape is None else float(np.linalg.norm(shape - _simplex(len(rows))))


def collapse_gradient(rows: np.ndarray) -> np.ndarray:
    """Gradient of NC, shape (C, k); zeros where it is zero, or not defined.

    With M = W W^T / |W W^T|_F it is ``2 (<T, M> M - T) W / (|W W^T|_F NC)``, orthogonal to W.

    Args:
        rows: W, as in ``collapse_defect``.
    """
    shape, defect = _shape_of(rows), collapse_defect(rows)
    if shape is None or defect < _RESOLUTION:
        return np.zeros_like(rows)
    simplex = _simplex(len(rows))
    along = np.sum(simplex * shape) * shape - simplex
    gradient: np.ndarray = 2 * along @ rows / (np.linalg.norm(rows @ rows.T) * defect)
    return gradient


def _shape_of(rows: np.ndarray) -> np.ndarray | None:
    gram = rows @ rows.T
    size = np.linalg.norm(gram)
    return gram / size if size > 0 else None


def _simplex(num_answers: int) -> np.ndarray:
    simplex: np.ndarray = (np.eye(num_answers) - 1 / num_answers) / np.sqrt(num_answers - 1)
    return simplex
