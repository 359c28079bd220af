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
from fedpref.objectives.simplex import SimplexFit, moved, problem, simplex_fit, simplex_fit_flops

__all__ = ["simplex_fits"]


def simplex_fits(
    parts: Sequence[np.ndarray],
    priors: Sequence[np.ndarray],
    precision: float,
    offsets: Sequence[np.ndarray] | None = None,
) -> list[SimplexFit]:
    """The weights of each client, to rounding those of ``simplex_fit``.

    Args:
        parts: f of each client, shape (num_pairs, K).
        priors: of each client, shape (K,).
        precision: weight of the priors.
        offsets: o of each client, shape (num_pairs,); None is zero.
    """
    shifts = [np.zeros(len(own)) for own in parts] if offsets is None else offsets
    fits: dict[int, SimplexFit] = {}
    starts: dict[int, tuple[np.ndarray, float]] = {}
    for i, (own, prior, shift) in enumerate(zip(parts, priors, shifts, strict=True)):
        start, damping = problem(own, prior, precision)
        if damping is None or not np.isfinite(shift).all():
            fits[i] = simplex_fit(own, prior, precision, shift)
        else:
            starts[i] = start, damping
    for stack in stacks({i: parts[i] for i in starts}, parts[0].shape[1] ** 2 if parts else 0):
        first, dampings = (np.stack([starts[i][part] for i in stack]) for part in (0, 1))
        rows = Blocks.of(list(stack.values()))
        shift = Blocks.of([shifts[i][:, None] for i in stack]).rows.swapaxes(1, 2)
        found = _minima(rows, np.log(first), precision, dampings, shift)
        for place, i in enumerate(stack):
            counted = int(found.directions[place]), int(found.evaluations[place])
            num_pairs, count = parts[i].shape
            flops = simplex_fit_flops(num_pairs, count, *counted)
            fits[i] = SimplexFit(np.exp(found.points[place]), flops)
    return [fits[i] for i in range(len(parts))]


def _minima(
    rows: Blocks, log_prior: np.ndarray, precision: float, dampings: np.ndarray, shift: np.ndarray
) -> Minima:
    squares, ridge = rows.squares(), dampings[:, None, None] * np.eye(log_prior.shape[1])

    def objective(log_w: np.ndarray) -> np.ndarray:
        w = np.exp(log_w)
        loss = rows.sums(pair_losses(rows.products(w[:, None]) + shift))[:, 0]
        values: np.ndarray = loss + precision * (w * (log_w - log_prior)).sum(axis=1)
        return values

    def direction(log_w: np.ndarray) -> Directions:
        w = np.exp(log_w)
        root, pull = np.sqrt(w), bradley_terry_pull(rows.products(w[:, None]) + shift)
        gradient = precision * (log_w - log_prior) - rows.combined(pull)[:, 0]
        moments = rows.second_moments(pull * (1 - pull), squares)[:, 0]
        hessian = root[:, :, None] * moments * root[:, None] + ridge
        both = np.linalg.solve(hessian, np.stack([root * gradient, root], axis=2))
        free, normal = both[:, :, 0], both[:, :, 1]
        along = (root * free).sum(axis=1) / (root * normal).sum(axis=1)
        step = normal * along[:, None] - free  # so that the weights' sum stays
        return Directions(step / root, (root * gradient * step).sum(axis=1))

    return minima(log_prior, objective, direction, moved)
