"""LoRe: a basis of heads that all share, and mixing weights on the simplex that are fitted at home.

Client u has the head ``w_u V`` with w_u on the simplex and V (B, H): a mixture of B tastes. One head has the
weight 1, and is a Bradley-Terry head. The weights minimise

    sum_i log(1 + exp(-w.f_i)) + ridge KL(w | prior),    f_i = V z_i,

which is convex. The prior is the mean of the clients' weights.

Source: Bose et al. 2025, "LoRe: Personalizing LLMs via Low-Rank Reward Modeling", arXiv:2504.14439. The prior
and Newton's method in place of gradient steps on logits are ours.
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
from fedpref.objectives.local import require
from fedpref.objectives.simplex import simplex_fit, simplex_fit_flops
from fedpref.objectives.simplex_cohort import simplex_fits
from fedpref.types import ClientState, Pairs, Reply, Shard, Task, Weights, Workload

__all__ = ["Lore"]


@dataclass(frozen=True)
class Lore:
    """Shares ``basis.weight`` (B, H) and ``prior.mean`` (B,), the mean of the clients' mixing weights.

    What leaves a client: its basis after the local steps, and its weights as its own value of the mean; the
    server needs their mean over clients alone.
    A newcomer without pairs gets the mean weights.

    Attributes:
        backbone: gives the features.
        num_heads: B, heads in the basis; at most the dimension of the features.
        ridge: nats a nat of divergence from the mean weights costs.
        local_steps: gradient steps a task on the basis.
        batch_pairs: pairs a step; None means the whole shard.
        lr: step size.
        init_std: standard deviation of all initial heads but the first, which is zero.

    Raises:
        ConfigurationError: a value out of range, or more heads than the features have dimensions.
    """

    backbone: Backbone
    num_heads: int = 5
    ridge: float = 10.0
    local_steps: int = 5
    batch_pairs: int | None = None
    lr: float = 0.3
    init_std: float = 0.1

    def __post_init__(self) -> None:
        dim, count, ridge = self.backbone.dim, self.num_heads, self.ridge
        require(1 <= count <= dim, "num_heads", count, f"from 1 to {dim}, the features' dimension")
        require(math.isfinite(ridge) and ridge > 0, "ridge", ridge, "positive and finite")
        _ = self.shared  # its checks are ours

    @cached_property
    def shared(self) -> SharedBasis:
        """What trains the basis."""
        return SharedBasis(
            self.backbone, self.num_heads, self.local_steps, self.batch_pairs, self.lr, self.init_std
        )

    def fresh(self, rng: np.random.Generator) -> Weights:
        """The initial basis, and uniform mean weights, float32."""
        return {**self.shared.fresh(rng), MEAN: np.full(self.num_heads, 1 / self.num_heads, np.float32)}

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
        """Fit the mixing weights at home, then train the basis; metrics as of ``SharedBasis``.

        Raises:
            ConfigurationError: another kind of task, or weights that do not fit.
            FederationError: every step was skipped.
        """
        return self.shared.answer(task, shard, {MEAN: (self.num_heads,)}, self._fit, rng), state

    def answer_cohort(
        self,
        tasks: Sequence[Task],
        shards: Sequence[Shard],
        states: Sequence[ClientState],
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[tuple[Reply, ClientState]]:
        """As ``answer`` for each: all are fitted and trained together."""
        statistics = {MEAN: (self.num_heads,)}
        replies = self.shared.answer_cohort(tasks, shards, statistics, self._fit_together, rngs)
        return list(zip(replies, states, strict=True))

    def workload(self, task: Task, shard: Shard) -> Workload:
        """Operations of the steps, and least ones of the fit: one Newton direction; and their memory."""
        return self.shared.workload(task, shard, simplex_fit_flops(len(shard.pairs), self.num_heads))

    def _fit(self, weights: Weights, parts: np.ndarray) -> Fit:
        own = simplex_fit(parts, weights[MEAN].astype(np.float64), self.ridge)
        return Fit(own.weights, {MEAN: own.weights}, own.flops)

    def _fit_together(self, received: Sequence[Weights], parts: Sequence[np.ndarray]) -> list[Fit]:
        priors = [weights[MEAN].astype(np.float64) for weights in received]
        found = simplex_fits(parts, priors, self.ridge)
        return [Fit(own.weights, {MEAN: own.weights}, own.flops) for own in found]
