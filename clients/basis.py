"""A basis of heads that all share, and weights on it that are fitted at home: what such rules have in common.

Client u has the head ``w_u V``, V (B, H). In a task it fits w_u with V fixed, and then takes gradient steps
on V with w_u fixed: those of FedRep on its representation, V transposed. Weights that were fitted to an older
V are worth nothing: they are fitted again whenever they are needed, and nothing is kept. How they are fitted
is the rule's own affair: ``reward_features``, ``lore``.

Source: Collins et al. 2021 (FedRep), arXiv:2102.07078, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.models.backbone import Backbone
from fedpref.models.head_file import write_head
from fedpref.models.kept import feature_differences
from fedpref.objectives.batches import batch_size, epochs_and_rest
from fedpref.objectives.blocks import once_each
from fedpref.objectives.empty_shards import parted
from fedpref.objectives.local import num_steps, reported_loss, require, require_progress, steps_and_mu
from fedpref.objectives.low_rank import Factors, Phase, all_drawn, descent_flops, drawn, followed
from fedpref.objectives.low_rank_cohort import Member, Trained, trained
from fedpref.types import Pairs, Reply, Shard, Task, Weights, Workload

__all__ = ["BASIS", "MEAN", "Fit", "FitTogether", "FitWeights", "SharedBasis"]

BASIS, MEAN = "basis.weight", "prior.mean"
_HEAD = "score.weight"


class Fit(NamedTuple):
    """A client's weights on the basis.

    Attributes:
        weights: w_u, shape (B,), float64.
        statistics: the client's own values of what the population knows about weights, float64.
        flops: operations that the fit took.
    """

    weights: np.ndarray
    statistics: Weights
    flops: float


FitWeights = Callable[[Weights, np.ndarray], Fit]
"""Fits the weights, given what was received and the margin of each pair under each head, (num_pairs, B)."""

FitTogether = Callable[[Sequence[Weights], Sequence[np.ndarray]], Sequence[Fit]]
"""The same of many clients at once; each has pairs."""


@dataclass(frozen=True)
class SharedBasis:
    """Trains ``basis.weight`` (B, H); a part of a rule, which also shares ``prior.mean`` (B,).

    Attributes:
        backbone: gives the features.
        num_heads: B.
        local_steps: gradient steps a task on the basis.
        batch_pairs: pairs a step; None means the whole shard.
        lr: step size.
        init_std: standard deviation of all initial heads but the first, which is zero.

    Raises:
        ConfigurationError: a value out of range.
    """

    backbone: Backbone
    num_heads: int
    local_steps: int
    batch_pairs: int | None
    lr: float
    init_std: float

    def __post_init__(self) -> None:
        require(self.local_steps >= 0, "local_steps", self.local_steps, "at least 0")
        require(
            self.batch_pairs is None or self.batch_pairs >= 1, "batch_pairs", self.batch_pairs, "at least 1"
        )
        require(math.isfinite(self.lr) and self.lr > 0, "lr", self.lr, "positive and finite")
        require(self.init_std >= 0, "init_std", self.init_std, "at least 0")

    def fresh(self, rng: np.random.Generator) -> Weights:
        """The initial basis, float32: a zero head, and Gaussian ones after it."""
        basis = self.init_std * rng.standard_normal((self.num_heads, self.backbone.dim))
        basis[0] = 0.0
        return {BASIS: basis.astype(np.float32)}

    def warm(self, populations: Sequence[Pairs]) -> None:
        """Compute and keep the features of all these pairs, so that no worker has to."""
        for pairs in populations:
            feature_differences(self.backbone, pairs)

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        """Margin of each pair, shape (num_pairs,), float64: of a client's head, or of the mean weights."""
        if _HEAD in weights:
            head = weights[_HEAD][0].astype(np.float64)
        else:
            head = weights[MEAN].astype(np.float64) @ weights[BASIS].astype(np.float64)
        margins: np.ndarray = feature_differences(self.backbone, pairs) @ head
        return margins

    def export(self, weights: Weights, folder: Path) -> None:
        """Write all of it, with the identity of its features."""
        write_head(folder, weights, self.backbone)

    def span(self, weights: Weights) -> np.ndarray:
        """The heads of the basis as columns: all heads lie in their span, shape (H, B)."""
        return weights[BASIS].T

    def personalise(self, weights: Weights, shard: Shard | None, fit: FitWeights) -> Weights:
        """The client's own head, ``score.weight`` (1, H), float32; that of the mean weights without pairs."""
        basis = weights[BASIS].astype(np.float64)
        if shard is None or len(shard.pairs) == 0:
            own = weights[MEAN].astype(np.float64)
        else:
            own = fit(weights, feature_differences(self.backbone, shard.pairs) @ basis.T).weights
        return {_HEAD: (own @ basis).astype(np.float32)[None]}

    def personalise_cohort(
        self, weights: Sequence[Weights], shards: Sequence[Shard | None], fit: FitTogether
    ) -> list[Weights]:
        """As ``personalise`` for each: weights are fitted together."""
        bases = once_each(weights, lambda model: model[BASIS].astype(np.float64))
        own = [model[MEAN].astype(np.float64) for model in weights]
        pairs = {i: shard.pairs for i, shard in enumerate(shards) if shard is not None and len(shard.pairs)}
        parts = [feature_differences(self.backbone, each) @ bases[i].T for i, each in pairs.items()]
        for i, found in zip(pairs, fit([weights[i] for i in pairs], parts), strict=True):
            own[i] = found.weights
        return [{_HEAD: (w @ basis).astype(np.float32)[None]} for w, basis in zip(own, bases, strict=True)]

    def answer(
        self,
        task: Task,
        shard: Shard,
        statistics: Mapping[str, tuple[int, ...]],
        fit: FitWeights,
        rng: np.random.Generator,
    ) -> Reply:
        """Fit the weights at home, then train the basis; send it with the client's statistics.

        Metrics: ``loss_before`` (the fitted weights on the received basis) and ``loss_after`` on all training
        pairs, ``steps_done``, ``skipped_steps``, ``flops`` (as many as ``workload`` says, or more).

        Args:
            task: what was received; its settings may give ``local_steps`` and ``proximal_mu``.
            shard: the client's pairs.
            statistics: key and shape of all that travels beside the basis.
            fit: gives the weights.
            rng: draws the batches.

        Raises:
            ConfigurationError: another kind of task, or weights that do not fit.
            FederationError: every step was skipped.
        """
        self._check(task, statistics)
        if len(shard.pairs) == 0:
            return Reply(dict(task.weights), 0, {})
        work = self._work(task, shard)
        own = fit(task.weights, work.differences @ work.basis.T)
        factors, num_pairs = Factors(work.basis.T, own.weights), len(work.differences)
        steps = drawn(num_pairs, work.phases, self.batch_pairs, rng)
        found = followed(factors, work.differences, steps, self.lr, 0.0, work.mu)
        losses = {
            **reported_loss("loss_before", work.differences @ factors.vector),
            **reported_loss("loss_after", work.differences @ found.factors.vector),
        }
        return self._reply(work, own, Trained(found, losses))

    def answer_cohort(
        self,
        tasks: Sequence[Task],
        shards: Sequence[Shard],
        statistics: Mapping[str, tuple[int, ...]],
        fit: FitTogether,
        rngs: Sequence[np.random.Generator],
    ) -> list[Reply]:
        """As ``answer`` for each: weights are fitted together, and so is the basis trained.

        Args:
            tasks: one a client.
            shards: the clients' pairs.
            statistics: as of ``answer``.
            fit: gives the weights of all.
            rngs: draw the batches.
        """
        replies, works = parted(tasks, shards, lambda task: self._check(task, statistics), self._work)
        parts = [work.differences @ work.basis.T for work in works.values()]
        fits = fit([tasks[i].weights for i in works], parts)
        members = []
        for (i, work), own in zip(works.items(), fits, strict=True):
            steps = all_drawn(len(work.differences), work.phases, self.batch_pairs, rngs[i])
            members.append(Member(Factors(work.basis.T, own.weights), work.differences, steps, work.mu))
        found = trained(members, self.lr, 0.0)
        for (i, work), own, each in zip(works.items(), fits, found, strict=True):
            replies[i] = self._reply(work, own, each)
        return [replies[i] for i in range(len(tasks))]

    def workload(self, task: Task, shard: Shard, fit_flops: float) -> Workload:
        """Least operations, features taken as kept; a task that is refused is no work.

        Memory, float64: the features of the shard and of a batch, the margins under each head twice, and of
        basis and weights what was received, what they are now, their gradients and the new ones.

        Args:
            task: its settings may give ``local_steps``.
            shard: the client's pairs.
            fit_flops: least operations of the fit.
        """
        num_pairs = len(shard.pairs)
        if task.kind != "train" or num_pairs == 0:
            return Workload(0.0, 0.0)
        steps = num_steps(task.settings, self.local_steps)
        epochs, rest = epochs_and_rest(num_pairs, self.batch_pairs, steps)
        flops = self._flops(epochs * num_pairs + rest, num_pairs, steps) + fit_flops
        dim, rows = self.backbone.dim, num_pairs + batch_size(num_pairs, self.batch_pairs)
        entries = dim * rows + 2 * num_pairs * self.num_heads + 4 * (dim + 1) * self.num_heads
        return Workload(flops, 8.0 * entries)

    def _flops(self, seen_pairs: int, num_pairs: int, steps: int) -> float:
        dim, count = self.backbone.dim, self.num_heads
        return descent_flops(dim, count, seen_pairs, num_pairs, steps) + 2.0 * num_pairs * dim * count

    def _check(self, task: Task, statistics: Mapping[str, tuple[int, ...]]) -> None:
        if task.kind != "train":
            raise ConfigurationError(f"client: this rule cannot answer a task of kind '{task.kind}'")
        found = {key: array.shape for key, array in task.weights.items()}
        needed = {BASIS: (self.num_heads, self.backbone.dim), **statistics}
        if found != needed:
            raise ConfigurationError(f"client: weights of shapes {needed} are needed, got {found}")

    def _work(self, task: Task, shard: Shard) -> _Work:
        steps, mu = steps_and_mu(task.settings, self.local_steps, self.lr)
        differences = feature_differences(self.backbone, shard.pairs)
        phases = [Phase(steps, "representation")]
        return _Work(task.weights[BASIS].astype(np.float64), differences, phases, mu)

    def _reply(self, work: _Work, own: Fit, result: Trained) -> Reply:
        factors, skipped, seen_pairs = result.descent
        num_pairs, steps = len(work.differences), sum(phase.steps for phase in work.phases)
        require_progress(steps, skipped)
        metrics = {
            **result.losses,
            "steps_done": float(steps - skipped),
            "skipped_steps": float(skipped),
            "flops": self._flops(seen_pairs, num_pairs, steps) + own.flops,
        }
        sent = {BASIS: np.ascontiguousarray(factors.representation.T), **own.statistics}
        return Reply({key: array.astype(np.float32) for key, array in sent.items()}, num_pairs, metrics)


class _Work(NamedTuple):
    """A task of training, read: the basis that came, float64, features of the pairs, and which steps."""

    basis: np.ndarray
    differences: np.ndarray
    phases: Sequence[Phase]
    mu: float
