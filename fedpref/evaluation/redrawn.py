"""Accuracies over people when people are drawn anew: a person who is drawn twice counts twice.

``times`` says how often each person is in each draw, shape (draws, num_people); all people once give the
metric itself. A draw without anybody has no value: NaN.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

__all__ = ["draws_of", "mean", "worst_group", "worst_share"]

_MOST_ENTRIES = 2**21  # of the draws that are held at a time


def draws_of(num_people: int, rng: np.random.Generator, draws: int) -> Iterator[np.ndarray]:
    """``draws`` times as many people as there are, with replacement, some draws at a time.

    Source: Efron 1979; one draw after the other, so that its size does not depend on how many are held.
    """
    at_a_time = max(_MOST_ENTRIES // num_people, 1)
    for start in range(0, draws, at_a_time):
        size = min(at_a_time, draws - start)
        times = rng.multinomial(num_people, np.full(num_people, 1.0 / num_people), size=size)
        yield times.astype(np.float64)  # exact, and products of floats are quick


def mean(times: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean of each draw, shape (draws,).

    Args:
        times: shape (draws, num_people).
        values: one a person.
        weights: one a person, above 0.
    """
    return _ratio(times @ (values * weights), times @ weights)


def worst_share(times: np.ndarray, values: np.ndarray, share: float = 0.1) -> np.ndarray:
    """Mean over the ``share`` of people with the lowest values, a fraction of the last one where it must be.

    As ``metrics.worst_decile``, for each draw, shape (draws,).
    """
    order = np.argsort(values, kind="stable")
    ranked = times[:, order]
    mass = share * ranked.sum(axis=1)
    before = np.cumsum(ranked, axis=1) - ranked
    taken = np.clip(mass[:, None] - before, 0.0, ranked)
    return _ratio(taken @ values[order], mass)


def worst_group(times: np.ndarray, values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Smallest mean of a group, among those that were drawn, shape (draws,)."""
    means = [
        mean(times[:, groups == group], values[groups == group], np.ones(int((groups == group).sum())))
        for group in np.unique(groups)
    ]
    smallest: np.ndarray = np.fmin.reduce(means)
    return smallest


def _ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    ratios = np.full(len(sums), np.nan)
    np.divide(sums, counts, out=ratios, where=counts > 0)
    return ratios
