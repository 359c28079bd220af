"""A personal rule in a few lines: a head on frozen features, to which everybody adds the sum of their z."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedpref.models.backbone import Backbone
from fedpref.models.kept import feature_differences
from fedpref.types import ClientState, Pairs, Reply, Shard, Task, Weights

__all__ = ["PersonalToy"]

KEY = "score.weight"


@dataclass(frozen=True)
class PersonalToy:
    """The shared head moves to the mean of the clients' sums.

    What a client adds is kept from when it trained last; who never trained adds it from the shard.

    Attributes:
        backbone: gives the features.
    """

    backbone: Backbone

    def fresh(self, rng: np.random.Generator) -> Weights:
        return {KEY: np.zeros((1, self.backbone.dim), dtype=np.float32)}

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        margins = feature_differences(self.backbone, pairs) @ weights[KEY][0].astype(np.float64)
        return np.asarray(margins)

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        own = self._own(shard)
        return Reply({KEY: own}, len(shard.pairs), {}), ClientState({"own": own})

    def personalise(self, weights: Weights, shard: Shard | None, state: ClientState) -> Weights:
        if shard is None:
            return weights
        own = state.arrays["own"] if state.arrays else self._own(shard)
        return {KEY: weights[KEY] + 10 * own}

    def _own(self, shard: Shard) -> np.ndarray:
        return feature_differences(self.backbone, shard.pairs).sum(axis=0)[None].astype(np.float32)
