"""The convex solves of many clients at once: ``laplace`` of each, under several priors.

Bradley-Terry with a Gaussian prior, by Newton's method; a client has K problems on the same pairs, one for
each component of a mixture. The systems are of the dimension, so this is for few dimensions.

Source: as ``fedpref.objectives.convex``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fedpref.objectives.blocks import Blocks
from fedpref.objectives.convex import laplace_flops
from fedpref.objectives.margin import bradley_terry_pull
from fedpref.objectives.newton import Directions, minima

__all__ = ["Posteriors", "laplaces", "mean_losses", "pair_losses"]


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


def laplaces(differences: Blocks, means: np.ndarray, precisions: np.ndarray) -> Posteriors:
    """The solutions of all problems, with covariances and evidences.

    Args:
        differences: z of N clients' pairs, finite.
        means: m, shape (N, K, dim).
        precisions: P, shape (N, dim, dim), positive definite; a client's priors share it.
    """
    squares = differences.squares()

    def objective(w: np.ndarray) -> np.ndarray:
        deviation = w - means
        losses = differences.sums(pair_losses(differences.products(w)))
        values: np.ndarray = losses + (deviation @ precisions * deviation).sum(axis=2) / 2
        return values

    def hessian(pull: np.ndarray) -> np.ndarray:
        matrices: np.ndarray = precisions[:, None] + differences.second_moments(pull * (1 - pull), squares)
        return matrices

    def direction(w: np.ndarray) -> Directions:
        pull = bradley_terry_pull(differences.products(w))
        gradient = (w - means) @ precisions - differences.combined(pull)
        steps = -np.linalg.solve(hessian(pull), gradient[..., None])[..., 0]
        return Directions(steps, (gradient * steps).sum(axis=2))

    found = minima(means, objective, direction)
    at_mode = hessian(bradley_terry_pull(differences.products(found.points)))
    log_ratios = np.linalg.slogdet(precisions)[1][:, None] - np.linalg.slogdet(at_mode)[1]
    evidences = log_ratios / 2 - found.values
    dim = means.shape[2]
    flops = [
        [laplace_flops(count, dim, False, *counted) for counted in zip(directions, evaluations, strict=True)]
        for count, directions, evaluations in zip(
            differences.counts.tolist(), found.directions.tolist(), found.evaluations.tolist(), strict=True
        )
    ]
    return Posteriors(found.points, np.linalg.inv(at_mode), evidences, np.array(flops))


def mean_losses(differences: Blocks, heads: np.ndarray) -> np.ndarray:
    """Mean loss of each client's pairs under K heads of its own, (N, K, dim): shape (N, K), in nats."""
    losses = differences.sums(pair_losses(differences.products(heads)))
    result: np.ndarray = losses / differences.counts[:, None]
    return result


def pair_losses(margins: np.ndarray) -> np.ndarray:
    """``log(1 + exp(-margin))``; ``np.logaddexp`` takes ten times as long."""
    result: np.ndarray = np.log1p(np.exp(-np.abs(margins))) + np.maximum(-margins, 0)
    return result
