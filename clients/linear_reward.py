"""A linear reward head on frozen features, trained by steps in closed form.

With features psi and z = psi(chosen) - psi(rejected), the margin is w.z and the gradient of the
Bradley-Terry loss is ``-mean pull(w.z) z``: convex, so federated steps can be checked against pooled ones.

Source: Bradley and Terry 1952; the proximal term: Li et al. 2020 (FedProx), arXiv:1812.06127, algorithm 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.models.backbone import Backbone
from fedpref.models.head_file import write_head
from fedpref.models.kept import feature_differences, gram_matrix, narrow_differences
from fedpref.objectives.batches import batch_size, batches, drawn, epochs_and_rest
from fedpref.objectives.grouping import grouping_split
from fedpref.objectives.linear_cohort import Course, Member, cheapest, trained
from fedpref.objectives.local import (
    num_steps,
    reported_loss,
    reported_losses,
    require,
    require_progress,
    steps_and_mu,
)
from fedpref.objectives.margin import bradley_terry_pull
from fedpref.objectives.optimizers import OptimizerName, copies_held, stepper
from fedpref.objectives.scoring import num_models, scored
from fedpref.types import ClientState, Pairs, Reply, Shard, Task, Weights, Workload

__all__ = ["LinearReward"]

_KEY = "score.weight"


@dataclass(frozen=True)
class LinearReward:
    """Trains ``score.weight``, shape (1, H), on frozen features, and scores several; keeps nothing.

    A task's settings may give ``local_steps``, ``proximal_mu``, ``grouping_share`` and ``grouping_seed``, and
    those of a task to score ``num_selectors``, the models that it holds. The work is done in float64 and
    sent in float32. Optimisers start afresh in every task.

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
        """Train on the shard ("train"), or report the losses of several models ("score").

        Metrics of training: ``loss_before`` and ``loss_after`` on all training pairs (before: at the received
        weights), ``steps_done``, ``skipped_steps`` (their gradient was not finite), and with a proximal term
        ``inexactness``, FedProx's gamma: the norm of the local objective's gradient, after over before. Of
        both kinds: ``flops`` (what ``workload`` says, exactly).

        To score, the weights hold model u under keys ``u/…``, and the reply no weights but ``loss_u``, the
        mean loss on the grouping pairs, in nats; one that is not finite is left out. A client with a single
        pair, none of which is held back, draws its losses at random, so that it prefers no group.

        Raises:
            ConfigurationError: another kind of task, weights that do not fit the backbone, or fewer models
                than the settings tell.
            FederationError: every step was skipped.
        """
        work = {"train": self._train, "score": self._score}.get(task.kind)
        if work is None:
            raise ConfigurationError(f"client: linear_reward cannot answer a task of kind '{task.kind}'")
        return work(task, shard, rng), state

    def answer_cohort(
        self,
        tasks: Sequence[Task],
        shards: Sequence[Shard],
        states: Sequence[ClientState],
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[tuple[Reply, ClientState]]:
        """As ``answer`` for each: small shards with plain gradient steps are trained together."""
        found: dict[int, tuple[Reply, ClientState]] = {}
        together: dict[float, dict[int, tuple[_Work, Member]]] = {}
        for i, (task, shard, state, rng) in enumerate(zip(tasks, shards, states, rngs, strict=True)):
            if task.kind != "train" or self.optimizer != "sgd" or len(shard.pairs) == 0:
                found[i] = self.answer(task, shard, state, rng)
                continue
            work = self._work(task, shard)
            course = self._course(work)
            pairs = drawn(len(work.differences), self.batch_pairs, work.steps, rng)
            if not course.stacked:
                found[i] = self._reply(work, *self._descended(work, pairs.batches())), state
                continue
            member = Member(*self._rows(work, course.by_gram), work.received, pairs)
            together.setdefault(work.mu, {})[i] = work, member
        for mu, entries in together.items():
            results = trained([member for _, member in entries.values()], self.lr, self.l2, mu)
            before = reported_losses("loss_before", [result.margins_before for result in results])
            after = reported_losses("loss_after", [result.margins_after for result in results])
            for place, (i, (work, member)) in enumerate(entries.items()):
                head = results[place].head
                if np.isfinite(head).all():
                    reply = self._reply(work, head, 0, {**before[place], **after[place]})
                else:  # some step is to be skipped
                    reply = self._reply(work, *self._descended(work, member.drawn.batches()))
                found[i] = reply, states[i]
        return [found[i] for i in range(len(tasks))]

    def _train(self, task: Task, shard: Shard, rng: np.random.Generator) -> Reply:
        if len(shard.pairs) == 0:
            return Reply(dict(task.weights), 0, {})
        work = self._work(task, shard)
        steps = batches(len(work.differences), self.batch_pairs, work.steps, rng)
        return self._reply(work, *self._descended(work, steps))

    def _work(self, task: Task, shard: Shard) -> _Work:
        received = self._vector(task.weights)
        differences, rows = feature_differences(self.backbone, shard.pairs), None
        if task.settings.get("grouping_share"):
            rows = grouping_split(shard, task.settings).train
            differences = differences[rows]
        steps, mu = steps_and_mu(task.settings, self.local_steps, self.lr)
        return _Work(task, shard, received, differences, rows, steps, mu)

    def _descended(self, work: _Work, steps: Iterable[np.ndarray]) -> tuple[np.ndarray, int]:
        """The head after the steps, and how many of them were skipped."""
        vector, step, skipped = work.received.copy(), stepper(self.optimizer, self.lr), 0
        for rows in steps:
            gradient = _gradient(vector, work.differences[rows], self.l2, work.received, work.mu)
            if not np.isfinite(gradient).all():
                skipped += 1
                continue
            vector = vector + step(gradient)
        return vector, skipped

    def _course(self, work: _Work) -> Course:
        num_pairs = len(work.differences)
        return cheapest(num_pairs, self.backbone.dim, batch_size(num_pairs, self.batch_pairs), work.steps)

    def _rows(self, work: _Work, by_gram: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """The differences of the pairs to train on and, if steps go by it, their Gram matrix."""
        if not by_gram:
            return work.differences, None
        pairs = work.shard.pairs
        differences, gram = narrow_differences(self.backbone, pairs), gram_matrix(self.backbone, pairs)
        if work.rows is None:
            return differences, gram
        return differences[work.rows], gram[np.ix_(work.rows, work.rows)]

    def _reply(
        self, work: _Work, vector: np.ndarray, skipped: int, losses: Mapping[str, float] | None = None
    ) -> Reply:
        """The answer; losses of all training pairs before and after the steps, where they are known."""
        require_progress(work.steps, skipped)
        differences, received = work.differences, work.received
        if losses is None:
            before = reported_loss("loss_before", differences @ received)
            losses = {**before, **reported_loss("loss_after", differences @ vector)}
        epochs, rest = epochs_and_rest(len(differences), self.batch_pairs, work.steps)
        seen_pairs = epochs * len(differences) + rest
        metrics = {
            **losses,
            "steps_done": float(work.steps - skipped),
            "skipped_steps": float(skipped),
            # Two products of (pairs, H), two operations an entry; the two losses add one product each.
            "flops": 4.0 * differences.shape[1] * (seen_pairs + len(differences)),
        }
        if work.mu > 0:
            start = np.linalg.norm(_gradient(received, differences, self.l2, received, 0.0))
            end = np.linalg.norm(_gradient(vector, differences, self.l2, received, work.mu))
            if start > 0 and np.isfinite(end):
                metrics["inexactness"] = float(end / start)
        return Reply({_KEY: vector.astype(np.float32)[None]}, len(work.shard.pairs), metrics)

    def _score(self, task: Task, shard: Shard, rng: np.random.Generator) -> Reply:
        def margins(weights: Weights, rows: np.ndarray) -> np.ndarray:
            found: np.ndarray = feature_differences(self.backbone, shard.pairs)[rows] @ self._vector(weights)
            return found

        return scored(task, shard, rng, margins, lambda rows: 2.0 * len(rows) * self.backbone.dim)

    def workload(self, task: Task, shard: Shard) -> Workload:
        """Operations of the head; features are taken as kept. A task that is refused is no work.

        A pair of a batch takes two products of length H, two operations an entry, whether or not its step
        is skipped in the end; a loss takes one product a pair: those before and after, or those of the
        ``num_selectors`` models to score (one, if the settings do not tell). The inexactness is a
        measurement for the log, off the clock. Memory, float64: the features of the shard and of a batch,
        the heads and what the steps hold.
        """
        dim = self.backbone.dim
        if task.kind not in ("train", "score") or len(shard.pairs) == 0:
            return Workload(0.0, 0.0)
        split = grouping_split(shard, task.settings)
        if task.kind == "score":
            asked = num_models(task.settings)
            num_scored = 0 if split.grouping is None else len(split.grouping)
            return Workload(2.0 * dim * num_scored * asked, 8.0 * dim * (num_scored + asked))
        num_pairs = len(split.train)
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


class _Work(NamedTuple):
    """A task of training, read: the head that came, the features of the training pairs, and the steps."""

    task: Task
    shard: Shard
    received: np.ndarray
    differences: np.ndarray
    rows: np.ndarray | None
    steps: int
    mu: float


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
