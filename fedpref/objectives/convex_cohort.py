"""The convex solves of many clients at once: ``laplace`` of each, under several priors.

Bradley-Terry with a Gaussian prior, by Newton's method; a client has K problems on the same pairs, one for
each component of a mixture. The systems are of the dimension, so this is for few dimensions.

Source: as ``fedpref.objectives.convex``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fedpref.objectives.blocks import Blocks, stacks
from fedpref.objectives.convex import convex_fit, laplace_flops
from fedpref.objectives.margin import bradley_terry_pull
from fedpref.objectives.newton import Directions, Minima, minima

__all__ = ["Posteriors", "convex_fits", "laplaces", "mean_losses", "pair_losses"]


_MOST_DIMENSIONS = 64
"""Of systems as large as the dimension; beyond, those of a client's own few pairs are smaller."""


class Posteriors(NamedTuple):
    """N clients' posteriors under K priors each, as ``Posterior`` has them.

    Attributes:
        weights: modes, shape (N, K, dim).
        covariances: shape (N, K, dim, dim).
        log_evidences: nats, shape (N, K).
        flops: operations that ``laplace`` counts for the same iterations, shape (N, K).
    """

    weights: np.ndarray
    covariances: np.ndarray
    log_evidences: np.ndarray
    flops: np.ndarray


class _Problems(NamedTuple):
    """Bradley-Terry under K Gaussian priors for each of N clients; arguments as of ``laplaces``."""

    differences: Blocks
    second_moments: Callable[[np.ndarray], np.ndarray]
    means: np.ndarray
    precisions: np.ndarray

    def minima(self) -> Minima:
        return minima(self.means, self.objective, self.direction)

    def objective(self, w: np.ndarray) -> np.ndarray:
        deviation = w - self.means
        losses = self.differences.sums(pair_losses(self.differences.products(w)))
        values: np.ndarray = losses + (deviation @ self.precisions * deviation).sum(axis=2) / 2
        return values

    def direction(self, w: np.ndarray) -> Directions:
        pull = bradley_terry_pull(self.differences.products(w))
        gradient = (w - self.means) @ self.precisions - self.differences.combined(pull)
        steps = -np.linalg.solve(self.hessian(pull), gradient[..., None])[..., 0]
        return Directions(steps, (gradient * steps).sum(axis=2))

    def hessian(self, pull: np.ndarray) -> np.ndarray:
        matrices: np.ndarray = self.precisions[:, None] + self.second_moments(pull * (1 - pull))
        return matrices


def laplaces(differences: Blocks, means: np.ndarray, precisions: np.ndarray) -> Posteriors:
    """The solutions of all problems, with covariances and evidences.

    Args:
        differences: z of N clients' pairs, finite.
        means: m, shape (N, K, dim).
        precisions: P, shape (N, dim, dim), positive definite; a client's priors share it.
    """
    problems = _Problems(differences, differences.second_moments(means.shape[1]), means, precisions)
    found = problems.minima()
    at_mode = problems.hessian(bradley_terry_pull(differences.products(found.points)))
    log_ratios = np.linalg.slogdet(precisions)[1][:, None] - np.linalg.slogdet(at_mode)[1]
    evidences = log_ratios / 2 - found.values
    dim, counts = means.shape[2], differences.counts.tolist()
    counted = zip(counts, found.directions.tolist(), found.evaluations.tolist(), strict=True)
    flops = [
        [laplace_flops(count, dim, False, *each) for each in zip(directions, evaluations, strict=True)]
        for count, directions, evaluations in counted
    ]
    return Posteriors(found.points, np.linalg.inv(at_mode), evidences, np.array(flops))


def convex_fits(
    differences: Sequence[np.ndarray], means: Sequence[np.ndarray], precision: float
) -> list[np.ndarray]:
    """The weights of each client, to rounding those of ``convex_fit``.

    Args:
        differences: z of each client, shape (num_pairs, dim).
        means: m of each client, shape (dim,).
        precision: P, a positive number.
    """
    fits: dict[int, np.ndarray] = {}
    finite = {i: z for i, z in enumerate(differences) if 0 < z.size and np.isfinite(z).all()}
    dim = len(means[0]) if means else 0
    for stack in stacks(finite, dim**2) if dim <= _MOST_DIMENSIONS else ():
        blocks, starts = Blocks.of(list(stack.values())), np.stack([means[i] for i in stack])
        precisions = np.broadcast_to(precision * np.eye(dim), (len(stack), dim, dim))
        problems = _Problems(blocks, blocks.second_moments(1), starts[:, None].astype(np.float64), precisions)
        fits.update(zip(stack, problems.minima().points[:, 0], strict=True))
    return [fits[i] if i in fits else convex_fit(z, means[i], precision) for i, z in enumerate(differences)]


def mean_losses(differences: Blocks, heads: np.ndarray) -> np.ndarray:
    """Mean loss of each client's pairs under K heads of its own, (N, K, dim): shape (N, K), in nats."""
    losses = differences.sums(pair_losses(differences.products(heads)))
    result: np.ndarray = losses / differences.counts[:, None]
    return result


def pair_losses(margins: np.ndarray) -> np.ndarray:
    """``log(1 + exp(-margin))``; ``np.logaddexp`` takes ten times as long."""
    result: np.ndarray = np.log1p(np.exp(-np.abs(margins))) + np.maximum(-margins, 0)
    return result
