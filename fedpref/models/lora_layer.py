"""A reward ``w . tanh((W + s B A) x)`` on frozen features x: LoRA on one frozen layer, in closed form.

W is frozen, so ``W x`` is computed once and kept beside x; a step costs products with A, B and the head,
those of many clients as stacked matrix products. A pair's margin is the difference of two rewards, and the
loss of a batch is the Bradley-Terry loss.

Source: Hu et al. 2021, arXiv:2106.09685 (LoRA); the layer is the pooler of Devlin et al. 2018,
arXiv:1810.04805 (BERT), without its bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedpref.models.stacked import Stacked
from fedpref.objectives.batches import Drawn
from fedpref.objectives.margin import bradley_terry_pull
from fedpref.types import Weights

__all__ = ["HEAD", "LORA_A", "LORA_B", "Member", "Trained", "layer_margins", "trained", "write_gradients"]

LORA_A, LORA_B, HEAD = "layer.lora_A.weight", "layer.lora_B.weight", "score.weight"

_DESCENT = np.array([-1, 1], np.float32)
"""A pull raises the chosen reward and lowers the other; a gradient says the opposite."""


class Member(NamedTuple):
    """One client's task.

    Attributes:
        weights: received: A (r, H), B (outputs, r) and the head (1, outputs).
        rows: x and ``W x`` side by side of the chosen and the rejected response of each pair, shape
            (num_pairs, 2, H + outputs), float32.
        drawn: the pairs of each step.
    """

    weights: Weights
    rows: np.ndarray
    drawn: Drawn


class Trained(NamedTuple):
    """Weights after the steps, and how many of these were left out: their gradient was not finite."""

    weights: Weights
    skipped: int


def layer_margins(weights: Weights, rows: np.ndarray, scale: float) -> np.ndarray:
    """Margins of pairs, shape (…, num_pairs).

    Args:
        weights: A (…, r, H), B (…, outputs, r) and the head (…, 1, outputs).
        rows: as in ``Member``, shape (…, num_pairs, 2, H + outputs).
        scale: s.
    """
    _, hidden = _forward(weights, _by_response(rows), scale)
    return _margins(weights, hidden)


def write_gradients(
    gradients: Weights, weights: Weights, rows: np.ndarray, shares: np.ndarray, scale: float
) -> None:
    """Write the gradients of the loss ``sum_j share_j log(1 + exp(-margin_j))``.

    Args:
        gradients: where to; keys and shapes are those of ``weights``, but without A, A is frozen.
        weights: as in ``layer_margins``, and so are the rows.
        rows: likewise.
        shares: of each pair, shape (…, num_pairs); 0 where a pair is padding.
        scale: s.
    """
    rows = _by_response(rows)
    low, hidden = _forward(weights, rows, scale)
    pull = shares * bradley_terry_pull(_margins(weights, hidden))
    by_reward = (pull[..., None] * _DESCENT).reshape(*rows.shape[:-1], 1)
    np.matmul(by_reward.mT, hidden, out=gradients[HEAD])
    by_sum = np.square(hidden, out=hidden)
    np.subtract(1, by_sum, out=by_sum)  # the slope of tanh
    by_sum *= by_reward * weights[HEAD]
    np.matmul(by_sum.mT, low, out=gradients[LORA_B])
    if LORA_A in gradients:
        by_low = by_sum @ weights[LORA_B]
        by_low *= np.float32(scale)
        np.matmul(by_low.mT, rows[..., : weights[LORA_A].shape[-1]], out=gradients[LORA_A])


def trained(members: Sequence[Member], scale: float, lr: float, mu: float, freeze_a: bool) -> list[Trained]:
    """The members after their steps of AdamW, in order.

    A step whose gradient is not finite is left out. Looking for one costs time, so only a member alone does:
    of several, whoever ends with weights that are not finite takes the steps again, alone.

    Args:
        members: those with more steps come first. Smaller batches are padded.
        scale: s.
        lr: step size.
        mu: weight of the proximal term.
        freeze_a: leave A as it is.
    """
    received = [dict(member.weights) for member in members]
    frozen = {LORA_A: np.stack([own.pop(LORA_A) for own in received])} if freeze_a else {}
    stack = Stacked(received)
    skipped = _descend(stack, frozen, members, scale, lr, mu)
    is_right = np.isfinite(stack.flat).all(axis=1) | (len(members) == 1)
    found: list[Trained] = []
    for place, member in enumerate(members):
        if is_right[place]:
            found.append(Trained({**member.weights, **stack.of(place)}, skipped))
        else:
            found += trained([member], scale, lr, mu, freeze_a)
    return found


def _descend(
    stack: Stacked, frozen: Weights, members: Sequence[Member], scale: float, lr: float, mu: float
) -> int:
    """Take the steps; of a member alone, count those that are left out."""
    pairs, shares = _courses(members)
    room = np.empty((len(members), pairs.shape[2], *members[0].rows.shape[1:]), np.float32)
    skipped = 0
    for step in range(pairs.shape[1]):
        working = sum(member.drawn.num_steps > step for member in members)
        for member, own, batch in zip(members[:working], pairs[:working, step], room[:working], strict=True):
            member.rows.take(own, axis=0, out=batch, mode="clip")  # nothing to clip; a check would be a copy
        weights = {key: array[:working] for key, array in (*frozen.items(), *stack.weights.items())}
        gradients = {key: array[:working] for key, array in stack.gradients.items()}
        write_gradients(gradients, weights, room[:working], shares[:working, step], scale)
        if len(members) == 1 and not np.isfinite(stack.flat_gradients).all():
            skipped += 1
        else:
            stack.step(working, lr, mu)
    return skipped


def _courses(members: Sequence[Member]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each step's pairs, and their shares, both (N, steps, width).

    Padding repeats the first pair of its step, with no share: what is not finite elsewhere does no harm.
    """
    steps = max(member.drawn.num_steps for member in members)
    sizes = np.stack([np.bincount(member.drawn.steps, minlength=steps) for member in members])
    is_pair = np.arange(sizes.max(initial=0)) < sizes[..., None]
    pairs, shares = np.zeros(is_pair.shape, np.intp), np.zeros(is_pair.shape, np.float32)
    pairs[is_pair] = np.concatenate([member.drawn.rows for member in members])
    shares[is_pair] = np.concatenate([member.drawn.shares for member in members])
    return np.where(is_pair, pairs, pairs[..., :1]), shares


def _by_response(rows: np.ndarray) -> np.ndarray:
    """Rows of pairs as rows of responses, (…, 2 num_pairs, H + outputs)."""
    return rows.reshape(*rows.shape[:-3], -1, rows.shape[-1])


def _forward(weights: Weights, rows: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """``s A x``, (…, rows, r), and ``tanh(W x + s B A x)``, (…, rows, outputs)."""
    num_features = weights[LORA_A].shape[-1]
    low = rows[..., :num_features] @ weights[LORA_A].mT
    low *= np.float32(scale)
    hidden = low @ weights[LORA_B].mT
    hidden += rows[..., num_features:]
    return low, np.tanh(hidden, out=hidden)


def _margins(weights: Weights, hidden: np.ndarray) -> np.ndarray:
    rewards = (hidden @ weights[HEAD].mT)[..., 0]
    margins: np.ndarray = rewards[..., ::2] - rewards[..., 1::2]
    return margins
