"""A learning rule with LoRA factors and no transformer, so that combines for factors run in the engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedpref.objectives.margin import bradley_terry_pull
from fedpref.types import ClientState, Pairs, Reply, Shard, Task, Weights

__all__ = ["LowRank"]

A, B = "layer.lora_A.weight", "layer.lora_B.weight"


@dataclass(frozen=True)
class LowRank:
    """The reward of x is the sum of B A x: full-batch gradient steps on A and B, or on B alone.

    Attributes:
        dim: length of the feature vectors.
        rank: of B A.
        freeze_a: leave A as it came.
        local_steps: where the task's settings name none.
        lr: of a step.
    """

    dim: int
    rank: int = 2
    freeze_a: bool = False
    local_steps: int = 4
    lr: float = 0.5

    def fresh(self, rng: np.random.Generator) -> Weights:
        a, b = rng.normal(size=(self.rank, self.dim)), rng.normal(size=(3, self.rank))
        return {A: a.astype(np.float32), B: b.astype(np.float32)}

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        z = _differences(pairs)
        return np.asarray(z @ weights[A].astype(np.float64).T @ weights[B].astype(np.float64).sum(axis=0))

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        z = _differences(shard.pairs)
        a, b = (task.weights[key].astype(np.float64) for key in (A, B))
        steps = int(task.settings.get("local_steps", self.local_steps))
        for _ in range(steps):
            along = bradley_terry_pull(z @ a.T @ b.sum(axis=0)) @ z / len(z)
            step_a, step_b = np.outer(b.sum(axis=0), along), np.tile(a @ along, (len(b), 1))
            a, b = a if self.freeze_a else a + self.lr * step_a, b + self.lr * step_b
        metrics = {"steps_done": float(steps), "flops": float(steps * z.size)}
        return Reply({A: a.astype(np.float32), B: b.astype(np.float32)}, len(z), metrics), state


def _differences(pairs: Pairs) -> np.ndarray:
    return np.asarray(pairs.chosen, np.float64) - np.asarray(pairs.rejected, np.float64)
