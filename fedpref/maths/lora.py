"""Aggregating LoRA: averaging A and B is not averaging BA.

With ``W_i = B_i A_i`` and shares p, the bias of averaging factors is exactly
``sum_i p_i B_i A_i - mean(B) mean(A) = sum_i p_i (B_i - mean(B)) (A_i - mean(A))``.
``WeightedMean`` accepts it and logs it; ``FreezeA`` has none; ``SvdMean`` averages the products and
truncates them to rank r. Operators that change the backbone (FedEx-LoRA, FLoRA) are not offered:
the backbone is shared and frozen.

An update may be stale (its client received another model than the one that is stepped) or count
``factor`` times. With w_i = p_i factor_i the exact mean product is then
``B A + sum_i w_i (B_i A_i - B_0i A_0i)``: the base, moved by what each client changed in its own product.

Keys follow PEFT: ``….lora_A.weight`` of shape (r, d_in) beside ``….lora_B.weight`` of shape (d_out, r).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.maths.combine import WeightedMean, normalised
from fedpref.maths.deltas import sum_of_deltas
from fedpref.types import ClientId, Combined, Update, Weights

__all__ = [
    "FreezeA",
    "SvdMean",
    "factor_pairs",
    "interference",
    "mean_terms",
    "truncated_mean",
    "turned_towards",
]

A_SUFFIX, B_SUFFIX = ".lora_A.weight", ".lora_B.weight"


def factor_pairs(weights: Weights) -> list[tuple[str, str]]:
    """Keys (A, B) of every matrix whose two factors travel, sorted: one may stay with its clients."""
    stems = sorted(key.removesuffix(A_SUFFIX) for key in weights if key.endswith(A_SUFFIX))
    return [(stem + A_SUFFIX, stem + B_SUFFIX) for stem in stems if stem + B_SUFFIX in weights]


def mean_terms(
    base: Weights, updates: Sequence[Update], parts: Sequence[float]
) -> tuple[list[Weights], list[float]]:
    """Models and their signs and weights, whose products BA sum to the exact mean product.

    Of fresh updates that count once these are the local weights with their shares. Otherwise the base keeps
    what they leave, and of a stale update what its client received is taken away again.

    Args:
        base: the model that is stepped.
        updates: the answers.
        parts: shares that sum to one, before the updates' factors.

    Returns:
        Models with LoRA factors, and the coefficient of each; the coefficients sum to one.
    """
    keys = [key for pair in factor_pairs(base) for key in pair]
    locals_, weights = [update.weights for update in updates], _counted(updates, parts)
    received, taken = [], []
    for update, weight in zip(updates, weights, strict=True):
        if any(not _are_equal(update.received[key], base[key]) for key in keys):
            received.append(update.received)
            taken.append(weight)
    if not received and all(update.factor == 1 for update in updates):
        return locals_, weights
    left = 1.0 - (sum(weights) - sum(taken))  # what is taken from received models is not from the base
    return [base, *locals_, *received], [left, *weights, *(-weight for weight in taken)]


def interference(base: Weights, updates: Sequence[Update], parts: Sequence[float]) -> float | None:
    """Relative bias of averaging factors, ``||mean(BA) - mean(B) mean(A)|| / ||mean(BA)||``.

    Frobenius norms over all adapted matrices together; None without LoRA factors, 0 where all
    products vanish. Of one matrix at a time the factors of all updates are held in float64.

    Args:
        base: the model that is stepped.
        updates: the answers.
        parts: shares that sum to one, before the updates' factors.
    """
    pairs = factor_pairs(base)
    if not pairs:
        return None
    models, coefficients = mean_terms(base, updates, parts)
    gap = mean_norm = 0.0
    for key_a, key_b in pairs:
        a, b = _stack(models, key_a), _stack(models, key_b)  # (terms, r, d_in), (terms, d_out, r)
        both = _squared_norms(np.asarray(coefficients)[:, None, None], b, a)
        mean_norm, gap = mean_norm + both[0], gap + both[1]
    return float(np.sqrt(gap / mean_norm)) if mean_norm > 0 else 0.0


def _squared_norms(c: np.ndarray, b: np.ndarray, a: np.ndarray) -> tuple[float, float]:
    """Of ``sum_i c_i b_i a_i``, and of that less the product of the means ``sum_i c_i b_i`` and ``… a_i``.

    The coefficients sum to one, so the identity above holds with their signs.
    """
    mean_b, mean_a = (c * b).sum(0), (c * a).sum(0)
    width = b.shape[0] * b.shape[2]
    if width**2 > len(mean_b) * mean_a.shape[1]:  # the product is smaller than Gram matrices
        product = _side_by_side(c * b) @ a.reshape(width, -1)
        return float(np.sum(product**2)), float(np.sum((product - mean_b @ mean_a) ** 2))
    return _squared_by_gram(c * b, a), _squared_by_gram(c * (b - mean_b), a - mean_a)


def _counted(updates: Sequence[Update], parts: Sequence[float]) -> list[float]:
    return [part * update.factor for part, update in zip(parts, updates, strict=True)]


def _are_equal(first: np.ndarray, second: np.ndarray) -> bool:
    """True at once where both are the same array, as for whoever received the base."""
    return first is second or np.array_equal(first, second)


def _stack(terms: Sequence[Weights], key: str) -> np.ndarray:
    return np.stack([term[key] for term in terms], dtype=np.float64)


def _side_by_side(b: np.ndarray) -> np.ndarray:
    """(m, d_out, r) as (d_out, m r)."""
    return np.concatenate(list(b), axis=1)


def _squared_by_gram(b: np.ndarray, a: np.ndarray) -> float:
    """``||sum_i b_i a_i||_F^2`` without that sum."""
    left, right = _side_by_side(b), np.concatenate(list(a), axis=0)
    return max(0.0, float(np.vdot(left.T @ left, right @ right.T)))


def truncated_mean(
    b: np.ndarray, a: np.ndarray, parts: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Best rank-r factors of ``sum_i p_i B_i A_i``, and the share of energy that is lost.

    Args:
        b: stacked B factors, shape (m, d_out, r).
        a: stacked A factors, shape (m, r, d_in).
        parts: coefficients p of either sign, length m.

    Returns:
        ``B = U sqrt(S)`` of shape (d_out, r), ``A = sqrt(S) V^T`` of shape (r, d_in), and
        discarded energy over total energy. The sign of each direction is fixed by making the
        entry of largest magnitude in its column of U positive.
    """
    rank = b.shape[2]
    left = np.concatenate([p * factor for p, factor in zip(parts, b, strict=True)], axis=1)
    right = np.concatenate(list(a), axis=0)
    q_left, r_left = np.linalg.qr(left)
    q_right, r_right = np.linalg.qr(right.T)
    u, s, vt = np.linalg.svd(r_left @ r_right.T)
    u, vt = q_left @ u, vt @ q_right.T
    if len(s) < rank:  # a matrix smaller than the rank: pad with directions of weight zero
        u = np.pad(u, ((0, 0), (0, rank - len(s))))
        vt = np.pad(vt, ((0, rank - len(s)), (0, 0)))
        s = np.pad(s, (0, rank - len(s)))
    u, kept, vt = u[:, :rank], s[:rank], vt[:rank]
    sign = np.sign(u[np.abs(u).argmax(axis=0), np.arange(rank)])
    sign[sign == 0] = 1.0
    total = float(np.sum(s**2))
    lost = float(np.sum(s[rank:] ** 2)) / total if total > 0 else 0.0
    return u * sign * np.sqrt(kept), (np.sqrt(kept) * sign)[:, None] * vt[:rank], lost


def turned_towards(
    b: np.ndarray, a: np.ndarray, old_b: np.ndarray, old_a: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Factors of the same product BA in the basis nearest to that of the old ones.

    With the orthogonal q that minimises ``||b q - old_b||^2 + ||q^T a - old_a||^2`` the step from old to
    new factors holds no mere change of basis, so that a part of it is a part of the way.

    Args:
        b: new left factor, shape (d_out, r).
        a: new right factor, shape (r, d_in).
        old_b: left factor before, same shape as ``b``.
        old_a: right factor before, same shape as ``a``.

    Source: Schönemann 1966 (orthogonal Procrustes).
    """
    u, _, vt = np.linalg.svd(b.T @ old_b + a @ old_a.T)
    q = u @ vt
    return b @ q, q.T @ a


@dataclass(frozen=True)
class SvdMean:
    """Average the products BA and truncate to rank r; everything else is averaged as it is.

    The new factors are turned into the basis nearest to the old ones, so that a step of less than the
    whole way (``server_lr``, FedBiscuit's anchor) goes towards the mean. Even so their coordinates may
    turn a little, which invalidates optimiser moments and control variates that a client may keep.
    ``svd_energy_lost`` is logged.

    Source: best rank-r approximation (Eckart and Young 1936) of the exact mean.
    """

    def init(self, clients: Sequence[ClientId]) -> None:
        """Nothing to remember."""

    def __call__(
        self,
        base: Weights,
        updates: Sequence[Update],
        shares: Sequence[float],
        cohort: Sequence[ClientId],
        rng: np.random.Generator,
        memory: None = None,
    ) -> Combined:
        """Combine ``updates``; see ``fedpref.types.Combine``.

        Raises:
            ConfigurationError: the weights hold no LoRA factors.
        """
        pairs = _pairs_or_refuse(base, "svd")
        parts = normalised(shares)
        delta = dict(sum_of_deltas(updates, _counted(updates, parts)))
        models, coefficients = mean_terms(base, updates, parts)
        lost = []
        for key_a, key_b in pairs:
            a, b = _stack(models, key_a), _stack(models, key_b)
            new_b, new_a, share_lost = truncated_mean(b, a, coefficients)
            old_b, old_a = base[key_b].astype(np.float64), base[key_a].astype(np.float64)
            new_b, new_a = turned_towards(new_b, new_a, old_b, old_a)
            delta[key_a], delta[key_b] = new_a - old_a, new_b - old_b
            lost.append(share_lost)
        return Combined(delta, {"svd_energy_lost": float(np.mean(lost))})


@dataclass(frozen=True)
class FreezeA:
    """A is the common, seeded projection that nobody trains; averaging B alone is exact.

    Source: Sun et al. 2024 (FFA-LoRA), arXiv:2403.12313.
    """

    def init(self, clients: Sequence[ClientId]) -> None:
        """Nothing to remember."""

    def __call__(
        self,
        base: Weights,
        updates: Sequence[Update],
        shares: Sequence[float],
        cohort: Sequence[ClientId],
        rng: np.random.Generator,
        memory: None = None,
    ) -> Combined:
        """Combine ``updates``; see ``fedpref.types.Combine``.

        Raises:
            ConfigurationError: a client changed its A, or there are no LoRA factors.
        """
        for key_a, _ in _pairs_or_refuse(base, "freeze_a"):
            if any(not _are_equal(update.weights[key_a], update.received[key_a]) for update in updates):
                raise ConfigurationError(
                    f"combine=freeze_a, but clients train {key_a}; set client.freeze_a=true"
                )
        return WeightedMean()(base, updates, shares, cohort, rng)


def _pairs_or_refuse(base: Weights, name: str) -> list[tuple[str, str]]:
    pairs = factor_pairs(base)
    if not pairs:
        raise ConfigurationError(
            f"combine={name} needs LoRA factors, but the client rule sends {sorted(base)}; "
            "use client=lora_reward or combine=weighted_mean"
        )
    return pairs
