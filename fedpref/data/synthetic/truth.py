"""The hidden truth of a synthetic population. No shard refers to it; evaluation may ask it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedpref.data.synthetic.annotators import Annotator, Directions
from fedpref.data.synthetic.judging import Judgement

__all__ = ["SyntheticTruth"]


@dataclass(frozen=True, eq=False)
class SyntheticTruth:
    """What is hidden about every annotator: first those of the shards, in their order, then unseen ones.

    Attributes:
        directions: common, group and deviation directions.
        delta_covariance: C_Delta, in which reward differences have sd 1.
        annotators: the persons, in the order of the held-out sets.
        training: the hidden side of the shards' training pairs.
        held_out: the hidden side of everybody's held-out pairs; clean labels.
        shots: the hidden side of the pairs that unseen people may adapt a model to.
        form: that of the responses.
    """

    directions: Directions
    delta_covariance: np.ndarray
    annotators: Sequence[Annotator]
    training: Sequence[Judgement]
    held_out: Sequence[Judgement]
    shots: Sequence[Judgement]
    form: str

    @property
    def groups(self) -> Sequence[int]:
        """Group of every held-out set."""
        return tuple(annotator.group for annotator in self.annotators)

    def p_chosen(self, held_out: int) -> np.ndarray:
        """P(the person prefers ``chosen``) for each pair of a held-out set, shape (num_pairs,)."""
        return self.held_out[held_out].p_chosen

    def tastes(self) -> np.ndarray | None:
        """Reward directions at time 0, one column a held-out set, shape (num_attributes, num_sets).

        None where responses are not the attributes themselves, so that no model has these coordinates.
        """
        if self.form != "attributes":
            return None
        return np.stack([annotator.theta for annotator in self.annotators], axis=1)

    def bayes_accuracy(self) -> np.ndarray:
        """Best possible expected accuracy on each held-out set: mean max(p, 1 - p), shape (num_sets,)."""
        return np.array([np.maximum(j.p_chosen, 1.0 - j.p_chosen).mean() for j in self.held_out])
