"""A reward head with LoRA on a frozen layer over frozen features: the smallest network in which LoRA adapts.

The reward is ``w . tanh((W + s B A) psi)``: W is drawn once and shared, a client trains A, B and w. It is
``lora_reward`` for backbones that are no transformer, and trains whole cohorts as one batch.

Source: Hu et al. 2021, arXiv:2106.09685 (LoRA); Sun et al. 2024, arXiv:2403.12313 (frozen A).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.models.backbone import Backbone
from fedpref.models.head_file import write_head
from fedpref.models.kept import kept
from fedpref.models.lora_layer import HEAD, LORA_A, LORA_B, Member, descend, layer_margins
from fedpref.models.stacked import Stacked
from fedpref.objectives.batches import batch_size, batches, epochs_and_rest
from fedpref.objectives.local import num_steps, reported_loss, require, require_progress, steps_and_mu
from fedpref.objectives.optimizers import copies_held
from fedpref.seeds import generator
from fedpref.types import ClientState, Pairs, Reply, Shard, Task, Weights, Workload

__all__ = ["LoraHead"]

_LARGEST_STACK = 2**21
"""Numbers in the features that are trained on at once: 8 MB, which a processor's cache may hold."""

_PADDING = 1.25
"""How much larger the largest shard of a stack may be than the smallest."""


@dataclass(frozen=True)
class LoraHead:
    """Trains ``layer.lora_A.weight`` (r, H), ``layer.lora_B.weight`` (outputs, r) and ``score.weight``.

    A task's settings may give ``local_steps`` and ``proximal_mu``. The optimiser is AdamW without decay,
    betas 0.9 and 0.95, afresh in every task; the work is done in float32.

    Attributes:
        backbone: gives the features.
        outputs: of the frozen layer W, Gaussian with variance 1/H.
        layer_seed: address of W; clients must share it.
        rank: inner dimension r of BA.
        alpha: BA is scaled by alpha / rank.
        local_steps: optimiser steps a task.
        batch_pairs: pairs a step; None means the whole shard.
        lr: step size.
        head_std: standard deviation of the head's initial weights.
        freeze_a: train B and the head only; then averaging B is averaging BA, exactly.

    Raises:
        ConfigurationError: a value out of range.
    """

    backbone: Backbone
    outputs: int = 64
    layer_seed: int = 0
    rank: int = 8
    alpha: int = 16
    local_steps: int = 30
    batch_pairs: int | None = 16
    lr: float = 1e-3
    head_std: float = 0.02
    freeze_a: bool = False

    def __post_init__(self) -> None:
        require(self.outputs >= 1, "outputs", self.outputs, "at least 1")
        require(self.rank >= 1, "rank", self.rank, "at least 1")
        require(self.alpha > 0, "alpha", self.alpha, "positive")
        require(self.local_steps >= 0, "local_steps", self.local_steps, "at least 0")
        require(
            self.batch_pairs is None or self.batch_pairs >= 1, "batch_pairs", self.batch_pairs, "at least 1"
        )
        require(math.isfinite(self.lr) and self.lr > 0, "lr", self.lr, "positive and finite")
        require(self.head_std >= 0, "head_std", self.head_std, "at least 0")

    def fresh(self, rng: np.random.Generator) -> Weights:
        """Initial weights, float32: A uniform as in PEFT, B zero, the head Gaussian."""
        shapes, bound = self._shapes, 1 / math.sqrt(self.backbone.dim)
        weights = {
            LORA_A: rng.uniform(-bound, bound, shapes[LORA_A]),
            LORA_B: np.zeros(shapes[LORA_B]),
            HEAD: self.head_std * rng.standard_normal(shapes[HEAD]),
        }
        return {key: array.astype(np.float32) for key, array in weights.items()}

    def warm(self, populations: Sequence[Pairs]) -> None:
        """Compute and keep the features of all these pairs, so that no worker has to."""
        for pairs in populations:
            self._rows(pairs)

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        """Margin of each pair, shape (num_pairs,), float64."""
        self._check(weights)
        return layer_margins(weights, self._rows(pairs), self._scale).astype(np.float64)

    def export(self, weights: Weights, folder: Path) -> None:
        """Write ``head.safetensors``, with the frozen layer, and the identity of the features it is for."""
        layer = _layer(self.layer_seed, self.backbone.dim, self.outputs)
        write_head(folder, {"layer.weight": layer, **weights}, self.backbone)

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        """Train on the shard.

        Metrics: ``loss_before`` and ``loss_after`` on the whole shard (before: at the received weights),
        ``steps_done``, ``skipped_steps`` (a gradient was not finite), ``flops`` (what ``workload`` says).

        Raises:
            ConfigurationError: another kind of task, or weights that do not fit.
            FederationError: every step was skipped.
        """
        return self.answer_cohort([task], [shard], [state], [rng])[0]

    def answer_cohort(
        self,
        tasks: Sequence[Task],
        shards: Sequence[Shard],
        states: Sequence[ClientState],
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[tuple[Reply, ClientState]]:
        """As ``answer`` for each: all are trained together."""
        replies: dict[int, Reply] = {}
        works: list[_Work] = []
        for i, (task, shard, rng) in enumerate(zip(tasks, shards, rngs, strict=True)):
            if task.kind != "train":
                raise ConfigurationError(f"client: lora_head cannot answer a task of kind '{task.kind}'")
            if len(shard.pairs) == 0:
                replies[i] = Reply(dict(task.weights), 0, {})
                continue
            self._check(task.weights)
            steps, mu = steps_and_mu(task.settings, self.local_steps, self.lr)
            drawn = list(batches(len(shard.pairs), self.batch_pairs, steps, rng))
            works.append(_Work(i, task, shard, mu, Member(self._rows(shard.pairs), drawn)))
        with np.errstate(over="ignore", invalid="ignore"):  # a step whose gradient is not finite is skipped
            for stack in _stacks(works):
                replies.update(self._trained(stack))
        return [(replies[i], state) for i, state in enumerate(states)]

    def workload(self, task: Task, shard: Shard) -> Workload:
        """Operations of A, B and the head; features, those of the frozen layer too, are taken as kept.

        A response takes a product with each, and in training two more of B and one more of the others, two
        operations an entry; the losses before and after take one of each. A task that is refused is no work.
        """
        num_pairs = len(shard.pairs)
        if task.kind != "train" or num_pairs == 0:
            return Workload(0.0, 0.0)
        steps = num_steps(task.settings, self.local_steps)
        epochs, rest = epochs_and_rest(num_pairs, self.batch_pairs, steps)
        a, b, head = (float(math.prod(shape)) for shape in self._shapes.values())
        forward, back = 2 * (a + b + head), 2 * (a * (not self.freeze_a) + 2 * b + head)
        flops = 2 * (epochs * num_pairs + rest) * (forward + back) + 2 * 2 * num_pairs * forward
        rows = 2 * (num_pairs + batch_size(num_pairs, self.batch_pairs))
        held = (a + b + head) * (1 + copies_held("adamw"))
        return Workload(flops, 4.0 * (rows * (self.backbone.dim + self.outputs) + held))

    @property
    def _shapes(self) -> dict[str, tuple[int, int]]:
        return {
            LORA_A: (self.rank, self.backbone.dim),
            LORA_B: (self.outputs, self.rank),
            HEAD: (1, self.outputs),
        }

    def _check(self, weights: Weights) -> None:
        found = {key: array.shape for key, array in weights.items()}
        if found != self._shapes:
            raise ConfigurationError(f"client: lora_head needs weights of {self._shapes}, got {found}")

    def _rows(self, pairs: Pairs) -> np.ndarray:
        """Features and what the frozen layer makes of them, chosen above rejected."""
        key = ("layer", self.backbone, self.outputs, self.layer_seed)
        return kept(pairs, key, lambda: self._computed(pairs))

    def _computed(self, pairs: Pairs) -> np.ndarray:
        sides = [self.backbone.features(pairs.prompts, side) for side in (pairs.chosen, pairs.rejected)]
        features = np.concatenate(sides)
        frozen = features @ _layer(self.layer_seed, self.backbone.dim, self.outputs).T
        return np.concatenate([features, frozen], axis=1)

    def _trained(self, works: Sequence[_Work]) -> Iterator[tuple[int, Reply]]:
        """Train clients of one proximal weight together, those with most steps first."""
        stack = Stacked([work.task.weights for work in works])
        members = [work.member for work in works]
        descend(stack, members, self._scale, self.lr, works[0].mu, self.freeze_a)
        for place, work in enumerate(works):
            steps, skipped = len(work.member.batches), int(stack.skipped[place])
            require_progress(steps, skipped)
            weights = stack.of(place)
            metrics = {
                **reported_loss("loss_before", self.margins(work.task.weights, work.shard.pairs)),
                **reported_loss("loss_after", self.margins(weights, work.shard.pairs)),
                "steps_done": float(steps - skipped),
                "skipped_steps": float(skipped),
                "flops": self.workload(work.task, work.shard).flops,
            }
            yield work.place, Reply(weights, len(work.shard.pairs), metrics)

    @property
    def _scale(self) -> float:
        return self.alpha / self.rank


class _Work(NamedTuple):
    """A task of training: its place among the tasks, its proximal weight, and its steps."""

    place: int
    task: Task
    shard: Shard
    mu: float
    member: Member


def _stacks(works: Sequence[_Work]) -> list[list[_Work]]:
    """Who is trained together: of one proximal weight, of similar size, and not too many at a time."""
    stacks: list[list[_Work]] = []
    numbers = 0
    for work in sorted(works, key=lambda work: (work.mu, len(work.shard.pairs))):
        first, numbers = stacks[-1][0] if stacks else work, numbers + work.member.rows.size
        is_alike = work.mu == first.mu and len(work.shard.pairs) <= _PADDING * len(first.shard.pairs)
        if not stacks or not is_alike or numbers > _LARGEST_STACK:
            stacks.append([])
            numbers = work.member.rows.size
        stacks[-1].append(work)
    return [sorted(stack, key=lambda work: -len(work.member.batches)) for stack in stacks]


@lru_cache(maxsize=4)
def _layer(seed: int, dim: int, outputs: int) -> np.ndarray:
    rng = generator(seed, "frozen layer", dim, outputs)
    layer = (rng.standard_normal((outputs, dim)) / math.sqrt(dim)).astype(np.float32)
    layer.setflags(write=False)
    return layer
