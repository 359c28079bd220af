"""The Bradley-Terry objective on margins: loss, pull, and TRL's mean-zero regulariser.

Every pairwise loss is a function of the margin ``delta = r(chosen) - r(rejected)`` alone, and is fixed by
its pull, the negative derivative: how hard one pair pulls its margin up.

Source: Bradley and Terry 1952; Christiano et al. 2017, arXiv:1706.03741, equation 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["bradley_terry_loss", "bradley_terry_pull", "centre_penalty", "mean_loss"]


def bradley_terry_loss(margins: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood of the preferences, in nats: ``mean log(1 + exp(-delta))``.

    Args:
        margins: shape (num_pairs,).

    Returns:
        A scalar; log 2 where all margins are 0.
    """
    from torch.nn.functional import softplus  # here, so that NumPy rules start without torch

    return softplus(-margins).mean()


def bradley_terry_pull(margins: np.ndarray) -> np.ndarray:
    """The pull ``sigma(-delta)`` of each pair: minus the derivative of its loss.

    Args:
        margins: shape (num_pairs,), any float type, which is kept.

    Returns:
        Values in [0, 1], same shape; never overflows.
    """
    tail = np.exp(-np.abs(margins))
    result: np.ndarray = np.where(margins > 0, tail, 1) / (1 + tail)
    return result


def mean_loss(margins: np.ndarray) -> float:
    """``bradley_terry_loss`` for NumPy margins, in float64.

    Args:
        margins: shape (num_pairs,), at least one pair.
    """
    return float(np.logaddexp(0.0, -np.asarray(margins, dtype=np.float64)).mean())


def centre_penalty(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """Mean squared sum of the two rewards of a pair: pulls rewards towards mean zero.

    The margin leaves a shift of all rewards free; this term fixes it. TRL adds it with weight 0.01.

    Args:
        chosen: rewards of the chosen responses, shape (num_pairs,).
        rejected: rewards of the rejected responses, same shape.

    Source: Eisenstein et al. 2023, arXiv:2312.09244, section 3 (as in TRL's ``center_rewards_coefficient``).
    """
    return ((chosen + rejected) ** 2).mean()
