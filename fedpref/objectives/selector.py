"""The selector's objective, on the logits of both orders of a pair.

A selector reads a prompt and two responses in the slots A and B; its logit ``l(a, b) = logit_A - logit_B``
says how much it prefers A. Shown both orders, ``l(chosen, rejected)`` should be positive and
``l(rejected, chosen)`` negative. Half their difference is the score, free of any liking for a slot; half
their sum is that liking, the position bias. All functions take the two columns in this order.

Source: Wu et al. 2024, arXiv:2407.03038 (cross entropy over two choice tokens, both orders in training).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedpref.objectives.margin import bradley_terry_loss, bradley_terry_pull

if TYPE_CHECKING:
    import torch

__all__ = ["pulls", "right_margins", "scores", "slot_biases", "two_order_loss"]


def scores(both: np.ndarray) -> np.ndarray:
    """Score ``s = (l(a, b) - l(b, a)) / 2`` of each pair: antisymmetric, to the bit.

    Args:
        both: logits of both orders, shape (num_pairs, 2).
    """
    result: np.ndarray = (both[:, 0] - both[:, 1]) / 2
    return result


def slot_biases(both: np.ndarray) -> np.ndarray:
    """Position bias ``(l(a, b) + l(b, a)) / 2`` of each pair, in logits: above 0 where slot A is liked."""
    result: np.ndarray = (both[:, 0] + both[:, 1]) / 2
    return result


def right_margins(both: np.ndarray) -> np.ndarray:
    """Logit of the right choice minus the wrong one's, in every order of every pair, shape (2 num_pairs,).

    The two-way cross entropy is the Bradley-Terry loss of these margins.
    """
    return np.concatenate([both[:, 0], -both[:, 1]])


def two_order_loss(both: torch.Tensor, bias_penalty: float = 0.0) -> torch.Tensor:
    """Mean cross entropy over both orders, in nats, plus ``bias_penalty`` times the mean squared bias.

    Args:
        both: logits of both orders, shape (num_pairs, 2).
        bias_penalty: weight of the penalty; 0 leaves it out.
    """
    from torch import cat  # here, so that NumPy rules start without torch

    loss = bradley_terry_loss(cat([both[:, 0], -both[:, 1]]))
    if bias_penalty > 0:
        loss = loss + bias_penalty * ((both[:, 0] + both[:, 1]) / 2).square().mean()
    return loss


def pulls(
    score: np.ndarray, slot_bias: np.ndarray, bias_penalty: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives of each pair's share of ``two_order_loss`` by its score and by its position bias.

    Where the bias is 0, the second is 0 exactly: the two orders pull it in opposite ways.

    Args:
        score: of each pair, shape (num_pairs,).
        slot_bias: of each pair, same shape.
        bias_penalty: as in the loss.

    Returns:
        Two arrays of shape (num_pairs,).
    """
    first, second = bradley_terry_pull(np.array([score + slot_bias, score - slot_bias]))
    by_score, by_bias = (first + second) / -2, (second - first) / 2
    if bias_penalty > 0:
        by_bias = by_bias + 2 * bias_penalty * slot_bias
    return by_score, by_bias
