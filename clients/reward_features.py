"""Reward features: a basis of heads that all share, and weights on it that are fitted at home.

Client u has the head ``w_u V``, V (B, H), and a Gaussian prior of w_u whose mean, and covariance if that is
learned, are the population's: a convex problem, and empirical Bayes for the weights on the basis.

Source: Barreto et al. 2025, "Capturing Individual Human Preferences with Reward Features",
arXiv:2503.17338; the prior is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fedpref.clients.basis import MEAN, Fit, SharedBasis
from fedpref.models.backbone import Backbone
from fedpref.objectives.blocks import Blocks, once_each, stacks
from fedpref.objectives.convex import laplace, laplace_flops, precision_flops, precision_of
from fedpref.objectives.convex_cohort import laplaces
from fedpref.objectives.local import require
from fedpref.types import ClientState, Pairs, Reply, Shard, Task, Weights, Workload

__all__ = ["RewardFeatures"]

_SECOND = "prior.second"
_LEAST_VARIANCE = 0.01


@dataclass(frozen=True)
class RewardFeatures:
    """Shares ``basis.weight`` (B, H), and a Gaussian prior of the weights on it, which are unconstrained.

    What leaves a client: its basis after the local steps, its weights as its own value of ``prior.mean``
    (B,), and with ``learn_prior`` their outer product plus their posterior covariance as ``prior.second``
    (B, B). The server needs their means over clients alone, and secure aggregation would show it no more;
    without it, whoever reads a single message reads that client's weights.
    A newcomer without pairs gets the mean weights.

    Attributes:
        backbone: gives the features.
        num_features: B, heads in the basis; at most the dimension of the features.
        ridge: precision of the weights around the population's mean; at the start, where it is learned.
        learn_prior: learn the covariance of the weights, too.
        local_steps: gradient steps a task on the basis.
        batch_pairs: pairs a step; None means the whole shard.
        lr: step size.
        init_std: standard deviation of all initial heads but the first, which is zero and has the prior's
            whole weight: the first steps train it as the global head.

    Raises:
        ConfigurationError: a value out of range, or more heads than the features have dimensions.
    """

    backbone: Backbone
    num_features: int = 5
    ridge: float = 4.0
    learn_prior: bool = False
    local_steps: int = 5
    batch_pairs: int | None = None
    lr: float = 0.3
    init_std: float = 0.3

    def __post_init__(self) -> None:
        dim, count, ridge = self.backbone.dim, self.num_features, self.ridge
        require(1 <= count <= dim, "num_features", count, f"from 1 to {dim}, the features' dimension")
        require(math.isfinite(ridge) and ridge > 0, "ridge", ridge, "positive and finite")
        _ = self.shared  # its checks are ours

    @cached_property
    def shared(self) -> SharedBasis:
        """What trains the basis."""
        return SharedBasis(
            self.backbone, self.num_features, self.local_steps, self.batch_pairs, self.lr, self.init_std
        )

    def fresh(self, rng: np.random.Generator) -> Weights:
        """The initial basis and prior, float32."""
        mean = np.eye(self.num_features, dtype=np.float32)[0]
        weights = {**self.shared.fresh(rng), MEAN: mean}
        if self.learn_prior:
            spread = np.eye(self.num_features, dtype=np.float32) / np.float32(self.ridge)
            weights[_SECOND] = np.outer(mean, mean) + spread
        return weights

    def warm(self, populations: Sequence[Pairs]) -> None:
        """Compute and keep the features of all these pairs, so that no worker has to."""
        self.shared.warm(populations)

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        """Margin of each pair, shape (num_pairs,), float64: of a client's head, or of the mean weights."""
        return self.shared.margins(weights, pairs)

    def export(self, weights: Weights, folder: Path) -> None:
        """Write all of it, with the identity of its features."""
        self.shared.export(weights, folder)

    def span(self, weights: Weights) -> np.ndarray:
        """The heads of the basis as columns: all heads lie in their span, shape (H, B)."""
        return self.shared.span(weights)

    def personalise(self, weights: Weights, shard: Shard | None, state: ClientState) -> Weights:
        """The client's own head, ``score.weight`` (1, H), float32."""
        return self.shared.personalise(weights, shard, self._fit)

    def personalise_cohort(
        self, weights: Sequence[Weights], shards: Sequence[Shard | None], states: Sequence[ClientState]
    ) -> Sequence[Weights]:
        """As ``personalise`` for each: all weights are fitted together."""
        return self.shared.personalise_cohort(weights, shards, self._fit_together)

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        """Fit the weights at home, then train the basis; metrics as of ``SharedBasis``.

        Raises:
            ConfigurationError: another kind of task, or weights that do not fit.
            FederationError: every step was skipped.
        """
        return self.shared.answer(task, shard, self._statistics, self._fit, rng), state

    def answer_cohort(
        self,
        tasks: Sequence[Task],
        shards: Sequence[Shard],
        states: Sequence[ClientState],
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[tuple[Reply, ClientState]]:
        """As ``answer`` for each: all are fitted and trained together."""
        replies = self.shared.answer_cohort(tasks, shards, self._statistics, self._fit_together, rngs)
        return list(zip(replies, states, strict=True))

    def workload(self, task: Task, shard: Shard) -> Workload:
        """Operations of the steps, and least ones of the fit: one Newton direction; and their memory."""
        fit_flops = laplace_flops(len(shard.pairs), self.num_features) + self._prior_flops
        return self.shared.workload(task, shard, fit_flops)

    @property
    def _prior_flops(self) -> float:
        return precision_flops(self.num_features) if self.learn_prior else 0.0

    @property
    def _statistics(self) -> dict[str, tuple[int, ...]]:
        """Keys and shapes of all that travels beside the basis."""
        count = self.num_features
        return {MEAN: (count,), _SECOND: (count, count)} if self.learn_prior else {MEAN: (count,)}

    def _fit(self, weights: Weights, parts: np.ndarray) -> Fit:
        posterior = laplace(parts, *self._prior(weights))
        return self._fitted(posterior.weights, posterior.covariance, posterior.flops)

    def _fit_together(self, received: Sequence[Weights], parts: Sequence[np.ndarray]) -> list[Fit]:
        fits: dict[int, Fit] = {}
        finite = {i: each for i, each in enumerate(parts) if np.isfinite(each).all()}
        for stack in stacks(finite, self.num_features**2):
            priors = once_each([received[i] for i in stack], self._prior)
            means, precisions = (np.stack(part) for part in zip(*priors, strict=True))
            found = laplaces(Blocks.of(list(stack.values())), means[:, None], precisions)
            for place, i in enumerate(stack):
                flops = float(found.flops[place, 0])
                fits[i] = self._fitted(found.weights[place, 0], found.covariances[place, 0], flops)
        return [fits[i] if i in fits else self._fit(received[i], each) for i, each in enumerate(parts)]

    def _prior(self, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
        """Mean and precision of the weights on the basis."""
        mean = weights[MEAN].astype(np.float64)
        if not self.learn_prior:
            return mean, self.ridge * np.eye(self.num_features)
        covariance = weights[_SECOND].astype(np.float64) - np.outer(mean, mean)
        return mean, precision_of(covariance, _LEAST_VARIANCE)

    def _fitted(self, own: np.ndarray, covariance: np.ndarray, flops: float) -> Fit:
        statistics = {MEAN: own}
        if self.learn_prior:
            statistics[_SECOND] = np.outer(own, own) + covariance
        return Fit(own, statistics, flops + self._prior_flops)
