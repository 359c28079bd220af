"""FedRep: a shared representation, and a head that never leaves its client.

A client first fits its head with the representation frozen, then moves the representation with the head
frozen, and sends the representation alone.

Source: Collins et al. 2021, "Exploiting Shared Representations for Personalized Federated Learning",
arXiv:2102.07078, algorithm 1, with the Bradley-Terry loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fedpref.clients.flute import Flute
from fedpref.models.backbone import Backbone
from fedpref.models.head_file import write_head
from fedpref.types import ClientState, Pairs, Reply, Shard, Task, Weights, Workload

__all__ = ["FedRep"]

_REPRESENTATION, _HEAD = "representation.weight", "head.weight"


@dataclass(frozen=True)
class FedRep:
    """Trains ``representation.weight`` (H, k) around a head ``head.weight`` (1, k) kept in its ClientState.

    The representation leaves the client, and the losses and counts that it reports; the head does not. A
    newcomer without pairs has no head, and no preference: all its margins are zero.

    Attributes:
        backbone: gives the features.
        rank: k, the number of shared directions; at most the dimension of the features.
        head_steps: first phase: gradient steps on the head.
        representation_steps: second phase: steps on the representation.
        joint_steps: third phase: simultaneous steps on both; not in the paper. With it instead of the second
            phase, clients take the steps of FLUTE.
        final_steps: steps on the head before it serves; a newcomer's starts from zero.
        batch_pairs: pairs a step; None means the whole shard.
        lr: step size of both factors.
        l2: ridge penalty ``l2/2 |w|^2`` on the head.
        init_std: standard deviation of the initial representation; the head starts at zero.

    Raises:
        ConfigurationError: a value out of range.
    """

    backbone: Backbone
    rank: int = 4
    head_steps: int = 10
    representation_steps: int = 10
    joint_steps: int = 0
    final_steps: int = 10
    batch_pairs: int | None = None
    lr: float = 0.3
    l2: float = 0.1
    init_std: float = 0.1

    def __post_init__(self) -> None:
        _ = self.factors  # its checks are ours

    @cached_property
    def factors(self) -> Flute:
        """The rule that trains both factors; it would send the head, too."""
        return Flute(**{name: getattr(self, name) for name in self.__dataclass_fields__})

    def fresh(self, rng: np.random.Generator) -> Weights:
        """The initial representation, float32.

        Raises:
            ConfigurationError: the rank is above the dimension of the features.
        """
        return _without_head(self.factors.fresh(rng))

    def warm(self, populations: Sequence[Pairs]) -> None:
        """Compute and keep the features of all these pairs, so that no worker has to."""
        self.factors.warm(populations)

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        """Margin of each pair, shape (num_pairs,), float64; zeros where the weights have no head."""
        return self.factors.margins(self._with_head(weights, ClientState()), pairs)

    def export(self, weights: Weights, folder: Path) -> None:
        """Write ``representation.weight``, with the identity of its features."""
        write_head(folder, weights, self.backbone)

    def span(self, weights: Weights) -> np.ndarray:
        """The representation: all heads lie in its span, shape (H, k)."""
        return weights[_REPRESENTATION]

    def personalise(self, weights: Weights, shard: Shard | None, state: ClientState) -> Weights:
        """The representation with the client's head, after ``final_steps`` on its pairs."""
        return self.factors.personalise(self._with_head(weights, state), shard, state)

    def personalise_cohort(
        self, weights: Sequence[Weights], shards: Sequence[Shard | None], states: Sequence[ClientState]
    ) -> Sequence[Weights]:
        """As ``personalise`` for each: all heads take their steps together."""
        complete = [self._with_head(model, state) for model, state in zip(weights, states, strict=True)]
        return self.factors.personalise_cohort(complete, shards, states)

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        """Train both factors on the shard, send the representation, keep the head.

        Metrics: ``loss_before`` (with the kept head) and ``loss_after`` on all training pairs,
        ``steps_done``, ``skipped_steps`` and ``flops`` (what ``workload`` says, exactly).

        Raises:
            ConfigurationError: another kind of task, or weights that do not fit.
            FederationError: every step was skipped.
        """
        complete = replace(task, weights=self._with_head(task.weights, state))
        reply, _ = self.factors.answer(complete, shard, ClientState(), rng)
        return _parted(reply, state)

    def answer_cohort(
        self,
        tasks: Sequence[Task],
        shards: Sequence[Shard],
        states: Sequence[ClientState],
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[tuple[Reply, ClientState]]:
        """As ``answer`` for each: all take their steps together."""
        complete = [
            replace(task, weights=self._with_head(task.weights, state))
            for task, state in zip(tasks, states, strict=True)
        ]
        replies = self.factors.answer_cohort(complete, shards, states, rngs)
        return [_parted(reply, state) for reply, state in replies]

    def workload(self, task: Task, shard: Shard) -> Workload:
        """Operations and memory of training both factors."""
        return self.factors.workload(task, shard)

    def _with_head(self, weights: Weights, state: ClientState) -> Weights:
        """The weights with the kept head, zeros for a client that has none; a head that is there stays."""
        own = state.arrays.get(_HEAD, np.zeros((1, self.rank), np.float32))
        return {_HEAD: own, **weights}


def _parted(reply: Reply, state: ClientState) -> tuple[Reply, ClientState]:
    """What of a reply is sent, and what is kept."""
    sent = reply._replace(weights=_without_head(reply.weights))
    if reply.num_pairs == 0:
        return sent, state
    return sent, replace(state, arrays={**state.arrays, _HEAD: reply.weights[_HEAD]})


def _without_head(weights: Weights) -> Weights:
    return {key: array for key, array in weights.items() if key != _HEAD}
