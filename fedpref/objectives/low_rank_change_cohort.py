"""Steps of many linear heads with a low-rank change, ``w + s B a``: those of ``linear_lora``.

Source: as ``fedpref.clients.linear_lora``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedpref.objectives.batches import Drawn
from fedpref.objectives.blocks import Blocks
from fedpref.objectives.convex_cohort import mean_losses
from fedpref.objectives.margin import bradley_terry_pull

__all__ = ["Changed", "Member", "changed_together"]


class Member(NamedTuple):
    """One client's steps.

    Attributes:
        head: w that it received, shape (H,), float64.
        a: shape (r,).
        b: B, shape (H, r).
        differences: z of each pair, shape (num_pairs, H); at least one pair.
        drawn: the pairs of each step.
        mu: pull to what was received.
    """

    head: np.ndarray
    a: np.ndarray
    b: np.ndarray
    differences: np.ndarray
    drawn: Drawn
    mu: float


class Changed(NamedTuple):
    """Heads (N, H), a (N, r) and B (N, H, r) after the steps, and mean losses before and after, (N, 2)."""

    heads: np.ndarray
    a: np.ndarray
    b: np.ndarray
    losses: np.ndarray


def changed_together(
    members: Sequence[Member], scale: float, lr: float, moves: tuple[bool, bool, bool] = (True, True, True)
) -> Changed:
    """Take the steps of all members; where a gradient is not finite, what comes of it is not, either.

    Args:
        members: at least one; whoever has fewer steps than others does not move any more.
        scale: s.
        lr: step size.
        moves: whether the head is trained, a, and B.
    """
    z = Blocks.of([member.differences for member in members])
    start = head, a, b = (
        np.stack([member.head for member in members]),
        np.stack([member.a for member in members]),
        np.stack([member.b for member in members]),
    )
    mu = np.array([member.mu for member in members])
    lengths = np.array([member.drawn.num_steps for member in members])

    def vectors() -> np.ndarray:
        total: np.ndarray = head + scale * (b @ a[:, :, None])[:, :, 0]
        return total

    first = vector = vectors()
    for number, shares in enumerate(z.shares([member.drawn for member in members])):
        g = -z.combined(shares * bradley_terry_pull(z.products(vector[:, None])))
        gradients = g[:, 0], scale * (g @ b)[:, 0], scale * g.swapaxes(1, 2) * a[:, None]
        rates, now = lr * (number < lengths), (head, a, b)
        head, a, b = (
            value - _times(rates, gradient + _times(mu, value - before)) if moving else value
            for value, gradient, before, moving in zip(now, gradients, start, moves, strict=True)
        )
        vector = vectors()
    return Changed(head, a, b, mean_losses(z, np.stack([first, vector], axis=1)))


def _times(numbers: np.ndarray, arrays: np.ndarray) -> np.ndarray:
    """Arrays of members, shape (N, …), each times its member's number, (N,)."""
    result: np.ndarray = (numbers * arrays.T).T
    return result
