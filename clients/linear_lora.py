"""A linear reward head with a low-rank change, in NumPy: LoRA in its smallest form, on frozen features.

The head is a column of length H, so its change is ``s B A`` with B (H, r) and A (r, 1): the margin of a pair
is ``z . (w + s B A)``. For one client that is no more than w alone can do; it is what ``p_sharelora`` shares
and splits, and this rule trains all of it, for a start to copy from. In the other orientation, of a layer
with one output, a personal A would be a whole head, and the rank would bound nothing.

Source: Hu et al. 2021, arXiv:2106.09685.
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
from fedpref.models.kept import feature_differences
from fedpref.objectives.batches import batch_size, batches, drawn, epochs_and_rest
from fedpref.objectives.blocks import all_finite, stacks
from fedpref.objectives.empty_shards import parted
from fedpref.objectives.local import num_steps, reported_loss, require, require_progress, steps_and_mu
from fedpref.objectives.low_rank_change_cohort import Member, changed_together
from fedpref.objectives.margin import bradley_terry_pull
from fedpref.types import ClientState, Pairs, Reply, Shard, Task, Weights, Workload

__all__ = ["LinearLora"]

_HEAD, _A, _B = "score.weight", "score.lora_A.weight", "score.lora_B.weight"


@dataclass(frozen=True)
class LinearLora:
    """Trains ``score.weight`` (1, H), ``score.lora_B.weight`` (H, r) and ``score.lora_A.weight`` (r, 1).

    A task's settings may give ``local_steps`` and ``proximal_mu``. Steps are plain gradient steps in
    float64; what travels is float32.

    Attributes:
        backbone: gives the features.
        rank: inner dimension r of BA.
        alpha: BA is scaled by alpha / rank.
        local_steps: gradient steps a task.
        batch_pairs: pairs a step; None means the whole shard.
        lr: step size.
        head_std: standard deviation of the head's initial weights.

    Raises:
        ConfigurationError: a value out of range, or a rank above the feature dimension.
    """

    backbone: Backbone
    rank: int = 8
    alpha: int = 8
    local_steps: int = 30
    batch_pairs: int | None = 16
    lr: float = 0.1
    head_std: float = 0.0

    def __post_init__(self) -> None:
        dim = self.backbone.dim
        require(1 <= self.rank <= dim, "rank", self.rank, f"from 1 to {dim}, the features' dimension")
        require(self.alpha > 0, "alpha", self.alpha, "positive")
        require(self.local_steps >= 0, "local_steps", self.local_steps, "at least 0")
        require(
            self.batch_pairs is None or self.batch_pairs >= 1, "batch_pairs", self.batch_pairs, "at least 1"
        )
        require(math.isfinite(self.lr) and self.lr > 0, "lr", self.lr, "positive and finite")
        require(self.head_std >= 0, "head_std", self.head_std, "at least 0")

    def fresh(self, rng: np.random.Generator) -> Weights:
        """Initial weights, float32: A uniform as in PEFT, B zero, the head Gaussian."""
        shapes = self._shapes
        bound = 1 / math.sqrt(shapes[_A][1])
        weights = {
            _HEAD: self.head_std * rng.standard_normal(shapes[_HEAD]),
            _A: rng.uniform(-bound, bound, shapes[_A]),
            _B: np.zeros(shapes[_B]),
        }
        return {key: array.astype(np.float32) for key, array in weights.items()}

    def warm(self, populations: Sequence[Pairs]) -> None:
        """Compute and keep the features of all these pairs, so that no worker has to."""
        for pairs in populations:
            feature_differences(self.backbone, pairs)

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        """Margin of each pair, shape (num_pairs,), float64."""
        return self._margins(self._double(weights), feature_differences(self.backbone, pairs))

    def export(self, weights: Weights, folder: Path) -> None:
        """Write ``head.safetensors`` and, in ``fedpref.json``, the identity of the features it is for."""
        write_head(folder, weights, self.backbone)

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
        self._check(task)
        if len(shard.pairs) == 0:
            return Reply(dict(task.weights), 0, {}), state
        work = self._work(task, shard)
        steps = batches(len(shard.pairs), self.batch_pairs, work.steps, rng)
        return self._reply(task, shard, work, self._trained(work, steps)), state

    def answer_cohort(
        self,
        tasks: Sequence[Task],
        shards: Sequence[Shard],
        states: Sequence[ClientState],
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[tuple[Reply, ClientState]]:
        """As ``answer`` for each: all take their steps together."""
        replies, works = parted(tasks, shards, self._check, self._work)
        for i, found in self._trained_together(works, rngs).items():
            replies[i] = self._reply(tasks[i], shards[i], works[i], found)
        return [(replies[i], state) for i, state in enumerate(states)]

    def train_part(
        self, weights: Weights, pairs: Pairs, part: str, steps: int, mu: float, rng: np.random.Generator
    ) -> Weights:
        """The weights after steps on the keys that contain ``part``; the others stay as they are."""
        drawn_rows = batches(len(pairs), self.batch_pairs, steps, rng)
        found = self._trained(self._read(weights, pairs, steps, mu), drawn_rows, part)
        return _replaced(weights, found, part)

    def train_parts(
        self,
        weights: Sequence[Weights],
        pairs: Sequence[Pairs],
        part: str,
        steps: Sequence[int],
        mu: Sequence[float],
        rngs: Sequence[np.random.Generator],
    ) -> list[Weights]:
        """As ``train_part`` for each of many clients: all take their steps together."""
        works = dict(enumerate(map(self._read, weights, pairs, steps, mu)))
        found = self._trained_together(works, rngs, part)
        return [_replaced(own, found[i], part) for i, own in enumerate(weights)]

    def workload(self, task: Task, shard: Shard) -> Workload:
        """Operations of the head; features are taken as kept. A task that is refused is no work.

        A pair of a batch takes two products of length H, and the losses before and after one each; a batch
        takes two products with the matrix B, and three updates of it. Two operations an entry.
        """
        num_pairs, dim = len(shard.pairs), self.backbone.dim
        if task.kind != "train" or num_pairs == 0:
            return Workload(0.0, 0.0)
        steps = num_steps(task.settings, self.local_steps)
        epochs, rest = epochs_and_rest(num_pairs, self.batch_pairs, steps)
        of_pairs = 4.0 * dim * (epochs * num_pairs + rest + num_pairs)
        rows = num_pairs + batch_size(num_pairs, self.batch_pairs)
        return Workload(of_pairs + 10.0 * dim * self.rank * steps, 8.0 * dim * (rows + 3 * (self.rank + 1)))

    def _check(self, task: Task) -> None:
        if task.kind != "train":
            raise ConfigurationError(f"client: linear_lora cannot answer a task of kind '{task.kind}'")

    def _work(self, task: Task, shard: Shard) -> _Work:
        steps, mu = steps_and_mu(task.settings, self.local_steps, self.lr)
        return self._read(task.weights, shard.pairs, steps, mu)

    def _read(self, weights: Weights, pairs: Pairs, steps: int, mu: float) -> _Work:
        return _Work(self._double(weights), feature_differences(self.backbone, pairs), steps, mu)

    def _trained(self, work: _Work, steps: Iterable[np.ndarray], part: str = "") -> _Trained:
        """What steps on the keys that contain ``part`` lead to, one by one, given the rows of each."""
        weights, skipped = self._steps(work, steps, part)
        losses = {
            **reported_loss("loss_before", self._margins(work.received, work.differences)),
            **reported_loss("loss_after", self._margins(weights, work.differences)),
        }
        return _Trained(weights, losses, skipped)

    def _trained_together(
        self, works: Mapping[int, _Work], rngs: Sequence[np.random.Generator], part: str = ""
    ) -> dict[int, _Trained]:
        """As ``_trained`` for each, all together; ``rngs[i]`` draws the steps of ``works[i]``."""
        trained: dict[int, _Trained] = {}
        most_steps = max((work.steps for work in works.values()), default=0)
        moves = part in _HEAD, part in _A, part in _B
        for stack in stacks({i: work.differences for i, work in works.items()}, most_steps):
            members = []
            for i in stack:
                received, differences, steps, mu = works[i]
                pairs = drawn(len(differences), self.batch_pairs, steps, rngs[i])
                vectors = received[_HEAD][0], received[_A][:, 0], received[_B]
                members.append(Member(*vectors, differences, pairs, mu))
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found below
                found = changed_together(members, self.alpha / self.rank, self.lr, moves)
            results = zip(stack, members, all_finite(*found), *found, strict=True)
            for i, member, is_finite, head, a, b, losses in results:
                if is_finite:
                    weights = {_HEAD: head[None], _A: a[:, None], _B: b}
                    before, after = losses.tolist()
                    trained[i] = _Trained(weights, {"loss_before": before, "loss_after": after}, 0)
                else:  # some step is to be skipped
                    trained[i] = self._trained(works[i], member.drawn.batches(), part)
        return trained

    def _reply(self, task: Task, shard: Shard, work: _Work, trained: _Trained) -> Reply:
        steps = work.steps
        require_progress(steps, trained.skipped)
        metrics = {
            **trained.losses,
            "steps_done": float(steps - trained.skipped),
            "skipped_steps": float(trained.skipped),
            "flops": self.workload(task, shard).flops,
        }
        return Reply(_single(trained.weights), len(shard.pairs), metrics)

    @property
    def _shapes(self) -> dict[str, tuple[int, int]]:
        dim = self.backbone.dim
        return {_HEAD: (1, dim), _A: (self.rank, 1), _B: (dim, self.rank)}

    def _double(self, weights: Weights) -> Weights:
        found = {key: array.shape for key, array in weights.items()}
        if found != self._shapes:
            raise ConfigurationError(f"client: linear_lora needs weights of {self._shapes}, got {found}")
        return {key: array.astype(np.float64) for key, array in weights.items()}

    def _vector(self, weights: Weights) -> np.ndarray:
        """The head that all of it makes: w + s B A, shape (H,)."""
        vector: np.ndarray = weights[_HEAD][0] + self.alpha / self.rank * (weights[_B] @ weights[_A])[:, 0]
        return vector

    def _margins(self, weights: Weights, differences: np.ndarray) -> np.ndarray:
        margins: np.ndarray = differences @ self._vector(weights)
        return margins

    def _steps(self, work: _Work, steps: Iterable[np.ndarray], part: str) -> tuple[Weights, int]:
        """Weights after the steps, and how many of them were skipped."""
        received, differences, _, mu = work
        scale, weights, skipped = self.alpha / self.rank, dict(received), 0
        for rows in steps:
            z = differences[rows]
            by_vector = -(bradley_terry_pull(z @ self._vector(weights)) @ z) / len(z)
            gradients = {
                _HEAD: by_vector[None],
                _A: scale * (by_vector @ weights[_B])[:, None],
                _B: scale * by_vector[:, None] * weights[_A].T,
            }
            gradients = {key: gradient for key, gradient in gradients.items() if part in key}
            if not all(np.isfinite(gradient).all() for gradient in gradients.values()):
                skipped += 1
                continue
            for key, gradient in gradients.items():
                pull = mu * (weights[key] - received[key]) if mu > 0 else 0.0
                weights[key] = weights[key] - self.lr * (gradient + pull)
        return weights, skipped


class _Work(NamedTuple):
    """A task of training, read: the weights that came, float64, the features of the pairs, and the steps."""

    received: Weights
    differences: np.ndarray
    steps: int
    mu: float


class _Trained(NamedTuple):
    """Weights after the steps, float64, the losses as metrics, and how many steps were skipped."""

    weights: Weights
    losses: Mapping[str, float]
    skipped: int


def _replaced(weights: Weights, trained: _Trained, part: str) -> Weights:
    """The weights with trained values of the keys that contain ``part``."""
    found = _single(trained.weights)
    return {key: found[key] if part in key else array for key, array in weights.items()}


def _single(weights: Weights) -> dict[str, np.ndarray]:
    return {key: array.astype(np.float32) for key, array in weights.items()}
