"""A reward model with LoRA in the last layers of a transformer, and its head, trained by back-propagation.

The frozen layers below run once a text (``fedpref.models.split``); a step costs the trainable layers only.

Source: Hu et al. 2021, arXiv:2106.09685 (LoRA); Sun et al. 2024, arXiv:2403.12313 (frozen A).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from fedpref.errors import ConfigurationError
from fedpref.models.backbone import Backbone
from fedpref.models.kept import kept
from fedpref.models.lora import Lora, LoraModel, lora_model
from fedpref.models.lora_cohort import Course, train_together
from fedpref.models.lora_steps import take_steps
from fedpref.models.text import join, require_text
from fedpref.models.transformer import Checkpoint
from fedpref.objectives.batches import batch_size, batches
from fedpref.objectives.least_work import LeastWork
from fedpref.objectives.local import num_steps, reported_loss, require, require_progress, steps_and_mu
from fedpref.objectives.margin import bradley_terry_loss
from fedpref.objectives.optimizers import copies_held
from fedpref.types import ClientState, Pairs, Reply, Shard, Task, Weights, Workload

__all__ = ["LoraReward", "TransformerBackbone"]


class TransformerBackbone(Backbone, Protocol):
    """A backbone that is a transformer, so that LoRA can sit inside it."""

    @property
    def checkpoint(self) -> Checkpoint:
        """The transformer."""
        ...


@dataclass(frozen=True)
class LoraReward:
    """Trains LoRA's A and B and the head; keeps nothing between tasks.

    Weights have the keys of PEFT's state dict. A task's settings may give ``local_steps`` and
    ``proximal_mu``. The optimiser is AdamW without decay, betas 0.9 and 0.95, afresh in every task.

    Attributes:
        backbone: a transformer: ``MiniLM`` or ``HuggingFace``.
        rank: inner dimension of BA.
        alpha: BA is scaled by alpha / rank.
        dropout: on the input of A while training.
        target_modules: names of linear layers; empty means PEFT's choice for the architecture.
        last_layers: how many layers, from the top, have LoRA.
        local_steps: optimiser steps a task.
        batch_pairs: pairs a step; None means the whole shard.
        lr: step size.
        head_std: standard deviation of the head's initial weights.
        freeze_a: train B and the head only; then averaging B is averaging BA, exactly.
        use_cache: keep the activations that enter the first trainable layer; False runs every layer.

    Raises:
        ConfigurationError: a value out of range, or a backbone that is no transformer.
    """

    backbone: TransformerBackbone
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ()
    last_layers: int = 2
    local_steps: int = 30
    batch_pairs: int | None = 16
    lr: float = 1e-3
    head_std: float = 0.02
    freeze_a: bool = False
    use_cache: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "target_modules", tuple(self.target_modules))  # a list, when from YAML
        require(self.rank >= 1, "rank", self.rank, "at least 1")
        require(self.alpha > 0, "alpha", self.alpha, "positive")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")
        require(self.last_layers >= 1, "last_layers", self.last_layers, "at least 1")
        require(self.local_steps >= 0, "local_steps", self.local_steps, "at least 0")
        require(
            self.batch_pairs is None or self.batch_pairs >= 1, "batch_pairs", self.batch_pairs, "at least 1"
        )
        require(math.isfinite(self.lr) and self.lr > 0, "lr", self.lr, "positive and finite")
        require(self.head_std >= 0, "head_std", self.head_std, "at least 0")
        if not hasattr(type(self.backbone), "checkpoint"):
            raise ConfigurationError(
                f"client: lora_reward trains inside a transformer, not in {type(self.backbone).__name__}; "
                "use backbone=minilm or backbone=hf, or client=lora_head"
            )

    @property
    def lora(self) -> Lora:
        """Where the low-rank weights sit."""
        return Lora(self.rank, self.alpha, self.dropout, self.target_modules, self.last_layers)

    def fresh(self, rng: np.random.Generator) -> Weights:
        """Initial weights, float32: A uniform, B zero, the head Gaussian."""
        return self._model().fresh(rng, self.head_std)

    def warm(self, populations: Sequence[Pairs]) -> None:
        """Compute and keep the activations of all these pairs, so that no worker has to."""
        texts = [text for pairs in populations for side in _sides(pairs) for text in side]
        if self.use_cache:
            self._model().warm(texts)

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        """Margin of each pair, shape (num_pairs,), float64."""
        model = self._model()
        model.load(weights)
        return self._margins(model, pairs)

    def export(self, weights: Weights, folder: Path) -> None:
        """Write a PEFT adapter that loads without fedpref; see ``fedpref.models.export``."""
        from fedpref.models.export import export_adapter

        export_adapter(folder, self.backbone.checkpoint, self.lora, weights)

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        """Train on the shard.

        Metrics: ``loss_before`` and ``loss_after`` on the whole shard (before: at the received weights),
        ``steps_done``, ``skipped_steps`` (a gradient was not finite), ``flops`` (of all that ran: skipped
        steps, both losses and padding too).

        Raises:
            ConfigurationError: another kind of task, weights that do not fit, or pairs without text.
            FederationError: every step was skipped.
        """
        if task.kind != "train":
            raise ConfigurationError(f"client: lora_reward cannot answer a task of kind '{task.kind}'")
        num_pairs = len(shard.pairs)
        if num_pairs == 0:
            return Reply(dict(task.weights), 0, {}), state
        steps, mu = steps_and_mu(task.settings, self.local_steps, self.lr)
        drawn = batches(num_pairs, self.batch_pairs, steps, rng)
        return self._trained_alone(task.weights, shard.pairs, drawn, steps, mu, rng), state

    def answer_cohort(
        self,
        tasks: Sequence[Task],
        shards: Sequence[Shard],
        states: Sequence[ClientState],
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[tuple[Reply, ClientState]]:
        """As ``answer`` for each: rows of several clients run in one pass.

        One by one with dropout, whose draws are a client's own, and where a model does not keep rows apart.
        """
        replies, courses = dict[int, Reply](), dict[int, Course]()
        for i, (task, shard, state, rng) in enumerate(zip(tasks, shards, states, rngs, strict=True)):
            if task.kind != "train" or len(shard.pairs) == 0 or self.dropout > 0:
                replies[i], _ = self.answer(task, shard, state, rng)
                continue
            steps, mu = steps_and_mu(task.settings, self.local_steps, self.lr)
            drawn = list(batches(len(shard.pairs), self.batch_pairs, steps, rng))
            texts = list(zip(*_sides(shard.pairs), strict=True))
            courses[i] = Course(task.weights, texts, drawn, np.arange(len(texts)), mu)
        model = self._model()
        found = train_together(
            model,
            list(courses.values()),
            model.reward_of,
            lambda rewards: bradley_terry_loss(rewards[:, 0] - rewards[:, 1]),
            lr=self.lr,
            freeze_a=self.freeze_a,
            use_cache=self.use_cache,
        )
        for (i, course), ended in zip(courses.items(), found, strict=True):
            steps, pairs = len(course.batches), shards[i].pairs
            if ended is None:
                replies[i] = self._trained_alone(
                    course.weights, pairs, course.batches, steps, course.mu, rngs[i]
                )
                continue
            read = [[text for row in rows for text in course.texts[row]] for rows in course.batches]
            flops = sum(model.flops(texts, self.use_cache) for texts in read)
            before, after = (rewards[:, 0] - rewards[:, 1] for rewards in (ended.before, ended.after))
            replies[i] = self._reply(ended.weights, pairs, before, after, steps, ended.skipped, flops)
        return [(replies[i], state) for i, state in enumerate(states)]

    def train_part(
        self, weights: Weights, pairs: Pairs, part: str, steps: int, mu: float, rng: np.random.Generator
    ) -> Weights:
        """The weights after steps on the keys that contain ``part``; the others stay as they are."""
        model = self._model()
        model.load(weights)
        self._train(model, pairs, batches(len(pairs), self.batch_pairs, steps, rng), mu, rng, part)
        trained = model.weights()
        return {key: trained[key] if part in key else array for key, array in weights.items()}

    def workload(self, task: Task, shard: Shard) -> Workload:
        """Operations at least, counted from texts and the model's matrices; exact if a batch is the shard.

        A bound, since the batches are not drawn yet: texts count without padding, and those of a last epoch
        as if they were the shortest. Frozen layers whose results are kept take nothing. Memory: the model's
        parameters; for each trained one its gradient, two moments and the received value; the kept
        activations of the shard; and those of a batch of its longest texts on the way back. A task that is
        refused is no work.
        """
        if task.kind != "train" or len(shard.pairs) == 0:
            return Workload(0.0, 0.0)
        steps = num_steps(task.settings, self.local_steps)
        least, scoring, memory = kept(shard.pairs, ("work", self), lambda: self._work(shard.pairs))
        return Workload(float(least.flops(self.batch_pairs, steps) + 2 * scoring), float(memory))

    def _work(self, pairs: Pairs) -> tuple[LeastWork, int, int]:
        """Least training, one measurement of the loss, and bytes."""
        model, sides, size = self._model(), _sides(pairs), batch_size(len(pairs), self.batch_pairs)
        texts = [text for side in sides for text in side]
        whole = model.flops(texts, self.use_cache) if size == len(pairs) else None
        least = model.least_work(list(zip(*sides, strict=True)), self.use_cache, whole)
        memory = model.memory_bytes(texts, self.use_cache, copies_held("adamw"))
        return least, self._scoring_flops(model, pairs), memory + model.activation_bytes(texts, 2 * size)

    def _scoring_flops(self, model: LoraModel, pairs: Pairs) -> int:
        texts = [text for side in _sides(pairs) for text in side]
        return model.flops(texts, self.use_cache, backward=False)

    def _train(
        self,
        model: LoraModel,
        pairs: Pairs,
        drawn: Iterable[np.ndarray],
        mu: float,
        rng: np.random.Generator,
        part: str = "",
    ) -> tuple[int, int]:
        """Change ``model`` by local steps; returns skipped steps and operations."""
        chosen, rejected = _sides(pairs)

        def backward(rows: np.ndarray) -> int:
            texts = [chosen[row] for row in rows] + [rejected[row] for row in rows]
            rewards = model.rewards(texts, self.use_cache)
            loss = bradley_terry_loss(rewards[: len(rows)] - rewards[len(rows) :])
            loss.backward()  # type: ignore[no-untyped-call]
            return model.flops(texts, self.use_cache)

        return take_steps(
            model,
            drawn,
            backward,
            rng,
            lr=self.lr,
            mu=mu,
            freeze_a=self.freeze_a,
            part=part,
            dropout=self.dropout,
        )

    def _trained_alone(
        self,
        weights: Weights,
        pairs: Pairs,
        drawn: Iterable[np.ndarray],
        steps: int,
        mu: float,
        rng: np.random.Generator,
    ) -> Reply:
        model = self._model()
        model.load(weights)
        before = self._margins(model, pairs)
        skipped, flops = self._train(model, pairs, drawn, mu, rng)
        after = self._margins(model, pairs)
        return self._reply(model.weights(), pairs, before, after, steps, skipped, flops)

    def _reply(
        self,
        weights: Weights,
        pairs: Pairs,
        before: np.ndarray,
        after: np.ndarray,
        steps: int,
        skipped: int,
        flops: int,
    ) -> Reply:
        """The answer; margins of all pairs before and after the steps, and the operations of these."""
        require_progress(steps, skipped)
        metrics = {
            **reported_loss("loss_before", before),
            **reported_loss("loss_after", after),
            "steps_done": float(steps - skipped),
            "skipped_steps": float(skipped),
            "flops": float(flops + 2 * self._scoring_flops(self._model(), pairs)),
        }
        return Reply(weights, len(pairs), metrics)

    def _margins(self, model: LoraModel, pairs: Pairs) -> np.ndarray:
        if len(pairs) == 0:
            return np.empty(0)
        chosen, rejected = _sides(pairs)
        with torch.no_grad():
            rewards = model.rewards([*chosen, *rejected], self.use_cache).double().cpu().numpy()
        margins: np.ndarray = rewards[: len(pairs)] - rewards[len(pairs) :]
        return margins

    def _model(self) -> LoraModel:
        return lora_model(self.backbone.checkpoint, self.lora)


def _sides(pairs: Pairs) -> tuple[Sequence[str], Sequence[str]]:
    """Chosen and rejected texts with their prompts."""
    chosen = require_text("lora_reward", pairs.chosen)
    rejected = require_text("lora_reward", pairs.rejected)
    return (
        [join(prompt, text) for prompt, text in zip(pairs.prompts, chosen, strict=True)],
        [join(prompt, text) for prompt, text in zip(pairs.prompts, rejected, strict=True)],
    )
