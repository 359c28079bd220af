"""One global head, and at home a ridge-regularised head of one's own around it: the baseline to beat.

Clients train the global head and send nothing else. What serves a client is found from its own pairs when it
is needed: ``argmin_w sum_i log(1 + exp(-w.z_i)) + ridge/2 |w - global|^2``. It is Ditto in convex form: Li et
al. 2021, "Ditto: Fair and Robust Federated Learning Through Personalization", arXiv:2012.04221, equation 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fedpref.clients.linear_reward import LinearReward
from fedpref.models.backbone import Backbone
from fedpref.models.kept import feature_differences
from fedpref.objectives.convex import convex_fit
from fedpref.objectives.convex_cohort import convex_fits
from fedpref.objectives.local import require
from fedpref.objectives.optimizers import OptimizerName
from fedpref.types import ClientState, Pairs, Reply, Shard, Task, Weights, Workload

__all__ = ["PersonalRidge"]

_KEY = "score.weight"


@dataclass(frozen=True)
class PersonalRidge:
    """``linear_reward``, whose clients are served by their own ridge solution around the global head.

    Nothing is kept: the solution is found again from the shard. A client without pairs, and a newcomer, gets
    the global head.

    Attributes:
        backbone: gives the features.
        ridge: precision of the prior that is centred on the global head; larger is closer to it.
        local_steps: gradient steps a task on the global head.
        batch_pairs: pairs a step; None means the whole shard.
        lr: step size.
        optimizer: "sgd" or "adamw".
        l2: ridge penalty of the global head itself.

    Raises:
        ConfigurationError: a value out of range.
    """

    backbone: Backbone
    ridge: float = 4.0
    local_steps: int = 30
    batch_pairs: int | None = 16
    lr: float = 0.3
    optimizer: OptimizerName = "sgd"
    l2: float = 0.0

    def __post_init__(self) -> None:
        require(math.isfinite(self.ridge) and self.ridge > 0, "ridge", self.ridge, "positive and finite")
        _ = self.shared  # its checks are ours

    @cached_property
    def shared(self) -> LinearReward:
        """The rule that trains the global head."""
        return LinearReward(
            self.backbone, self.local_steps, self.batch_pairs, self.lr, self.optimizer, self.l2
        )

    def fresh(self, rng: np.random.Generator) -> Weights:
        """The initial global head, float32."""
        return self.shared.fresh(rng)

    def warm(self, populations: Sequence[Pairs]) -> None:
        """Compute and keep the features of all these pairs, so that no worker has to."""
        self.shared.warm(populations)

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        """Margin of each pair, shape (num_pairs,), float64."""
        return self.shared.margins(weights, pairs)

    def export(self, weights: Weights, folder: Path) -> None:
        """Write the head, as ``linear_reward`` does."""
        self.shared.export(weights, folder)

    def personalise(self, weights: Weights, shard: Shard | None, state: ClientState) -> Weights:
        """The client's own head, float32: the ridge solution around the global one."""
        if shard is None or len(shard.pairs) == 0:
            return weights
        head = convex_fit(feature_differences(self.backbone, shard.pairs), weights[_KEY][0], self.ridge)
        return {_KEY: head.astype(np.float32)[None]}

    def personalise_cohort(
        self, weights: Sequence[Weights], shards: Sequence[Shard | None], states: Sequence[ClientState]
    ) -> Sequence[Weights]:
        """As ``personalise`` for each: all solutions are found together."""
        served = list(weights)
        pairs = {i: shard.pairs for i, shard in enumerate(shards) if shard is not None and len(shard.pairs)}
        differences = [feature_differences(self.backbone, own) for own in pairs.values()]
        heads = convex_fits(differences, [weights[i][_KEY][0] for i in pairs], self.ridge)
        for i, head in zip(pairs, heads, strict=True):
            served[i] = {_KEY: head.astype(np.float32)[None]}
        return served

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        """Train the global head, or score several, as ``linear_reward`` does."""
        return self.shared.answer(task, shard, state, rng)

    def answer_cohort(
        self,
        tasks: Sequence[Task],
        shards: Sequence[Shard],
        states: Sequence[ClientState],
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[tuple[Reply, ClientState]]:
        """As ``answer`` for each, as ``linear_reward`` does."""
        return self.shared.answer_cohort(tasks, shards, states, rngs)

    def workload(self, task: Task, shard: Shard) -> Workload:
        """Operations and memory of training the global head; the solution at home is after training."""
        return self.shared.workload(task, shard)
