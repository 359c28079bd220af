"""A selector on frozen features: a linear head on (psi_a, psi_b), with gradients in closed form.

The logit is ``l(a, b) = w_a.psi_a + w_b.psi_b + c``. With z and q the difference and the sum of a pair's
features, its score is ``u.z``, u = (w_a - w_b)/2, and its position bias is ``v.q + c``, v = (w_a + w_b)/2.
Where w_b = -w_a and c = 0 there is no bias; as both orders are in every step, none arises, and the head is
a Bradley-Terry reward head with weights u.

Source: Bradley and Terry 1952; Wu et al. 2024, arXiv:2407.03038, for the objective.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.models.backbone import Backbone
from fedpref.models.head_file import write_head
from fedpref.models.kept import feature_differences, feature_sums, gram_matrix, narrow_differences
from fedpref.models.selector_head import Course, Ended, Trained
from fedpref.objectives.batches import Drawn, batch_size
from fedpref.objectives.least_work import LeastWork
from fedpref.objectives.linear_cohort import Member, cheapest, trained
from fedpref.objectives.optimizers import OptimizerName, copies_held, stepper
from fedpref.objectives.selector import pulls
from fedpref.types import Pairs, Weights

__all__ = ["BIAS", "WEIGHT", "PairHead", "pair_gradient", "pair_logits"]

WEIGHT, BIAS = "pair_head.weight", "pair_head.bias"


def pair_logits(vector: np.ndarray, differences: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Logits of both orders, shape (num_pairs, 2).

    Args:
        vector: (w_a, w_b, c), shape (2H + 1,).
        differences: psi(chosen) - psi(rejected), shape (num_pairs, H).
        sums: psi(chosen) + psi(rejected), same shape.
    """
    score, bias = _score_and_bias(vector, differences, sums)
    return np.stack([bias + score, bias - score], axis=1)


def pair_gradient(
    vector: np.ndarray, differences: np.ndarray, sums: np.ndarray, bias_penalty: float = 0.0
) -> np.ndarray:
    """Gradient of ``two_order_loss`` in (w_a, w_b, c), shape (2H + 1,); arguments as in ``pair_logits``."""
    by_score, by_bias = pulls(*_score_and_bias(vector, differences, sums), bias_penalty)
    by_u, by_v = by_score @ differences, by_bias @ sums
    return np.concatenate([by_v + by_u, by_v - by_u, [2 * by_bias.sum()]]) / (2 * len(differences))


def _score_and_bias(
    vector: np.ndarray, differences: np.ndarray, sums: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    first, second = vector[:-1].reshape(2, -1)
    return differences @ ((first - second) / 2), sums @ ((first + second) / 2) + vector[-1]


@dataclass(frozen=True)
class PairHead:
    """The head on a backbone's features. Works in float64, sends float32.

    Attributes:
        backbone: gives the features.
        lr: step size; every reward step of size lr/2 is a step of this size.
        optimizer: "sgd" or "adamw".
        bias_penalty: weight of the mean squared position bias in the loss.
        init_std: standard deviation of the initial w_a; w_b is its negative, so that no selector starts
            with a liking for a slot.
    """

    backbone: Backbone
    lr: float
    optimizer: OptimizerName = "sgd"
    bias_penalty: float = 0.0
    init_std: float = 0.0

    def fresh(self, rng: np.random.Generator) -> Weights:
        """Initial weights, float32."""
        half = (self.init_std * rng.standard_normal((1, self.backbone.dim))).astype(np.float32)
        return {WEIGHT: np.concatenate([half, -half], axis=1), BIAS: np.zeros(1, np.float32)}

    def warm(self, populations: Sequence[Pairs]) -> None:
        """Compute and keep the features of all these pairs."""
        for pairs in populations:
            feature_differences(self.backbone, pairs)
            feature_sums(self.backbone, pairs)

    def both_orders(self, weights: Weights, pairs: Pairs, rows: np.ndarray) -> np.ndarray:
        """Logits of both orders of the pairs at ``rows``, shape (num_rows, 2), float64."""
        vector, (differences, sums) = self.vector(weights), self._features(pairs)
        with np.errstate(invalid="ignore", over="ignore"):  # not finite: whoever asked leaves it out
            return pair_logits(vector, differences[rows], sums[rows])

    def scoring_flops(self, pairs: Pairs, rows: np.ndarray) -> int:
        """Two products of (rows, H), two operations an entry; features are taken as kept."""
        return 4 * self.backbone.dim * len(rows)

    def least_work(self, pairs: Pairs, rows: np.ndarray, batch_pairs: int | None) -> LeastWork:
        """Two products forward and two back, for each pair: exactly what ``train`` counts."""
        a_pair = 8 * self.backbone.dim
        return LeastWork(a_pair * len(rows), range(0, a_pair * len(rows) + 1, a_pair))

    def training_bytes(self, pairs: Pairs, batch_pairs: int | None) -> int:
        """Differences and sums of shard and batch, and the head with what its steps hold; float64."""
        dim = self.backbone.dim
        rows = len(pairs) + batch_size(len(pairs), batch_pairs)
        return 8 * (2 * dim * rows + (2 * dim + 1) * (1 + copies_held(self.optimizer)))

    def scoring_bytes(self, pairs: Pairs, num_selectors: int) -> int:
        """Differences and sums of the shard, twice where all are picked, and the heads; float64."""
        return 8 * (4 * self.backbone.dim * len(pairs) + (2 * self.backbone.dim + 1) * num_selectors)

    def train(
        self,
        weights: Weights,
        pairs: Pairs,
        batches: Iterable[np.ndarray],
        mu: float,
        rng: np.random.Generator,
    ) -> Trained:
        """One step on each batch of rows; draws nothing from ``rng``."""
        received, (differences, sums) = self.vector(weights), self._features(pairs)
        vector, step = received.copy(), stepper(self.optimizer, self.lr)
        skipped = seen_pairs = 0
        with np.errstate(invalid="ignore", over="ignore"):
            for rows in batches:
                seen_pairs += len(rows)
                gradient = pair_gradient(vector, differences[rows], sums[rows], self.bias_penalty)
                if mu > 0:  # a branch: adding zero times something would not be bit for bit nothing
                    gradient = gradient + mu * (vector - received)
                if not np.isfinite(gradient).all():
                    skipped += 1
                    continue
                vector = vector + step(gradient)
        sent = vector.astype(np.float32)
        trained = {WEIGHT: sent[None, :-1].copy(), BIAS: sent[-1:].copy()}
        return Trained(trained, skipped, 8 * self.backbone.dim * seen_pairs)

    def train_together(self, courses: Sequence[Course], num_measured: int) -> Sequence[Ended | None]:
        """Steps of plain SGD of heads without a bias, which are those of reward heads of half the step size.

        All others train alone, and so do heads with a step to skip.
        """
        found: list[Ended | None] = [None] * len(courses)
        members: dict[float, dict[int, Member]] = {}
        for i, course in enumerate(courses):
            member = self._member(course)
            if member is not None:
                members.setdefault(course.mu, {})[i] = member
        for mu, some in members.items():
            results = trained(list(some.values()), self.lr / 2, 0.0, 2 * mu)
            for i, (head, before, after) in zip(some, results, strict=True):
                if np.isfinite(head).all():  # else some step is to be skipped
                    flops = 8 * self.backbone.dim * sum(map(len, courses[i].batches))
                    both = (_without_bias(margins[:num_measured]) for margins in (before, after))
                    found[i] = Ended(Trained(_unbiased(head), 0, flops), *both)
        return found

    def export(self, weights: Weights, folder: Path) -> None:
        """Write ``head.safetensors`` and, in ``fedpref.json``, the identity of the features it is for."""
        write_head(folder, weights, self.backbone)

    def vector(self, weights: Weights) -> np.ndarray:
        """The weights as (w_a, w_b, c), shape (2H + 1,), float64.

        Raises:
            ConfigurationError: they do not fit.
        """
        expected = {WEIGHT: (1, 2 * self.backbone.dim), BIAS: (1,)}
        shapes = {key: array.shape for key, array in weights.items()}
        if shapes != expected:
            raise ConfigurationError(f"client: selector needs weights of shapes {expected}, got {shapes}")
        vector: np.ndarray = np.concatenate([weights[WEIGHT][0], weights[BIAS]]).astype(np.float64)
        return vector

    def _member(self, course: Course) -> Member | None:
        """The course as one of a reward head; None where it is none, or not worth stacking."""
        vector, pairs = self.vector(course.weights), course.pairs
        first, second = vector[:-1].reshape(2, -1)
        has_bias = vector[-1] != 0 or not np.array_equal(first, -second)
        if self.optimizer != "sgd" or has_bias or not course.batches:
            return None
        num_pairs, steps = len(course.rows), len(course.batches)
        plan = cheapest(num_pairs, self.backbone.dim, len(course.batches[0]), steps)
        if not plan.stacked:
            return None
        differences_of = narrow_differences if plan.by_gram else feature_differences
        differences = differences_of(self.backbone, pairs)
        gram = gram_matrix(self.backbone, pairs) if plan.by_gram else None
        if num_pairs < len(pairs):
            differences = differences[course.rows]
            gram = gram[np.ix_(course.rows, course.rows)] if gram is not None else None
        return Member(differences, gram, first, Drawn.of(course.batches))

    def _features(self, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
        return feature_differences(self.backbone, pairs), feature_sums(self.backbone, pairs)


def _unbiased(u: np.ndarray) -> Weights:
    """The weights of a head that scores by ``u``."""
    half = u.astype(np.float32)[None]
    return {WEIGHT: np.concatenate([half, -half], axis=1), BIAS: np.zeros(1, np.float32)}


def _without_bias(score: np.ndarray) -> np.ndarray:
    """Logits of both orders of pairs, where there is no liking for a slot."""
    return np.stack([score, -score], axis=1).astype(np.float64)
