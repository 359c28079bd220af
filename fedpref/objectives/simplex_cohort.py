"""The mixture weights of many clients at once: ``simplex_fit`` of each.

Source: as ``fedpref.objectives.simplex``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedpref.objectives.blocks import Blocks, stacks
from fedpref.objectives.convex_cohort import pair_losses
from fedpref.objectives.margin import bradley_terry_pull
from fedpref.objectives.newton import Directions, Minima, minima
from fedpref.objectives.simplex import (
    SimplexFit,
    curvatures,
    dampings,
    moved,
    simplex_fit,
    simplex_fit_flops,
    start_of,
)

__all__ = ["simplex_fits"]


def simplex_fits(
    parts: Sequence[np.ndarray],
    priors: Sequence[np.ndarray],
    precision: float,
    offsets: Sequence[np.ndarray] | None = None,
) -> list[SimplexFit]:
    """The weights of each client, to rounding those of ``simplex_fit``.

    Args:
        parts: f of each client, shape (num_pairs, K); at least one pair.
        priors: of each client, shape (K,).
        precision: weight of the priors.
        offsets: o of each client, shape (num_pairs,); None is zero.
    """
    if not parts:
        return []
    shifts = [np.zeros(len(own)) for own in parts] if offsets is None else offsets
    firsts = np.cumsum([0, *map(len, parts)])[:-1]
    curvature = np.add.reduceat(curvatures(np.concatenate(parts)), firsts)
    is_finite = np.logical_and.reduceat(np.isfinite(np.concatenate(shifts)), firsts)
    starts, damping = start_of(np.stack(priors)), dampings(np.where(is_finite, curvature, np.nan), precision)
    fits: dict[int, SimplexFit] = {}
    solved = {i: parts[i] for i in np.flatnonzero(np.isfinite(damping)).tolist()}
    for stack in stacks(solved, parts[0].shape[1] ** 2):
        members, rows = list(stack), Blocks.of(list(stack.values()))
        shift = Blocks.of([shifts[i][:, None] for i in stack]).rows.swapaxes(1, 2)
        found = _minima(rows, np.log(starts[members]), precision, damping[members], shift)
        weights = np.exp(found.points)
        for place, i in enumerate(stack):
            counted = int(found.directions[place]), int(found.evaluations[place])
            fits[i] = SimplexFit(weights[place], simplex_fit_flops(*parts[i].shape, *counted))
    for i in range(len(parts)):
        if i not in fits:  # nothing to learn from
            fits[i] = simplex_fit(parts[i], priors[i], precision, shifts[i])
    return [fits[i] for i in range(len(parts))]


def _minima(
    rows: Blocks, log_prior: np.ndarray, precision: float, damping: np.ndarray, shift: np.ndarray
) -> Minima:
    second_moments, ridge = rows.second_moments(1), damping[:, None, None] * np.eye(log_prior.shape[1])

    def objective(log_w: np.ndarray) -> np.ndarray:
        w = np.exp(log_w)
        loss = rows.sums(pair_losses(rows.products(w[:, None]) + shift))[:, 0]
        values: np.ndarray = loss + precision * (w * (log_w - log_prior)).sum(axis=1)
        return values

    def direction(log_w: np.ndarray) -> Directions:
        w = np.exp(log_w)
        root, pull = np.sqrt(w), bradley_terry_pull(rows.products(w[:, None]) + shift)
        gradient = precision * (log_w - log_prior) - rows.combined(pull)[:, 0]
        moments = second_moments(pull * (1 - pull))[:, 0]
        hessian = root[:, :, None] * moments * root[:, None] + ridge
        both = np.linalg.solve(hessian, np.stack([root * gradient, root], axis=2))
        free, normal = both[:, :, 0], both[:, :, 1]
        along = (root * free).sum(axis=1) / (root * normal).sum(axis=1)
        step = normal * along[:, None] - free  # so that the weights' sum stays
        return Directions(step / root, (root * gradient * step).sum(axis=1))

    return minima(log_prior, objective, direction, moved)
