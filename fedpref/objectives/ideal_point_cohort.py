"""Steps of many clients of ``pal`` at once: each client's own, on the map and the prototypes.

Source: as ``fedpref.clients.pal``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedpref.objectives.batches import Drawn
from fedpref.objectives.blocks import Blocks
from fedpref.objectives.convex_cohort import pair_losses
from fedpref.objectives.margin import bradley_terry_pull

__all__ = ["IdealPoints", "Member", "moved_together"]


class Member(NamedTuple):
    """One client's steps.

    Attributes:
        place: the map M that it received, shape (D, H), float64.
        prototypes: shape (K, D), float64.
        mixture: its weights of the prototypes, shape (K,).
        differences: z of each pair, shape (num_pairs, H); at least one pair.
        sums: s of each pair, same shape.
        drawn: the pairs of each step.
        mu: pull to what was received.
    """

    place: np.ndarray
    prototypes: np.ndarray
    mixture: np.ndarray
    differences: np.ndarray
    sums: np.ndarray
    drawn: Drawn
    mu: float


class IdealPoints(NamedTuple):
    """Maps (N, D, H) and prototypes (N, K, D) after the steps, and mean losses before and after, (N,)."""

    places: np.ndarray
    prototypes: np.ndarray
    losses_before: np.ndarray
    losses_after: np.ndarray


def moved_together(members: Sequence[Member], lr: float) -> IdealPoints:
    """Take the steps of all members; where a gradient is not finite, what comes of it is not, either.

    Args:
        members: at least one; whoever has fewer steps than others does not move any more.
        lr: step size.
    """
    z = Blocks.of([member.differences for member in members])
    s = Blocks.of([member.sums for member in members])
    first_places = places = np.stack([member.place for member in members])
    first_prototypes = prototypes = np.stack([member.prototypes for member in members])
    mixtures = np.stack([member.mixture for member in members])[:, None]
    mu = np.array([member.mu for member in members])[:, None, None]
    lengths = np.array([member.drawn.num_steps for member in members])

    def latent() -> tuple[np.ndarray, np.ndarray]:
        """``M z``, and from ``M s`` to twice the ideal point, shapes (num_blocks, D, 32)."""
        points = (mixtures @ prototypes).swapaxes(1, 2)
        return z.products(places), 2 * points[z.owners] - s.products(places)

    def losses() -> np.ndarray:
        moved, away = latent()
        totals = z.sums(pair_losses((away * moved).sum(axis=1, keepdims=True)))[:, 0]
        means: np.ndarray = totals / z.counts
        return means

    before = losses()
    for number, shares in enumerate(z.shares([member.drawn for member in members])):
        moved, away = latent()
        pull = shares * bradley_terry_pull((away * moved).sum(axis=1, keepdims=True))
        by_place = s.combined(pull * moved) - z.combined(pull * away)
        by_point = np.add.reduceat(-2 * (pull * moved).sum(axis=2), z.starts, axis=0)
        by_prototypes = mixtures.swapaxes(1, 2) * by_point[:, None]
        if mu.any():
            by_place = by_place + mu * (places - first_places)
            by_prototypes = by_prototypes + mu * (prototypes - first_prototypes)
        rates = lr * (number < lengths)[:, None, None]
        places, prototypes = places - rates * by_place, prototypes - rates * by_prototypes
    return IdealPoints(places, prototypes, before, losses())
