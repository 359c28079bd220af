"""A reward head with LoRA on a frozen layer over frozen features: the smallest network in which LoRA adapts.

The reward is ``w . tanh((W + s B A) psi)``: W is drawn once and shared, a client trains A, B and w. It is
``lora_reward`` for backbones that are no transformer, and trains whole cohorts as one batch.

Source: Hu et al. 2021, arXiv:2106.09685 (LoRA); Sun et al. 2024, arXiv:2403.12313 (frozen A).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.models.backbone import Backbone
from fedpref.models.head_file import write_head
from fedpref.models.kept import kept
from fedpref.models.lora_layer import HEAD, LORA_A, LORA_B, Member, layer_margins, trained
from fedpref.objectives.batches import batch_size, drawn, epochs_and_rest
from fedpref.objectives.grouping import grouping_split
from fedpref.objectives.local import (
    num_steps,
    reported_losses,
    require,
    require_progress,
    steps_and_mu,
)
from fedpref.objectives.optimizers import copies_held
from fedpref.objectives.scoring import num_models, scored
from fedpref.seeds import generator
from fedpref.types import ClientState, Pairs, Reply, Shard, Task, Weights, Workload

__all__ = ["LoraHead"]

_LARGEST_STEP = 2**19
"""Numbers that a step of a stack works on: 2 MB, not far above a core's own cache; fewer cost more calls."""

_PADDING = 1.25
"""How much more numbers the largest member of a stack may have in a step than the smallest."""


@dataclass(frozen=True)
class LoraHead:
    """Trains ``layer.lora_A.weight`` (r, H), ``layer.lora_B.weight`` (outputs, r) and ``score.weight``.

    It also scores several models, and keeps nothing. A task's settings may give ``local_steps``,
    ``proximal_mu``, ``grouping_share`` and ``grouping_seed``, and those of a task to score
    ``num_selectors``, the models that it holds. The optimiser is AdamW without decay, betas 0.9 and 0.95,
    afresh in every task; the work is done in float32.

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
        """Train on the shard ("train"), or report the losses of several models ("score").

        Metrics of training: ``loss_before`` and ``loss_after`` on all training pairs (before: at the received
        weights), ``steps_done``, ``skipped_steps`` (a gradient was not finite). Of both kinds: ``flops``
        (what ``workload`` says).

        To score, the weights hold model u under keys ``u/…``, and the reply no weights but ``loss_u``, the
        mean loss on the grouping pairs, in nats; one that is not finite is left out. A client with a single
        pair, none of which is held back, draws its losses at random, so that it prefers no group.

        Raises:
            ConfigurationError: another kind of task, weights that do not fit, or fewer models than the
                settings tell.
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
        """As ``answer`` for each: all that train are trained together."""
        replies: dict[int, Reply] = {}
        works: list[_Work] = []
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is skipped or left out
            for i, (task, shard, rng) in enumerate(zip(tasks, shards, rngs, strict=True)):
                if task.kind == "score":
                    replies[i] = self._score(task, shard, rng)
                elif task.kind != "train":
                    raise ConfigurationError(f"client: lora_head cannot answer a task of kind '{task.kind}'")
                elif len(shard.pairs) == 0:
                    replies[i] = Reply(dict(task.weights), 0, {})
                else:
                    works.append(self._work(i, task, shard, rng))
            for stack in _stacks(works):
                replies.update(self._trained(stack))
        return [(replies[i], state) for i, state in enumerate(states)]

    def workload(self, task: Task, shard: Shard) -> Workload:
        """Operations of A, B and the head; features, those of the frozen layer too, are taken as kept.

        A response takes a product with each, and in training two more of B and one more of the others, two
        operations an entry; the losses before and after take one of each, and so does the loss of each of
        the ``num_selectors`` models to score (one, if the settings do not tell). A task that is refused is
        no work.
        """
        if task.kind not in ("train", "score") or len(shard.pairs) == 0:
            return Workload(0.0, 0.0)
        split = grouping_split(shard, task.settings)
        a, b, head = (float(math.prod(shape)) for shape in self._shapes.values())
        width = self.backbone.dim + self.outputs
        if task.kind == "score":
            asked = num_models(task.settings)
            num_scored = 0 if split.grouping is None else len(split.grouping)
            flops = 2 * num_scored * asked * self._forward_flops
            return Workload(flops, 4.0 * (2 * num_scored * width + asked * (a + b + head)))
        forward, back = self._forward_flops, 2 * (a * (not self.freeze_a) + 2 * b + head)
        num_pairs = len(split.train)
        steps = num_steps(task.settings, self.local_steps)
        epochs, rest = epochs_and_rest(num_pairs, self.batch_pairs, steps)
        flops = 2 * (epochs * num_pairs + rest) * (forward + back) + 2 * 2 * num_pairs * forward
        rows = 2 * (num_pairs + batch_size(num_pairs, self.batch_pairs))
        return Workload(flops, 4.0 * (rows * width + (a + b + head) * (1 + copies_held("adamw"))))

    @property
    def _shapes(self) -> dict[str, tuple[int, int]]:
        return {
            LORA_A: (self.rank, self.backbone.dim),
            LORA_B: (self.outputs, self.rank),
            HEAD: (1, self.outputs),
        }

    @property
    def _forward_flops(self) -> float:
        """Operations of one reward."""
        return 2.0 * sum(map(math.prod, self._shapes.values()))

    def _check(self, weights: Weights) -> None:
        found = {key: array.shape for key, array in weights.items()}
        if found != self._shapes:
            raise ConfigurationError(f"client: lora_head needs weights of {self._shapes}, got {found}")

    def _rows(self, pairs: Pairs) -> np.ndarray:
        """Features and what the frozen layer makes of them, shape (num_pairs, 2, H + outputs)."""
        key = ("layer", self.backbone, self.outputs, self.layer_seed)
        return kept(pairs, key, lambda: self._computed(pairs))

    def _computed(self, pairs: Pairs) -> np.ndarray:
        sides = [self.backbone.features(pairs.prompts, side) for side in (pairs.chosen, pairs.rejected)]
        features = np.stack(sides, axis=1).reshape(2 * len(pairs), -1)
        frozen = features @ _layer(self.layer_seed, self.backbone.dim, self.outputs).T
        return np.concatenate([features, frozen], axis=1).reshape(len(pairs), 2, -1)

    def _score(self, task: Task, shard: Shard, rng: np.random.Generator) -> Reply:
        def margins(weights: Weights, rows: np.ndarray) -> np.ndarray:
            self._check(weights)
            return layer_margins(weights, self._rows(shard.pairs)[rows], self._scale)

        return scored(task, shard, rng, margins, lambda rows: 2.0 * len(rows) * self._forward_flops)

    def _work(self, place: int, task: Task, shard: Shard, rng: np.random.Generator) -> _Work:
        self._check(task.weights)
        rows = self._rows(shard.pairs)
        if task.settings.get("grouping_share"):
            rows = rows[grouping_split(shard, task.settings).train]
        steps, mu = steps_and_mu(task.settings, self.local_steps, self.lr)
        pairs = drawn(len(rows), self.batch_pairs, steps, rng)
        held = sum(array.size for array in task.weights.values()) * (1 + copies_held("adamw"))
        numbers = held + batch_size(len(rows), self.batch_pairs) * rows[0].size
        return _Work(place, task, shard, mu, numbers, Member(task.weights, rows, pairs))

    def _trained(self, works: Sequence[_Work]) -> dict[int, Reply]:
        """Train clients of one proximal weight together, those with most steps first."""
        members = [work.member for work in works]
        results = trained(members, self._scale, self.lr, works[0].mu, self.freeze_a)
        before = self._losses("loss_before", members, [member.weights for member in members])
        after = self._losses("loss_after", members, [result.weights for result in results])
        replies = {}
        for i, (work, (weights, skipped)) in enumerate(zip(works, results, strict=True)):
            steps = work.member.drawn.num_steps
            require_progress(steps, skipped)
            metrics = {
                **before[i],
                **after[i],
                "steps_done": float(steps - skipped),
                "skipped_steps": float(skipped),
                "flops": self.workload(work.task, work.shard).flops,
            }
            replies[work.place] = Reply(weights, len(work.shard.pairs), metrics)
        return replies

    def _losses(
        self, name: str, members: Sequence[Member], weights: Sequence[Weights]
    ) -> list[dict[str, float]]:
        """Each member's loss over all its pairs, at these weights."""
        each = zip(members, weights, strict=True)
        return reported_losses(name, [layer_margins(own, member.rows, self._scale) for member, own in each])

    @property
    def _scale(self) -> float:
        return self.alpha / self.rank


class _Work(NamedTuple):
    """A task of training: its place among the tasks, and its proximal weight.

    ``numbers`` are those that a step works on: the rows of a batch, the weights, and what AdamW holds.
    """

    place: int
    task: Task
    shard: Shard
    mu: float
    numbers: int
    member: Member


def _stacks(works: Sequence[_Work]) -> list[list[_Work]]:
    """Who is trained together: of one proximal weight, of similar steps, and not too many at a time.

    Those with most steps come first.
    """
    stacks: list[list[_Work]] = []
    left = 0
    for work in sorted(works, key=lambda work: (work.mu, work.numbers)):
        first = stacks[-1][0] if stacks else work
        is_alike = work.mu == first.mu and work.numbers <= _PADDING * first.numbers
        if not stacks or not is_alike or left < work.numbers:
            stacks.append([])
            left = _LARGEST_STEP
        stacks[-1].append(work)
        left -= work.numbers
    return [sorted(stack, key=lambda work: -work.member.drawn.num_steps) for stack in stacks]


@lru_cache(maxsize=4)
def _layer(seed: int, dim: int, outputs: int) -> np.ndarray:
    rng = generator(seed, "frozen layer", dim, outputs)
    layer = (rng.standard_normal((outputs, dim)) / math.sqrt(dim)).astype(np.float32)
    layer.setflags(write=False)
    return layer
