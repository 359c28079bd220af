"""How an annotator judges a pair: margins, probabilities, labels and what corrupts them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fedpref.data.synthetic.annotators import Annotator
from fedpref.data.synthetic.candidates import Candidates

__all__ = ["Judgement", "judge", "margins"]


@dataclass(frozen=True, eq=False)
class Judgement:
    """The hidden side of judged pairs, row by row.

    Attributes:
        takes_first: True if slot one was chosen.
        p_chosen: P(chosen is preferred), free of all label noise.
        is_flipped: True if the label was turned round, by chance or as an outlier.
        psi_chosen: attributes of the chosen responses, shape (num_pairs, num_attributes).
        psi_rejected: attributes of the rejected responses.
    """

    takes_first: np.ndarray
    p_chosen: np.ndarray
    is_flipped: np.ndarray
    psi_chosen: np.ndarray
    psi_rejected: np.ndarray


def margins(
    annotator: Annotator,
    candidates: Candidates,
    times: np.ndarray,
    cyclic_share: float,
    delta_covariance: np.ndarray,
) -> np.ndarray:
    """Margin of slot one over slot two, unit variance, shape (num_pairs,).

    sqrt(1 - eta) theta(t)·(psi_a - psi_b) + sqrt(eta) psi_a' J psi_b / sd, J skew with 2x2 blocks.
    """
    difference = candidates.psi_first - candidates.psi_second
    reward: np.ndarray = np.einsum("nd,nd->n", difference, annotator.theta_at(times))
    if cyclic_share == 0.0:
        return reward
    skew = _skew(len(annotator.theta))
    # Independent responses have covariance C_Delta / 2 each, so the form has variance tr(J S J' S).
    spread = delta_covariance / 2.0
    scale = math.sqrt(np.trace(skew @ spread @ skew.T @ spread))
    cycle: np.ndarray = np.einsum("nd,de,ne->n", candidates.psi_first, skew, candidates.psi_second) / scale
    return math.sqrt(1.0 - cyclic_share) * reward + math.sqrt(cyclic_share) * cycle


def judge(
    annotator: Annotator,
    candidates: Candidates,
    margin: np.ndarray,
    is_clean: bool,
    top_flips: float,
    rng: np.random.Generator,
) -> Judgement:
    """Draw a label for every pair.

    With noise, P(a over b) = eps + (1 - 2 eps) sigmoid(beta margin + bias), and then the share
    ``top_flips`` of the pairs with the largest |margin| is turned round.

    Args:
        annotator: who judges.
        candidates: what is judged.
        margin: margin of slot one, shape (num_pairs,).
        is_clean: True for held-out pairs: no flips, no outliers, no position bias.
        top_flips: share of outliers, in [0, 1].
        rng: the draws of these labels.
    """
    num_pairs = len(candidates)
    choice_draw, flip_draw = rng.random((2, num_pairs))
    bias = 0.0 if is_clean else annotator.position_bias
    is_flipped = np.zeros(num_pairs, dtype=bool)
    if not is_clean:
        is_flipped = flip_draw < annotator.flip_rate
        outliers = np.argsort(-np.abs(margin), kind="stable")[: round(top_flips * num_pairs)]
        is_flipped[outliers] ^= True
    takes_first = (choice_draw < _sigmoid(annotator.beta * margin + bias)) ^ is_flipped
    sign = np.where(takes_first, 1.0, -1.0)
    pick = takes_first[:, None]
    return Judgement(
        takes_first=takes_first,
        p_chosen=_sigmoid(annotator.beta * sign * margin),
        is_flipped=is_flipped,
        psi_chosen=np.where(pick, candidates.psi_first, candidates.psi_second),
        psi_rejected=np.where(pick, candidates.psi_second, candidates.psi_first),
    )


def _skew(dim: int) -> np.ndarray:
    skew = np.zeros((dim, dim))
    for at in range(0, dim - 1, 2):
        skew[at, at + 1], skew[at + 1, at] = 1.0, -1.0
    return skew


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    # The form with tanh neither overflows nor loses p(x) + p(-x) = 1.
    probabilities: np.ndarray = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return probabilities
