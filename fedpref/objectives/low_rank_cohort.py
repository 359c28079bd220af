"""Steps of many linear heads in two factors at once: those of ``low_rank``, each client's own.

A client that has no more steps does not move, nor does a factor that the client's step leaves as it is.

Source: as ``fedpref.objectives.low_rank``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fedpref.objectives.blocks import Blocks, all_finite, stacks
from fedpref.objectives.convex_cohort import mean_losses
from fedpref.objectives.local import reported_loss
from fedpref.objectives.low_rank import Descent, Factors, Moves, Steps, followed
from fedpref.objectives.margin import bradley_terry_pull

__all__ = ["Member", "Trained", "trained"]


class Member(NamedTuple):
    """One client's steps.

    Attributes:
        factors: where they start.
        differences: z of each pair, shape (num_pairs, H); at least one pair.
        steps: as they were drawn.
        mu: pull of the representation to where it started.
    """

    factors: Factors
    differences: np.ndarray
    steps: Steps
    mu: float


class Trained(NamedTuple):
    """Where the steps have led, and the mean losses of all pairs before and after, as metrics."""

    descent: Descent
    losses: dict[str, float]


def trained(members: Sequence[Member], lr: float, l2: float) -> list[Trained]:
    """Take the steps of all members; where a gradient is not finite, as ``followed`` does.

    Args:
        members: in any order; their factors have one shape.
        lr: step size for both factors.
        l2: ridge penalty on the head.
    """
    found: list[Trained] = []
    most_steps = max((len(member.steps.moves) for member in members), default=0)
    differences = {i: member.differences for i, member in enumerate(members)}
    for stack in stacks(differences, most_steps):
        together = [members[i] for i in stack]
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found below
            (representations, heads), losses = _descended(Blocks.of(list(stack.values())), together, lr, l2)
        is_finite = all_finite(representations, heads, losses[:, 1])
        for i, (member, (before, after)) in enumerate(zip(together, losses.tolist(), strict=True)):
            if is_finite[i]:
                own = Factors(representations[i], heads[i])
                metrics = {"loss_before": before, "loss_after": after}
                found.append(Trained(Descent(own, 0, len(member.steps.pairs.rows)), metrics))
            else:  # some step is to be skipped
                found.append(_alone(member, lr, l2))
    return found


def _descended(blocks: Blocks, members: Sequence[Member], lr: float, l2: float) -> tuple[Factors, np.ndarray]:
    """Factors of shapes (N, H, k) and (N, k), and mean losses before and after, (N, 2)."""
    start = representation = np.stack([member.factors.representation for member in members])
    head = np.stack([member.factors.head for member in members])
    shares = blocks.shares([member.steps.pairs for member in members])
    of_representation, of_head = _rates(members, len(shares), lr)
    mu = np.array([member.mu for member in members])[:, None, None]
    first = vector = _product(representation, head)
    for number, weights in enumerate(shares):
        g = -blocks.combined(weights * bradley_terry_pull(blocks.products(vector[:, None])))
        by_head = (g @ representation)[:, 0] + l2 * head
        if of_representation[number].any():
            by_representation = g.swapaxes(1, 2) * head[:, None]
            if mu.any():
                by_representation = by_representation + mu * (representation - start)
            representation = representation - of_representation[number, :, None, None] * by_representation
        head = head - of_head[number, :, None] * by_head
        vector = _product(representation, head)
    return Factors(representation, head), mean_losses(blocks, np.stack([first, vector], axis=1))


def _rates(members: Sequence[Member], steps: int, lr: float) -> tuple[np.ndarray, np.ndarray]:
    """Step sizes of each factor, shape (steps, num_members): 0 where a step does not move it."""
    rates = np.zeros((2, steps, len(members)))
    for i, member in enumerate(members):
        rates[:, : len(member.steps.moves), i] = lr * _moving(member.steps.moves)
    return rates[0], rates[1]


@lru_cache(maxsize=64)
def _moving(moves: tuple[Moves, ...]) -> np.ndarray:
    """1 where a step moves the representation, and where it moves the head, shape (2, steps)."""
    return np.array([[move != frozen for move in moves] for frozen in ("head", "representation")], float)


def _product(representation: np.ndarray, head: np.ndarray) -> np.ndarray:
    """The linear heads ``B w``, shape (N, H)."""
    result: np.ndarray = (representation @ head[:, :, None])[:, :, 0]
    return result


def _alone(member: Member, lr: float, l2: float) -> Trained:
    descent = followed(member.factors, member.differences, member.steps.each(), lr, l2, member.mu)
    before, after = (member.differences @ factors.vector for factors in (member.factors, descent.factors))
    return Trained(descent, {**reported_loss("loss_before", before), **reported_loss("loss_after", after)})
