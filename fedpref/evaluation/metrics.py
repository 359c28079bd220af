"""Metrics of preference models: pure functions of margins and, where known, of the true probabilities.

A margin is r(chosen) - r(rejected), in nats; ``p_chosen`` is the true probability that the owner of a
pair prefers ``chosen``. With ``p_chosen`` a metric is its expectation over fresh labels, so that it has
no label noise; without it the stored label counts, that is ``p_chosen = 1``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = [
    "bayes_accuracy",
    "bootstrap_interval",
    "brier",
    "calibration_error",
    "correctness",
    "gini",
    "log_loss",
    "main_directions",
    "order_consistency",
    "position_bias",
    "principal_angles",
    "span_recovery",
    "vote",
    "worst_decile",
    "worst_group",
]


def correctness(margins: np.ndarray, p_chosen: np.ndarray | None = None) -> np.ndarray:
    """Probability that each prediction agrees with its owner; a tie counts one half.

    Args:
        margins: shape (num_pairs,).
        p_chosen: same shape, or None for the stored labels.

    Returns:
        Shape (num_pairs,); its mean is the pair accuracy.

    Raises:
        ValueError: the shapes differ.
    """
    says_chosen = (np.sign(margins) + 1.0) / 2.0
    return _expected(says_chosen, 1.0 - says_chosen, p_chosen)


def bayes_accuracy(p_chosen: np.ndarray) -> float:
    """Best accuracy that any model can have on these pairs: mean of max(p, 1 - p)."""
    return float(np.maximum(p_chosen, 1.0 - p_chosen).mean())


def log_loss(margins: np.ndarray, p_chosen: np.ndarray | None = None) -> np.ndarray:
    """Negative log-likelihood of each preference under Bradley–Terry, in nats, shape (num_pairs,).

    Raises:
        ValueError: the shapes differ.

    Source: Bradley and Terry 1952; log(1 + exp(-margin)) without overflow.
    """
    return _expected(np.logaddexp(0.0, -margins), np.logaddexp(0.0, margins), p_chosen)


def brier(margins: np.ndarray, p_chosen: np.ndarray | None = None) -> np.ndarray:
    """Squared error of the predicted probability, shape (num_pairs,); 1/4 for a coin.

    Raises:
        ValueError: the shapes differ.

    Source: Brier 1950.
    """
    predicted = _sigmoid(margins)
    return _expected((1.0 - predicted) ** 2, predicted**2, p_chosen)


def calibration_error(margins: np.ndarray, p_chosen: np.ndarray | None = None, bins: int = 15) -> float:
    """Expected calibration error over equal-width bins, each pair counted in both orders.

    Pairs are stored with ``chosen`` first, so that one order alone would have a constant label; with
    both, a coin has error 0.

    Raises:
        ValueError: the shapes differ.

    Source: Naeini et al. 2015; both orders as in preference benchmarks.
    """
    predicted = _sigmoid(margins)
    observed = np.ones_like(predicted) if p_chosen is None else p_chosen
    _check_shape(predicted, observed)
    predicted = np.concatenate([predicted, 1.0 - predicted])
    observed = np.concatenate([observed, 1.0 - observed])
    bin_of = np.minimum((predicted * bins).astype(np.intp), bins - 1)
    gaps = np.bincount(bin_of, weights=predicted - observed, minlength=bins)
    return float(np.abs(gaps).sum() / len(predicted))


def vote(margins: np.ndarray) -> np.ndarray:
    """One margin a pair from several models: the majority of signs decides, ties by the mean margin.

    The winning side speaks through the mean margin of its models; where no side wins, the mean of all
    decides. A single model is returned as it is.

    Args:
        margins: shape (num_models, num_pairs).

    Returns:
        Shape (num_pairs,).

    Source: the majority vote of Wu et al. 2024 (FedBiscuit, arXiv:2407.03038), with a magnitude for losses.
    """
    majority = np.sign(np.sign(margins).sum(axis=0))
    sides_with = np.where(majority == 0, True, np.sign(margins) == majority)
    return np.asarray((margins * sides_with).sum(axis=0) / sides_with.sum(axis=0))


def position_bias(orders: np.ndarray) -> np.ndarray:
    """Pull towards slot A of each pair: the part of a selector's logit that swapping leaves unchanged.

    Args:
        orders: logit for slot A with (chosen, rejected) and with (rejected, chosen) in slots A and B,
            shape (num_pairs, 2).

    Returns:
        b = (l(a, b) + l(b, a)) / 2 in logits, shape (num_pairs,); 0 for an antisymmetric selector.
    """
    return np.asarray(orders.mean(axis=1))


def order_consistency(orders: np.ndarray) -> float:
    """Share of pairs on which a selector chooses the same response in both orders.

    A logit of zero is a coin toss, consistent half of the time: an untrained head of zeros has 1/2.

    Args:
        orders: as for ``position_bias``.
    """
    first, second = np.sign(orders).T
    return float(((1.0 - first * second) / 2.0).mean())


def worst_decile(accuracies: np.ndarray, share: float = 0.1) -> float:
    """Mean accuracy of the worst-served tenth of the users (CVaR at 10 %).

    ``share * num_users`` users count; the last one in part, so that the value is exact for any number.

    Raises:
        ValueError: there are no users.

    Source: Rockafellar and Uryasev 2000.
    """
    _check_not_empty(accuracies)
    mass = share * len(accuracies)
    counts = np.clip(mass - np.arange(len(accuracies)), 0.0, 1.0)
    return float((counts * np.sort(accuracies)).sum() / mass)


def worst_group(accuracies: np.ndarray, groups: Sequence[int] | np.ndarray) -> float:
    """Smallest mean accuracy of a group, over the users of each.

    Raises:
        ValueError: there are no users, or not one group a user.
    """
    _check_not_empty(accuracies)
    of_user = np.asarray(groups)
    _check_shape(accuracies, of_user)
    return min(float(accuracies[of_user == group].mean()) for group in np.unique(of_user))


def gini(values: np.ndarray) -> float:
    """Gini coefficient of values >= 0: 0 if all are equal, (n - 1) / n if one has everything.

    Raises:
        ValueError: there are no values.

    Source: sum of |a_i - a_j| / (2 n^2 mean), in its sorted form.
    """
    _check_not_empty(values)
    total = float(values.sum())
    if total == 0.0:
        return 0.0
    num_values = len(values)
    ranks = 2.0 * np.arange(1, num_values + 1) - num_values - 1.0
    return float((ranks * np.sort(values)).sum() / (num_values * total))


def principal_angles(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Angles between the spans of two sets of columns, in radians, ascending; 0 is a shared direction.

    Columns may be of any length and may depend on each other.

    Args:
        found: shape (dim, num_found).
        true: shape (dim, num_true).

    Returns:
        One angle in [0, pi/2] for each dimension of the smaller span.

    Raises:
        ValueError: the dimensions differ, or a span has none.

    Source: Björck and Golub 1973, with the sines for small angles, as they advise.
    """
    first, second = main_directions(found), main_directions(true)
    if len(first) != len(second) or 0 in (first.shape[1], second.shape[1]):
        raise ValueError(f"no angles between spans of shapes {first.shape} and {second.shape}")
    if first.shape[1] < second.shape[1]:
        first, second = second, first
    cosines = np.linalg.svd(first.T @ second, compute_uv=False)
    sines = np.linalg.svd(second - first @ (first.T @ second), compute_uv=False)[::-1]
    by_cosine, by_sine = np.arccos(np.clip(cosines, 0.0, 1.0)), np.arcsin(np.clip(sines, 0.0, 1.0))
    return np.asarray(np.where(cosines**2 > 0.5, by_sine, by_cosine))


def span_recovery(found: np.ndarray, true: np.ndarray) -> float:
    """Share of the true columns that lies in the found span, in [0, 1]: of the sum of their squared lengths.

    For orthonormal true columns it is the mean squared cosine of the principal angles; num_found / dim for a
    random span, 1 for one that holds all of them.

    Args:
        found: columns, shape (dim, num_found).
        true: columns, shape (dim, num_true).

    Raises:
        ValueError: the dimensions differ, or all columns of one are zero.
    """
    basis = main_directions(found)
    total = float((true**2).sum())
    if len(basis) != len(true) or basis.shape[1] == 0 or total == 0.0:
        raise ValueError(f"no span of shape {found.shape} to recover {true.shape}")
    return float(((basis.T @ true) ** 2).sum()) / total


def main_directions(columns: np.ndarray) -> np.ndarray:
    """Orthonormal columns with the same span, the direction that holds most of the columns first."""
    left, values, _ = np.linalg.svd(np.asarray(columns, dtype=np.float64), full_matrices=False)
    least = values.max(initial=0.0) * max(columns.shape) * np.finfo(np.float64).eps
    return np.asarray(left[:, values > least])


def bootstrap_interval(
    sums: np.ndarray,
    counts: np.ndarray,
    rng: np.random.Generator,
    draws: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of ``sums.sum() / counts.sum()`` when whole users are drawn anew.

    Users, not pairs, are the units: pairs of one user are no independent evidence about others.

    Args:
        sums: what each user contributes, shape (num_users,); for example correct pairs.
        counts: the weight of each user, same shape, positive; for example pairs, or ones.
        rng: the draws.
        draws: bootstrap samples.
        level: coverage.

    Raises:
        ValueError: there are no users, or the shapes differ.

    Source: Efron 1979.
    """
    _check_not_empty(sums)
    _check_shape(sums, counts)
    num_users = len(sums)
    times_drawn = rng.multinomial(num_users, np.full(num_users, 1.0 / num_users), size=draws)
    means = (times_drawn @ sums) / (times_drawn @ counts)
    low, high = np.quantile(means, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def _expected(if_chosen: np.ndarray, if_rejected: np.ndarray, p_chosen: np.ndarray | None) -> np.ndarray:
    """Expectation over the label; without a truth the label is ``chosen``."""
    if p_chosen is None:
        return if_chosen
    _check_shape(if_chosen, p_chosen)
    return np.asarray(p_chosen * if_chosen + (1.0 - p_chosen) * if_rejected)


def _sigmoid(margins: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-np.logaddexp(0.0, -margins)))


def _check_shape(values: np.ndarray, others: np.ndarray) -> None:
    if np.shape(values) != np.shape(others):
        raise ValueError(f"shapes differ: {np.shape(values)} and {np.shape(others)}")


def _check_not_empty(values: np.ndarray) -> None:
    if len(values) == 0:
        raise ValueError("there are no users to average over")
