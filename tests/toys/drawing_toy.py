"""The personal rule of ``personal_toy``, but whatever it is asked it adds noise from the global streams."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from personal_toy import PersonalToy

from fedpref.models.backbone import Backbone
from fedpref.types import ClientState, Pairs, Reply, Shard, Task, Weights

__all__ = ["DrawingToy"]


@dataclass(frozen=True)
class DrawingToy:
    """Trains without noise; personal parts and margins have it.

    Attributes:
        backbone: gives the features.
    """

    backbone: Backbone

    def fresh(self, rng: np.random.Generator) -> Weights:
        return self._quiet.fresh(rng)

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        return self._quiet.margins(weights, pairs) + np.random.standard_normal(len(pairs))

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        return self._quiet.answer(task, shard, state, rng)

    def personalise(self, weights: Weights, shard: Shard | None, state: ClientState) -> Weights:
        whole = self._quiet.personalise(weights, shard, state)
        return {key: array * np.float32(random.uniform(0.5, 2.0)) for key, array in whole.items()}

    @property
    def _quiet(self) -> PersonalToy:
        return PersonalToy(self.backbone)
