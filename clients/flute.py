"""A linear reward of low rank: a shared representation and a head of one's own, both sent to the server.

The margin of a pair is ``z . B w`` with z = psi(chosen) - psi(rejected). FLUTE moves both factors from the
same point; with steps on the head first, and then on the representation, the steps are those of FedRep.

Source: Liu et al. 2024 (FLUTE), arXiv:2406.04596, the linear variant with the Bradley-Terry loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.models.backbone import Backbone
from fedpref.models.head_file import write_head
from fedpref.models.kept import feature_differences
from fedpref.objectives.batches import batch_size, epochs_and_rest
from fedpref.objectives.empty_shards import parted
from fedpref.objectives.local import reported_loss, require, require_progress, steps_and_mu
from fedpref.objectives.low_rank import (
    Factors,
    Phase,
    all_drawn,
    descended,
    descent_flops,
    drawn,
    followed,
    phases_within,
)
from fedpref.objectives.low_rank_cohort import Member, Trained, trained
from fedpref.types import ClientState, Pairs, Reply, Shard, Task, Weights, Workload

__all__ = ["Flute"]

_REPRESENTATION, _HEAD = "representation.weight", "head.weight"


@dataclass(frozen=True)
class Flute:
    """Trains ``representation.weight`` (H, k) and ``head.weight`` (1, k) on frozen features; keeps nothing.

    Both leave the client: the server of strategy=flute stores and edits the heads, which tell it what the
    client likes along the k shared directions. Where a client is served, its head first takes
    ``final_steps`` on all its pairs at home; a newcomer's starts from the head that the server gives.

    A task's settings may give ``local_steps``, which cut the phases or prolong the last one, and
    ``proximal_mu``, which holds the representation. The work is done in float64 and sent in float32.

    Attributes:
        backbone: gives the features.
        rank: k, the number of shared directions; at most the dimension of the features.
        head_steps: first phase: gradient steps on the head.
        representation_steps: second phase: steps on the representation.
        joint_steps: third phase: simultaneous steps on both.
        final_steps: steps on the head alone before it serves; they are never sent.
        batch_pairs: pairs a step; None means the whole shard.
        lr: step size of both factors.
        l2: ridge penalty ``l2/2 |w|^2`` on the head; it holds both factors where the server balances them.
        init_std: standard deviation of the initial representation; the head starts at zero.

    Raises:
        ConfigurationError: a value out of range.
    """

    backbone: Backbone
    rank: int = 4
    head_steps: int = 0
    representation_steps: int = 0
    joint_steps: int = 10
    final_steps: int = 10
    batch_pairs: int | None = None
    lr: float = 0.3
    l2: float = 0.1
    init_std: float = 0.1

    def __post_init__(self) -> None:
        require(self.rank >= 1, "rank", self.rank, "at least 1")
        for name in ("head_steps", "representation_steps", "joint_steps", "final_steps"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        require(
            self.batch_pairs is None or self.batch_pairs >= 1, "batch_pairs", self.batch_pairs, "at least 1"
        )
        require(math.isfinite(self.lr) and self.lr > 0, "lr", self.lr, "positive and finite")
        require(self.l2 >= 0, "l2", self.l2, "at least 0")
        require(self.init_std > 0, "init_std", self.init_std, "above 0: two zero factors have no gradient")

    @property
    def phases(self) -> list[Phase]:
        """Which steps a task takes."""
        return [
            Phase(self.head_steps, "head"),
            Phase(self.representation_steps, "representation"),
            Phase(self.joint_steps, "both"),
        ]

    def fresh(self, rng: np.random.Generator) -> Weights:
        """Initial weights, float32: a random representation and a head of zeros.

        Raises:
            ConfigurationError: the rank is above the dimension of the features.
        """
        dim = self.backbone.dim
        require(self.rank <= dim, "rank", self.rank, f"at most {dim}, the dimension of the features")
        representation = self.init_std * rng.standard_normal((dim, self.rank))
        return {
            _REPRESENTATION: representation.astype(np.float32),
            _HEAD: np.zeros((1, self.rank), np.float32),
        }

    def warm(self, populations: Sequence[Pairs]) -> None:
        """Compute and keep the features of all these pairs, so that no worker has to."""
        for pairs in populations:
            feature_differences(self.backbone, pairs)

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        """Margin of each pair, shape (num_pairs,), float64."""
        margins = feature_differences(self.backbone, pairs) @ self._factors(weights).vector
        return np.asarray(margins)

    def export(self, weights: Weights, folder: Path) -> None:
        """Write the linear head ``B w`` as ``score.weight`` (1, H), with the identity of its features."""
        vector = self._factors(weights).vector.astype(np.float32)
        write_head(folder, {"score.weight": vector[None]}, self.backbone)

    def span(self, weights: Weights) -> np.ndarray:
        """The representation: all heads lie in its span, shape (H, k)."""
        return weights[_REPRESENTATION]

    def personalise(self, weights: Weights, shard: Shard | None, state: ClientState) -> Weights:
        """The weights, the head after ``final_steps`` on the client's pairs; as they are without pairs."""
        if shard is None or len(shard.pairs) == 0 or self.final_steps == 0:
            return weights
        differences = feature_differences(self.backbone, shard.pairs)
        phases = [Phase(self.final_steps, "head")]
        no_draws = np.random.default_rng(0)  # whole shards are in their own order
        found = descended(self._factors(weights), differences, phases, None, self.lr, self.l2, 0.0, no_draws)
        return {**weights, _HEAD: found.factors.head.astype(np.float32)[None]}

    def personalise_cohort(
        self, weights: Sequence[Weights], shards: Sequence[Shard | None], states: Sequence[ClientState]
    ) -> Sequence[Weights]:
        """As ``personalise`` for each: all take their steps together."""
        served = list(weights)
        if self.final_steps == 0:
            return served
        phases, no_draws = [Phase(self.final_steps, "head")], np.random.default_rng(0)
        members: dict[int, Member] = {}
        for i, shard in enumerate(shards):
            if shard is not None and len(shard.pairs):
                differences = feature_differences(self.backbone, shard.pairs)
                steps = all_drawn(len(differences), phases, None, no_draws)
                members[i] = Member(self._factors(weights[i]), differences, steps, mu=0.0)
        found = trained(list(members.values()), self.lr, self.l2)
        for i, result in zip(members, found, strict=True):
            served[i] = {**weights[i], _HEAD: result.descent.factors.head.astype(np.float32)[None]}
        return served

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        """Train both factors on the shard.

        Metrics: ``loss_before`` and ``loss_after`` on all training pairs, ``steps_done``, ``skipped_steps``
        (their gradient was not finite) and ``flops`` (what ``workload`` says, exactly).

        Raises:
            ConfigurationError: another kind of task, or weights that do not fit.
            FederationError: every step was skipped.
        """
        self._check(task)
        if len(shard.pairs) == 0:
            return Reply(dict(task.weights), 0, {}), state
        work = self._work(task, shard)
        steps = drawn(len(work.differences), work.phases, self.batch_pairs, rng)
        found = followed(work.factors, work.differences, steps, self.lr, self.l2, work.mu)
        losses = {
            **reported_loss("loss_before", work.differences @ work.factors.vector),
            **reported_loss("loss_after", work.differences @ found.factors.vector),
        }
        return self._reply(work, Trained(found, losses)), state

    def answer_cohort(
        self,
        tasks: Sequence[Task],
        shards: Sequence[Shard],
        states: Sequence[ClientState],
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[tuple[Reply, ClientState]]:
        """As ``answer`` for each: all take their steps together."""
        replies, works = parted(tasks, shards, self._check, self._work)
        members = []
        for i, work in works.items():
            steps = all_drawn(len(work.differences), work.phases, self.batch_pairs, rngs[i])
            members.append(Member(work.factors, work.differences, steps, work.mu))
        for (i, work), result in zip(works.items(), trained(members, self.lr, self.l2), strict=True):
            replies[i] = self._reply(work, result)
        return [(replies[i], state) for i, state in enumerate(states)]

    def workload(self, task: Task, shard: Shard) -> Workload:
        """Operations of the factors; features are taken as kept. A task that is refused is no work.

        Memory, float64: the features of the shard and of a batch, and of both factors what was received, what
        they are now, their gradients and the new ones.
        """
        num_pairs = len(shard.pairs)
        if task.kind != "train" or num_pairs == 0:
            return Workload(0.0, 0.0)
        dim = self.backbone.dim
        phases = [phase.steps for phase in phases_within(task.settings, self.phases)]
        cuts = [epochs_and_rest(num_pairs, self.batch_pairs, steps) for steps in phases]
        seen_pairs = sum(epochs * num_pairs + rest for epochs, rest in cuts)
        rows = num_pairs + batch_size(num_pairs, self.batch_pairs)
        memory = 8.0 * (dim * rows + 4 * (dim + 1) * self.rank)
        return Workload(descent_flops(dim, self.rank, seen_pairs, num_pairs, sum(phases)), memory)

    def _factors(self, weights: Weights) -> Factors:
        shapes = {key: array.shape for key, array in weights.items()}
        expected = {_REPRESENTATION: (self.backbone.dim, self.rank), _HEAD: (1, self.rank)}
        if shapes != expected:
            raise ConfigurationError(f"client: weights of shapes {expected} are needed, got {shapes}")
        return Factors(weights[_REPRESENTATION].astype(np.float64), weights[_HEAD][0].astype(np.float64))

    def _check(self, task: Task) -> None:
        if task.kind != "train":
            raise ConfigurationError(f"client: this rule cannot answer a task of kind '{task.kind}'")

    def _work(self, task: Task, shard: Shard) -> _Work:
        phases = phases_within(task.settings, self.phases)
        _, mu = steps_and_mu(task.settings, sum(phase.steps for phase in phases), self.lr)
        return _Work(self._factors(task.weights), feature_differences(self.backbone, shard.pairs), phases, mu)

    def _reply(self, work: _Work, result: Trained) -> Reply:
        factors, skipped, seen_pairs = result.descent
        num_pairs, steps = len(work.differences), sum(phase.steps for phase in work.phases)
        require_progress(steps, skipped)
        metrics = {
            **result.losses,
            "steps_done": float(steps - skipped),
            "skipped_steps": float(skipped),
            "flops": descent_flops(self.backbone.dim, self.rank, seen_pairs, num_pairs, steps),
        }
        weights = {
            _REPRESENTATION: factors.representation.astype(np.float32),
            _HEAD: factors.head.astype(np.float32)[None],
        }
        return Reply(weights, num_pairs, metrics)


class _Work(NamedTuple):
    """A task of training, read: both factors that came, features of the pairs, and which steps to take."""

    factors: Factors
    differences: np.ndarray
    phases: Sequence[Phase]
    mu: float
