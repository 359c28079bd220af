"""Newton's method with backtracking, for the few weights that a client fits at home.

Source: Boyd and Vandenberghe 2004, "Convex Optimization", algorithms 9.2 (backtracking) and 9.5 (Newton).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = ["Direction", "Directions", "Minima", "Minimum", "minima", "minimum"]

_SUFFICIENT = 1e-4
"""Part of the decrease promised by the slope that a step must bring."""
_CONVERGED = 1e-12
"""Newton decrement, in nats, at which there is nothing to gain."""


class Direction(NamedTuple):
    """Newton's step at a point, and the objective's slope along it."""

    step: np.ndarray
    slope: float


class Minimum(NamedTuple):
    """Where the steps have led.

    Attributes:
        point: the last one.
        directions: how many were computed.
        evaluations: of the objective.
    """

    point: np.ndarray
    directions: int
    evaluations: int


class Directions(NamedTuple):
    """As ``Direction``, of many problems: shapes (…, dim) and (…)."""

    steps: np.ndarray
    slopes: np.ndarray


class Minima(NamedTuple):
    """As ``Minimum``, of many problems.

    Attributes:
        points: shape (…, dim).
        values: of the objective there, shape (…).
        directions: shape (…); a problem's own, up to where it converged.
        evaluations: as the directions.
    """

    points: np.ndarray
    values: np.ndarray
    directions: np.ndarray
    evaluations: np.ndarray


def minimum(
    start: np.ndarray,
    objective: Callable[[np.ndarray], float],
    direction: Callable[[np.ndarray], Direction],
    moved: Callable[[np.ndarray, np.ndarray], np.ndarray] = np.add,
    most_steps: int = 10,
) -> Minimum:
    """Follow the directions until there is nothing to gain; the objective never rises.

    Args:
        start: a point.
        objective: in nats.
        direction: of descent, at a point.
        moved: the point that a step leads to; addition, or what keeps to the objective's domain.
        most_steps: after which to stop.
    """
    point, value, evaluations = start, objective(start), 1
    for number in range(most_steps):
        step, slope = direction(point)
        if -slope < _CONVERGED:
            return Minimum(point, number + 1, evaluations)
        size, trial = 1.0, moved(point, step)
        reached = objective(trial)
        evaluations += 1
        while reached > value + _SUFFICIENT * size * slope and size > 1e-6:
            size /= 2
            trial = moved(point, size * step)
            reached = objective(trial)
            evaluations += 1
        if reached > value:  # rounding is all that is left
            return Minimum(point, number + 1, evaluations)
        point, value = trial, reached
    return Minimum(point, most_steps, evaluations)


def minima(
    start: np.ndarray,
    objective: Callable[[np.ndarray], np.ndarray],
    direction: Callable[[np.ndarray], Directions],
    moved: Callable[[np.ndarray, np.ndarray], np.ndarray] = np.add,
    most_steps: int = 10,
) -> Minima:
    """As ``minimum`` for each of many problems, all at once: one that has converged does not move any more.

    Args:
        start: points, shape (…, dim).
        objective: of all points, shape (…).
        direction: at all points.
        moved: the points that steps lead to.
        most_steps: after which to stop.
    """
    points, values = start, objective(start)
    moves = np.ones(values.shape, dtype=bool)
    directions, evaluations = np.zeros(values.shape, int), np.ones(values.shape, int)
    for _ in range(most_steps):
        steps, slopes = direction(points)
        directions += moves
        moves = moves & ~(-slopes < _CONVERGED)
        if not moves.any():
            break
        sizes, trials = np.ones(values.shape), moved(points, steps)
        reached = objective(trials)
        evaluations += moves
        while (shorter := moves & (reached > values + _SUFFICIENT * sizes * slopes) & (sizes > 1e-6)).any():
            sizes = np.where(shorter, sizes / 2, sizes)
            trials = moved(points, sizes[..., None] * steps)
            reached = objective(trials)
            evaluations += shorter
        moves = moves & ~(reached > values)  # where it is, rounding is all that is left
        points = np.where(moves[..., None], trials, points)
        values = np.where(moves, reached, values)
    return Minima(points, values, directions, evaluations)
