"""Gradient steps of many linear heads at once: the Bradley-Terry steps of a cohort in a few array operations.

Gradient steps move a head along the pairs of its own shard only, ``w = a w_0 + Z^T alpha``. Where a shard has
few pairs for its dimension steps are taken on ``a`` and ``alpha``, and the Gram matrix G = Z Z^T gives the
margins ``a Z w_0 + G alpha``: no step reads a feature. There, shards of similar size are padded to one. Where
it has many, the steps are taken on ``w``, and shards lie in blocks. A pair that is not in a batch has weight
0, and so has padding.

Source: the representer theorem, Kimeldorf and Wahba 1971; the steps are those of ``linear_reward``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedpref.objectives.batches import Drawn
from fedpref.objectives.blocks import Blocks, stacks
from fedpref.objectives.margin import bradley_terry_pull

__all__ = ["Course", "Member", "Trained", "cheapest", "trained"]

_LARGEST_STACK = 2**23
"""Numbers in one padded array: 32 MB of float32."""

_PADDING = 1.25
"""How much larger the largest shard of a stack may be than the smallest."""

_FLOPS_OF_A_CALL = 50_000.0
"""What a handful of NumPy calls on small arrays costs, as operations that could have been done instead."""


class Member(NamedTuple):
    """One client's steps.

    Attributes:
        differences: z of its pairs, shape (num_pairs, H), float64, or float32 beside a Gram matrix.
        gram: ``z z^T``, float32; None for a client whose steps are taken on the head.
        start: the head that it received, shape (H,), float64.
        drawn: the pairs of each step.
    """

    differences: np.ndarray
    gram: np.ndarray | None
    start: np.ndarray
    drawn: Drawn


class Trained(NamedTuple):
    """A head after its steps, shape (H,), float64, and the margins of its pairs then and before."""

    head: np.ndarray
    margins_before: np.ndarray
    margins_after: np.ndarray


class Course(NamedTuple):
    """Whether a client's steps are worth stacking, and whether they are taken by its Gram matrix."""

    stacked: bool
    by_gram: bool


def cheapest(num_pairs: int, dim: int, batch_pairs: int, steps: int) -> Course:
    """How to train a client with the fewest operations, the overhead of calls included.

    Args:
        num_pairs: of the shard.
        dim: H.
        batch_pairs: pairs of one step.
        steps: how many.
    """
    alone = steps * (4.0 * batch_pairs * dim + _FLOPS_OF_A_CALL)
    on_the_head = steps * 4.0 * num_pairs * dim
    by_gram = steps * 2.0 * num_pairs**2 + 4.0 * num_pairs * dim
    return Course(min(on_the_head, by_gram) < alone, by_gram < on_the_head)


def trained(members: Sequence[Member], lr: float, l2: float, mu: float) -> list[Trained]:
    """The heads after the members' steps ``w - lr (gradient + l2 w + mu (w - w_0))``, in order.

    Where a gradient is not finite the head is not, either: nothing is skipped here.

    Args:
        members: whoever has fewer steps than others does not move any more.
        lr: step size.
        l2: ridge penalty.
        mu: pull to the received head, FedProx's.
    """
    by_gram = [i for i, member in enumerate(members) if member.gram is not None]
    others = {i: member.differences for i, member in enumerate(members) if member.gram is None}
    most_steps = max((members[i].drawn.num_steps for i in others), default=0)
    results: dict[int, Trained] = {}
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found by the caller
        for stack in _similar(members, by_gram):
            after = _by_gram([members[i] for i in stack], lr, l2, mu)
            results.update(zip(stack, after, strict=True))
        for part in stacks(others, most_steps):
            after = _on_the_head(Blocks.of(list(part.values())), [members[i] for i in part], lr, l2, mu)
            results.update(zip(part, after, strict=True))
    return [results[i] for i in range(len(members))]


def _by_gram(members: Sequence[Member], lr: float, l2: float, mu: float) -> list[Trained]:
    """Steps on ``a`` and ``alpha``, float32."""
    shares = _shares(members)
    steps, count, width = shares.shape
    gram = np.zeros((count, width, width), np.float32)
    first = np.zeros((count, width), np.float32)
    for i, member in enumerate(members):
        num_pairs = len(member.differences)
        gram[i, :num_pairs, :num_pairs] = member.gram
        first[i, :num_pairs] = member.differences @ member.start.astype(np.float32)
    shares *= np.float32(lr)
    kept = np.ones((count, 1))  # a, of the received head, float64: its rounding would add up over the steps
    alpha, margins = np.zeros_like(first), first.copy()
    shrinkage = np.float32(lr * (l2 + mu))  # 1 - this would round away most of a small one
    for step in range(steps):
        moves = shares[step] * bradley_terry_pull(margins)
        if l2 > 0 or mu > 0:
            works = shares[step].any(axis=1, keepdims=True)
            moves = moves - works * shrinkage * alpha
            kept = kept + works * lr * (mu * (1 - kept) - l2 * kept)
        alpha += moves
        margins = np.matmul(gram, alpha[:, :, None])[:, :, 0]
        margins += kept.astype(np.float32) * first
    found = []
    for i, member in enumerate(members):
        rows = slice(len(member.differences))
        head = float(kept[i, 0]) * member.start + alpha[i, rows] @ member.differences
        found.append(Trained(head, first[i, rows], margins[i, rows]))
    return found


def _on_the_head(blocks: Blocks, members: Sequence[Member], lr: float, l2: float, mu: float) -> list[Trained]:
    """Steps on ``w``, float64."""
    heads = start = np.stack([member.start for member in members])[:, None]
    lengths = np.array([member.drawn.num_steps for member in members])[:, None, None]
    first = margins = blocks.products(heads)
    for number, shares in enumerate(blocks.shares([member.drawn for member in members])):
        ascent = blocks.combined(shares * bradley_terry_pull(margins))
        if l2 > 0 or mu > 0:
            ascent = ascent - (number < lengths) * (l2 * heads + mu * (heads - start))
        heads = heads + lr * ascent
        margins = blocks.products(heads)
    return list(map(Trained, heads[:, 0], blocks.split(first), blocks.split(margins)))


def _shares(members: Sequence[Member]) -> np.ndarray:
    """Weight of each pair in each step's mean, shape (steps, num_members, most pairs), float32."""
    steps = max(member.drawn.num_steps for member in members)
    width = max(len(member.differences) for member in members)
    shares = np.zeros((steps, len(members), width), np.float32)
    for i, member in enumerate(members):
        shares[member.drawn.steps, i, member.drawn.rows] = member.drawn.shares
    return shares


def _similar(members: Sequence[Member], positions: Sequence[int]) -> list[list[int]]:
    """The positions in stacks: of members of similar size, and not too many at a time."""
    found: list[list[int]] = []
    for i in sorted(positions, key=lambda i: len(members[i].differences)):
        size = len(members[i].differences)
        if found:
            stack = [*found[-1], i]
            steps = max(members[each].drawn.num_steps for each in stack)
            smallest = len(members[stack[0]].differences)
            if size <= _PADDING * smallest and len(stack) * size * max(size, steps) <= _LARGEST_STACK:
                found[-1] = stack
                continue
        found.append([i])
    return found
