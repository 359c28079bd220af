"""Two models on the same held-out pairs, person by person: gains with intervals, and who is worse off.

Marks say of each person how right a model is on each pair: 1, 0, or one half for a tie.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from fedpref.evaluation.metrics import bootstrap_interval
from fedpref.evaluation.personal import HARM

__all__ = ["Comparison", "Marks", "compared", "sign_test"]

Marks: TypeAlias = Mapping[str, np.ndarray]

_LEVEL = 0.05


class Comparison(NamedTuple):
    """How a model does beside another.

    Over pairs every row counts alike, over people everybody with enough rows; the last five are NaN if there
    are none. Intervals are at 95 %, from drawing people anew.

    Attributes:
        pair_accuracy: over pairs.
        pair_gain: the same, minus that of the other model.
        pair_interval: of the gain.
        num_people: with enough rows.
        accuracy: over people.
        gain: over people.
        interval: of the gain.
        loses: share of the people whose mean loss exceeds ``personal.HARM``.
        worse: share of those significantly worse off, by ``sign_test`` at 5 %; where all are served alike,
            at most 5 % are by chance.
        better: share of those significantly better off.
    """

    pair_accuracy: float
    pair_gain: float
    pair_interval: tuple[float, float]
    num_people: int
    accuracy: float = math.nan
    gain: float = math.nan
    interval: tuple[float, float] = (math.nan, math.nan)
    loses: float = math.nan
    worse: float = math.nan
    better: float = math.nan


def sign_test(own: np.ndarray, base: np.ndarray) -> float:
    """Chance of as many losses against ``base`` or more, were losses and gains alike: exact, one-sided.

    Args:
        own: marks of one person, shape (num_pairs,).
        base: marks of the other model on the same pairs.

    Source: McNemar 1947, with the exact binomial distribution.
    """
    losses, gains = int((own < base).sum()), int((own > base).sum())
    differing = losses + gains
    return float(sum(math.comb(differing, count) for count in range(losses, differing + 1)) / 2**differing)


def compared(
    own: Sequence[Marks], base: Sequence[Marks], rng: np.random.Generator, fewest_pairs: int = 10
) -> Comparison:
    """Compare over one or several splits; over people, a person counts once, with the mean over splits.

    Args:
        own: marks of a model, one mapping a split.
        base: marks of the other on the same pairs.
        rng: the draws of the bootstrap.
        fewest_pairs: that a person must have in a split, to count over people.
    """
    sums: dict[str, list[tuple[float, float, int]]] = {}
    people: dict[str, list[tuple[float, float, bool, bool]]] = {}
    for mine, others in zip(own, base, strict=True):
        for person, right in mine.items():
            other = others[person]
            sums.setdefault(person, []).append((right.sum(), (right - other).sum(), len(right)))
            if len(right) >= fewest_pairs:
                worse, better = sign_test(right, other) <= _LEVEL, sign_test(other, right) <= _LEVEL
                people.setdefault(person, []).append((right.mean(), (right - other).mean(), worse, better))
    total, gained, num_pairs = np.array([np.sum(of, axis=0) for of in sums.values()]).T
    over_pairs = (
        float(total.sum() / num_pairs.sum()),
        float(gained.sum() / num_pairs.sum()),
        bootstrap_interval(gained, num_pairs, rng),
    )
    if not people:
        return Comparison(*over_pairs, num_people=0)
    accuracies, gains, are_worse, are_better = np.array([np.mean(of, axis=0) for of in people.values()]).T
    return Comparison(
        *over_pairs,
        num_people=len(people),
        accuracy=float(accuracies.mean()),
        gain=float(gains.mean()),
        interval=bootstrap_interval(gains, np.ones_like(gains), rng),
        loses=float((gains < -HARM).mean()),
        worse=float(are_worse.mean()),
        better=float(are_better.mean()),
    )
