"""A linear reward head on frozen features, trained by steps in closed form.

With features psi and z = psi(chosen) - psi(rejected), the margin is w.z and the gradient of the
Bradley-Terry loss is ``-mean pull(w.z) z``: convex, so federated steps can be checked against pooled ones.

Source: Bradley and Terry 1952; the proximal term: Li et al. 2020 (FedProx), arXiv:1812.06127, algorithm 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.models.backbone import Backbone
from fedpref.models.head_file import write_head
from fedpref.models.kept import feature_differences
from fedpref.objectives.batches import batch_size, batches, epochs_and_rest
from fedpref.objectives.local import num_steps, reported_loss, require, require_progress, steps_and_mu
from fedpref.objectives.margin import bradley_terry_pull
from fedpref.objectives.optimizers import OptimizerName, copies_held, stepper
from fedpref.types import ClientState, Pairs, Reply, Shard, Task, Weights, Workload

__all__ = ["LinearReward"]

_KEY = "score.weight"


@dataclass(frozen=True)
class LinearReward:
    """Trains ``score.weight``, shape (1, H), on frozen features; keeps nothing between tasks.

    A task's settings may give ``local_steps`` and ``proximal_mu``. The work is done in float64 and sent
    in float32. Optimisers start afresh in every task.

    Attributes:
        backbone: gives the features.
        local_steps: gradient steps a task.
        batch_pairs: pairs a step; None means the whole shard.
        lr: step size; text backbones give features of norm 8, so that one step size suits them all.
        optimizer: "sgd", or "adamw" (betas 0.9 and 0.95).
        l2: ridge penalty ``l2/2 |w|^2``; it keeps separable shards finite.
        init_std: standard deviation of initial weights.

    Raises:
        ConfigurationError: a value out of range.
    """

    backbone: Backbone
    local_steps: int = 30
    batch_pairs: int | None = 16
    lr: float = 0.3
    optimizer: OptimizerName = "sgd"
    l2: float = 0.0
    init_std: float = 0.0

    def __post_init__(self) -> None:
        require(self.local_steps >= 0, "local_steps", self.local_steps, "at least 0")
        require(
            self.batch_pairs is None or self.batch_pairs >= 1, "batch_pairs", self.batch_pairs, "at least 1"
        )
        require(math.isfinite(self.lr) and self.lr > 0, "lr", self.lr, "positive and finite")
        require(self.optimizer in ("sgd", "adamw"), "optimizer", self.optimizer, "sgd or adamw")
        require(self.l2 >= 0, "l2", self.l2, "at least 0")
        require(self.init_std >= 0, "init_std", self.init_std, "at least 0")

    def fresh(self, rng: np.random.Generator) -> Weights:
        """Initial weights, float32."""
        shape = (1, self.backbone.dim)
        return {_KEY: (self.init_std * rng.standard_normal(shape)).astype(np.float32)}

    def warm(self, populations: Sequence[Pairs]) -> None:
        """Compute and keep the features of all these pairs, so that no worker has to."""
        for pairs in populations:
            feature_differences(self.backbone, pairs)

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        """Margin of each pair, shape (num_pairs,), float64."""
        margins = feature_differences(self.backbone, pairs) @ self._vector(weights)
        return np.asarray(margins)

    def export(self, weights: Weights, folder: Path) -> None:
        """Write ``head.safetensors`` and, in ``fedpref.json``, the identity of the features it is for."""
        write_head(folder, weights, self.backbone)

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        """Train on the shard.

        Metrics: ``loss_before`` and ``loss_after`` on the whole shard (before: at the received weights),
        ``steps_done``, ``skipped_steps`` (their gradient was not finite), ``flops`` (what ``workload`` says,
        exactly), and with a proximal term ``inexactness``, FedProx's gamma: the norm of the local
        objective's gradient, after over before.

        Raises:
            ConfigurationError: another kind of task, or weights that do not fit the backbone.
            FederationError: every step was skipped.
        """
        if task.kind != "train":
            raise ConfigurationError(f"client: linear_reward cannot answer a task of kind '{task.kind}'")
        num_pairs = len(shard.pairs)
        if num_pairs == 0:
            return Reply(dict(task.weights), 0, {}), state
        received = self._vector(task.weights)
        differences = feature_differences(self.backbone, shard.pairs)
        steps, mu = steps_and_mu(task.settings, self.local_steps, self.lr)
        vector, step = received.copy(), stepper(self.optimizer, self.lr)
        skipped = seen_pairs = 0
        for rows in batches(num_pairs, self.batch_pairs, steps, rng):
            seen_pairs += len(rows)
            gradient = _gradient(vector, differences[rows], self.l2, received, mu)
            if not np.isfinite(gradient).all():
                skipped += 1
                continue
            vector = vector + step(gradient)
        require_progress(steps, skipped)
        metrics = {
            **reported_loss("loss_before", differences @ received),
            **reported_loss("loss_after", differences @ vector),
            "steps_done": float(steps - skipped),
            "skipped_steps": float(skipped),
            # Two products of (pairs, H), two operations an entry; the two losses add one product each.
            "flops": 4.0 * differences.shape[1] * (seen_pairs + num_pairs),
        }
        if mu > 0:
            before = np.linalg.norm(_gradient(received, differences, self.l2, received, 0.0))
            after = np.linalg.norm(_gradient(vector, differences, self.l2, received, mu))
            if before > 0 and np.isfinite(after):
                metrics["inexactness"] = float(after / before)
        weights = {_KEY: vector.astype(np.float32)[None]}
        return Reply(weights, num_pairs, metrics), state

    def workload(self, task: Task, shard: Shard) -> Workload:
        """Operations of the head; features are taken as kept. A task that is refused is no work.

        A pair of a batch takes two products of length H, two operations an entry, whether or not its step
        is skipped in the end; the losses before and after take one product a pair each. The inexactness is
        a measurement for the log, off the clock. Memory, float64: the features of the shard and of a
        batch, the head and what its steps hold.
        """
        num_pairs, dim = len(shard.pairs), self.backbone.dim
        if task.kind != "train" or num_pairs == 0:
            return Workload(0.0, 0.0)
        steps = num_steps(task.settings, self.local_steps)
        epochs, rest = epochs_and_rest(num_pairs, self.batch_pairs, steps)
        rows = num_pairs + batch_size(num_pairs, self.batch_pairs)
        memory = 8.0 * dim * (rows + 1 + copies_held(self.optimizer))
        return Workload(4.0 * dim * (epochs * num_pairs + rest + num_pairs), memory)

    def _vector(self, weights: Weights) -> np.ndarray:
        shapes = {key: array.shape for key, array in weights.items()}
        if shapes != {_KEY: (1, self.backbone.dim)}:
            raise ConfigurationError(
                f"client: linear_reward needs {_KEY} of shape (1, {self.backbone.dim}), got {shapes}"
            )
        vector: np.ndarray = weights[_KEY][0].astype(np.float64)
        return vector


def _gradient(
    vector: np.ndarray, differences: np.ndarray, l2: float, anchor: np.ndarray, mu: float
) -> np.ndarray:
    """Gradient of the local objective: Bradley-Terry, ridge, and the pull to the received weights."""
    gradient = -(bradley_terry_pull(differences @ vector) @ differences) / len(differences)
    if l2 > 0:
        gradient = gradient + l2 * vector
    if mu > 0:  # a branch: adding zero times something would not be bit for bit nothing
        gradient = gradient + mu * (vector - anchor)
    result: np.ndarray = gradient
    return result
