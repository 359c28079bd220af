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
from fedpref.objectives.margin import bradley_terry_pull
from fedpref.types import Weights

__all__ = ["HEAD", "LORA_A", "LORA_B", "Member", "descend", "layer_margins", "write_gradients"]

LORA_A, LORA_B, HEAD = "layer.lora_A.weight", "layer.lora_B.weight", "score.weight"


class Member(NamedTuple):
    """One client's steps.

    Attributes:
        rows: x and ``W x`` side by side, chosen above rejected, shape (2 num_pairs, H + outputs), float32.
        batches: row numbers of each step's pairs.
    """

    rows: np.ndarray
    batches: Sequence[np.ndarray]


def layer_margins(weights: Weights, rows: np.ndarray, scale: float) -> np.ndarray:
    """Margins of pairs, shape (…, num_pairs).

    Args:
        weights: A (…, r, H), B (…, outputs, r) and the head (…, 1, outputs).
        rows: as in ``Member``, shape (…, 2 num_pairs, H + outputs).
        scale: s.
    """
    hidden, _ = _hidden(weights, rows, scale)
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
    hidden, low = _hidden(weights, rows, scale)
    pull = shares * bradley_terry_pull(_margins(weights, hidden))
    by_reward = np.concatenate([-pull, pull], axis=-1)[..., None]  # (…, 2 num_pairs, 1)
    np.matmul(by_reward.mT, hidden, out=gradients[HEAD])
    slope = 1 - hidden * hidden
    slope *= weights[HEAD]
    slope *= np.float32(scale) * by_reward
    np.matmul(slope.mT, low, out=gradients[LORA_B])
    if LORA_A in gradients:
        features = rows[..., : weights[LORA_A].shape[-1]]
        np.matmul(np.matmul(slope, weights[LORA_B]).mT, features, out=gradients[LORA_A])


def descend(
    stack: Stacked, members: Sequence[Member], scale: float, lr: float, mu: float, freeze_a: bool
) -> None:
    """Take the members' steps, of whom each has a row of ``stack``.

    Args:
        stack: with the received weights; changed.
        members: those with more steps come first. Smaller shards and batches are padded.
        scale: s.
        lr: step size.
        mu: weight of the proximal term.
        freeze_a: leave A as it is.
    """
    all_rows = np.concatenate([member.rows for member in members]) if len(members) > 1 else members[0].rows
    places, shares = _courses(members)
    trained = {key: array for key, array in stack.gradients.items() if not (freeze_a and key == LORA_A)}
    room = np.empty((*places.shape[1:], all_rows.shape[1]), np.float32)
    num_steps = np.array([len(member.batches) for member in members])
    for step in range(len(places)):
        working = int((num_steps > step).sum())
        rows = room[:working]
        # Wrapping round is never needed; checking each place for it would cost a copy.
        all_rows.take(places[step, :working], axis=0, out=rows, mode="wrap")
        weights = {key: array[:working] for key, array in stack.weights.items()}
        gradients = {key: array[:working] for key, array in trained.items()}
        write_gradients(gradients, weights, rows, shares[step, :working], scale)
        stack.step(working, lr, mu)


def _hidden(weights: Weights, rows: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of the layer, (…, rows, outputs), and those of A, (…, rows, r)."""
    num_features = weights[LORA_A].shape[-1]
    low = rows[..., :num_features] @ weights[LORA_A].mT
    hidden = low @ weights[LORA_B].mT
    hidden *= np.float32(scale)
    hidden += rows[..., num_features:]
    return np.tanh(hidden, out=hidden), low


def _margins(weights: Weights, hidden: np.ndarray) -> np.ndarray:
    rewards = (hidden @ weights[HEAD].mT)[..., 0]
    num_pairs = rewards.shape[-1] // 2
    margins: np.ndarray = rewards[..., :num_pairs] - rewards[..., num_pairs:]
    return margins


def _courses(members: Sequence[Member]) -> tuple[np.ndarray, np.ndarray]:
    """Each step's pairs: places in all members' rows, (steps, N, 2 width); shares, (steps, N, width)."""
    lengths = [np.array([len(batch) for batch in member.batches], dtype=int) for member in members]
    steps, width = len(lengths[0]), max(own.max(initial=0) for own in lengths)
    pairs = np.zeros((steps, len(members), width), dtype=np.intp)
    shares = np.zeros((steps, len(members), width), dtype=np.float32)
    for i, (member, own) in enumerate(zip(members, lengths, strict=True)):
        if member.batches:
            is_pair = np.arange(width) < own[:, None]
            pairs[: len(own), i][is_pair] = np.concatenate(member.batches)
            shares[: len(own), i] = is_pair / own[:, None]
    sizes = np.array([len(member.rows) for member in members])
    chosen = pairs + (np.cumsum(sizes) - sizes)[:, None]
    return np.concatenate([chosen, chosen + sizes[:, None] // 2], axis=2), shares
