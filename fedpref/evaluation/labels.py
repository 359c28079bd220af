"""Labels that models give to unlabelled pairs, by vote or by their mean margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedpref.evaluation.metrics import vote

__all__ = ["Labels", "Vote", "label"]

Vote = Literal["majority", "mean"]


@dataclass(frozen=True, eq=False)
class Labels:
    """One label a pair; all arrays have the shape (num_pairs,).

    Attributes:
        is_first: True if the first response is chosen.
        margins: mean over all models of chosen over rejected, in logits; below 0 where a majority
            overrules stronger opponents.
        votes: models that choose the chosen response.
        agreement: share of the models that side with the label; a model without a side counts one half.
    """

    is_first: np.ndarray
    margins: np.ndarray
    votes: np.ndarray
    agreement: np.ndarray


def label(margins: np.ndarray, by: Vote = "majority") -> Labels:
    """Choose a response of each pair.

    A majority of signs decides, ties by the mean margin; "mean" lets the mean margin alone decide. Where
    that is zero too, the first response is chosen, as the released code of FedBiscuit does.

    Args:
        margins: of the first over the second response, shape (num_models, num_pairs).
        by: "majority" or "mean".

    Source: Wu et al. 2024 (FedBiscuit, arXiv:2407.03038), the second stage.
    """
    means = margins.mean(axis=0)
    is_first = (vote(margins) if by == "majority" else means) >= 0
    towards_label = np.where(is_first, 1.0, -1.0) * np.sign(margins)
    return Labels(
        is_first=is_first,
        margins=np.where(is_first, means, -means),
        votes=(towards_label > 0).sum(axis=0),
        agreement=((1.0 + towards_label) / 2.0).mean(axis=0),
    )
