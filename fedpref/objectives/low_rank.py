"""A linear head in two factors, margin ``z . B w``: Bradley-Terry steps on either factor or on both.

With v = B w the gradient for v is that of a linear head, ``g = -mean pull(z.v) z``, and the chain rule gives
the rest: ``B^T g`` for the head w, ``g w^T`` for the representation B.

Source: Collins et al. 2021, "Exploiting Shared Representations for Personalized Federated Learning"
(FedRep), arXiv:2102.07078, equations 2 and 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from fedpref.objectives import batches
from fedpref.objectives.batches import Drawn
from fedpref.objectives.local import num_steps
from fedpref.objectives.margin import bradley_terry_pull
from fedpref.types import Settings

__all__ = [
    "Descent",
    "Factors",
    "Phase",
    "Step",
    "Steps",
    "all_drawn",
    "descended",
    "descent_flops",
    "drawn",
    "factor_gradients",
    "followed",
    "phases_within",
]


class Factors(NamedTuple):
    """A representation B, shape (H, k), and a head w, shape (k,), float64."""

    representation: np.ndarray
    head: np.ndarray

    @property
    def vector(self) -> np.ndarray:
        """The linear head ``B w``, shape (H,)."""
        product: np.ndarray = self.representation @ self.head
        return product


Moves: TypeAlias = Literal["head", "representation", "both"]


class Phase(NamedTuple):
    """Gradient steps that move one factor with the other frozen, or both from the same point."""

    steps: int
    moves: Moves


class Step(NamedTuple):
    """One of them, and the rows of its pairs."""

    rows: np.ndarray
    moves: Moves


class Steps(NamedTuple):
    """All steps of a task: the pairs of each, and what each moves."""

    pairs: Drawn
    moves: tuple[Moves, ...]

    def each(self) -> Iterator[Step]:
        """One after the other."""
        return map(Step, self.pairs.batches(), self.moves)


class Descent(NamedTuple):
    """Where the steps have led, how many were skipped, and the pairs that all batches held together."""

    factors: Factors
    skipped: int
    seen_pairs: int


def phases_within(settings: Settings, phases: Sequence[Phase]) -> list[Phase]:
    """The phases, cut after the ``local_steps`` of the settings; the last one takes what these have more."""
    left = num_steps(settings, sum(phase.steps for phase in phases))
    kept = []
    for phase in phases[:-1]:
        kept.append(Phase(min(phase.steps, left), phase.moves))
        left -= kept[-1].steps
    return [*kept, Phase(left, phases[-1].moves)]


def factor_gradients(factors: Factors, differences: np.ndarray) -> Factors:
    """Gradients of the mean Bradley-Terry loss for both factors, at one point.

    Args:
        factors: the point.
        differences: z of each pair, shape (num_pairs, H); at least one pair.
    """
    g = -(bradley_terry_pull(differences @ factors.vector) @ differences) / len(differences)
    return Factors(np.outer(g, factors.head), factors.representation.T @ g)


def descended(
    factors: Factors,
    differences: np.ndarray,
    phases: Sequence[Phase],
    batch_pairs: int | None,
    lr: float,
    l2: float,
    mu: float,
    rng: np.random.Generator,
) -> Descent:
    """Take the steps of all phases, one after the other; a step whose gradient is not finite is skipped.

    Args:
        factors: where they start; not changed.
        differences: z of each pair of the shard, shape (num_pairs, H); at least one pair.
        phases: which steps.
        batch_pairs: pairs a step; None is the whole shard.
        lr: step size for both factors.
        l2: ridge penalty ``l2/2 |w|^2`` on the head.
        mu: pull of the representation to where it started, FedProx's.
        rng: the draws of the batches.
    """
    steps = drawn(len(differences), phases, batch_pairs, rng)
    return followed(factors, differences, steps, lr, l2, mu)


def drawn(
    num_pairs: int, phases: Sequence[Phase], batch_pairs: int | None, rng: np.random.Generator
) -> Iterator[Step]:
    """The steps of all phases; arguments as in ``descended``."""
    for phase in phases:
        for rows in batches.batches(num_pairs, batch_pairs, phase.steps, rng):
            yield Step(rows, phase.moves)


def all_drawn(
    num_pairs: int, phases: Sequence[Phase], batch_pairs: int | None, rng: np.random.Generator
) -> Steps:
    """What ``drawn`` yields, from the same draws, as arrays."""
    busy = [phase for phase in phases if phase.steps] or phases[-1:]
    parts = [batches.drawn(num_pairs, batch_pairs, phase.steps, rng) for phase in busy]
    moves = _moves(tuple(busy))
    if len(parts) == 1:
        return Steps(parts[0], moves)
    rows, shares = (np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "shares"))
    ends = np.cumsum([part.num_steps for part in parts])
    steps = np.concatenate([part.steps + end - part.num_steps for part, end in zip(parts, ends, strict=True)])
    return Steps(Drawn(rows, steps, shares, int(ends[-1])), moves)


@lru_cache(maxsize=256)
def _moves(phases: tuple[Phase, ...]) -> tuple[Moves, ...]:
    return tuple(phase.moves for phase in phases for _ in range(phase.steps))


def followed(
    factors: Factors, differences: np.ndarray, steps: Iterable[Step], lr: float, l2: float, mu: float
) -> Descent:
    """As ``descended``, with steps that are drawn already."""
    start, skipped, seen_pairs = factors.representation, 0, 0
    for rows, moves in steps:
        seen_pairs += len(rows)
        gradients = factor_gradients(factors, differences[rows])
        if not all(np.isfinite(gradient).all() for gradient in gradients):
            skipped += 1
            continue
        representation, head = factors
        if moves != "head":
            pull = mu * (representation - start) if mu > 0 else 0.0
            representation = representation - lr * (gradients.representation + pull)
        if moves != "representation":
            head = head - lr * (gradients.head + l2 * head)
        factors = Factors(representation, head)
    return Descent(factors, skipped, seen_pairs)


def descent_flops(dim: int, rank: int, seen_pairs: int, num_pairs: int, steps: int) -> float:
    """Operations of ``descended`` and of the losses before and after, two an entry.

    A pair of a batch takes two products of length ``dim``, one of the shard two for its losses; a step takes
    B w, B^T g and g w^T, the losses B w twice.
    """
    return 4.0 * dim * (seen_pairs + num_pairs) + dim * rank * (6.0 * steps + 4.0)
