"""P-ShareLoRA: all clients share one factor of a low-rank change, and each keeps the other at home.

Client i's model is changed by ``s B A_i``, so all changes side by side are ``s B [A_1 ... A_N]``: of rank r
at most, however many clients there are. B and the head travel, A_i never does. In a task a client takes its
local steps on B, the head and A_i together, as ordinary LoRA. The swapped form shares A and keeps B_i.

In a transformer the change sits in its linear layers (``lora_reward``), on any other backbone in a linear
head (``linear_lora``), where a client's head is ``w + s B a_i``.

Source: Liu et al. 2025, "A Shared Low-Rank Adaptation Approach to Personalized RLHF", arXiv:2503.19201,
which trains centrally; here the server averages B and the head. Different here: a client that joins when B is
trained starts at the centre of the law that the A's are drawn from, where a random A would be noise; and own
factors may have a ridge, without which clients fit their own few pairs the closer, the more often they train.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from fedpref.clients.linear_lora import LinearLora
from fedpref.errors import ConfigurationError
from fedpref.models.backbone import Backbone
from fedpref.objectives.local import require
from fedpref.seeds import generator
from fedpref.types import ClientId, ClientState, Pairs, Reply, Shard, Task, Weights, Workload

if TYPE_CHECKING:
    from fedpref.clients.lora_reward import LoraReward

__all__ = ["OwnFactor", "PShareLora", "Start"]

OwnFactor: TypeAlias = Literal["a", "b"]
Start: TypeAlias = Literal["independent", "same", "warm"]


@dataclass(frozen=True)
class PShareLora:
    """Trains LoRA of which one factor never leaves the client.

    A task's settings may give ``local_steps`` and ``proximal_mu``, which holds the own factor too.

    Attributes:
        backbone: a transformer gets LoRA in its layers, any other backbone a linear head.
        own: the factor that stays at home, "a" or, swapped, "b".
        start: the own factors before training: "independent" draws, the "same" draw for all, or "warm", from
            a trained LoRA, which is the first global model too. In a linear head the same draw for all
            leaves B with one direction for ever.
        warm_from: of "warm", the ``.safetensors`` file of an exported ``lora_reward`` or ``linear_lora``.
        own_seed: of the draws; clients draw at home, so that nothing travels.
        rank: inner dimension r of BA.
        alpha: BA is scaled by alpha / rank; None means the rank for a linear head, else twice the rank.
        local_steps: optimiser steps a task.
        batch_pairs: pairs a step; None means the whole shard.
        lr: step size; None means 0.1 (SGD) for a linear head, 0.001 (AdamW) in a transformer.
        adapt_steps: steps on the own factor of a client that never trained, before it is served.
        refit_steps: the same for one that has, since the shared factor moved on without it. An evaluation
            takes them for every client; 0 serves what is kept.
        precision: of the pull towards where these steps start, against a sum over the client's pairs.
        ridge: precision of the own factor around zero in training, against a sum over the client's pairs; it
            is weight decay, ``A / (1 + lr steps ridge / num_pairs)`` after the steps. 0 is ordinary LoRA.
        head_std: standard deviation of the head's initial weights; None means 0 for a linear head, else 0.02.
        dropout: of LoRA in a transformer.
        target_modules: where LoRA sits in a transformer; empty means PEFT's choice.
        last_layers: how many layers of a transformer, from the top, have LoRA.
        use_cache: keep the activations that enter the first trainable layer.

    Raises:
        ConfigurationError: a value out of range.
    """

    backbone: Backbone
    own: OwnFactor = "a"
    start: Start = "independent"
    warm_from: str | None = None
    own_seed: int = 0
    rank: int = 8
    alpha: int | None = None
    local_steps: int = 30
    batch_pairs: int | None = 16
    lr: float | None = None
    adapt_steps: int = 30
    refit_steps: int = 10
    precision: float = 4.0
    ridge: float = 0.0
    head_std: float | None = None
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ()
    last_layers: int = 2
    use_cache: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "target_modules", tuple(self.target_modules))  # a list, when from YAML
        require(self.own in get_args(OwnFactor), "own", self.own, "a or b")
        require(self.start in get_args(Start), "start", self.start, "independent, same or warm")
        fits = (self.warm_from is not None) == (self.start == "warm")
        require(fits, "warm_from", self.warm_from, "a file with start=warm, and null without")
        require(self.adapt_steps >= 0, "adapt_steps", self.adapt_steps, "at least 0")
        require(self.refit_steps >= 0, "refit_steps", self.refit_steps, "at least 0")
        most = 2 / self.body.lr  # the body checks its options; beyond this, steps for one pair diverge
        require(math.isfinite(self.ridge) and self.ridge >= 0, "ridge", self.ridge, "at least 0, and finite")
        require(0 <= self.precision < most, "precision", self.precision, f"from 0 to below {most:g}, 2 / lr")

    @cached_property
    def body(self) -> LoraReward | LinearLora:
        """Ordinary LoRA on this backbone, which trains both factors."""
        given: dict[str, Any] = {"lr": self.lr, "head_std": self.head_std}
        given = {name: value for name, value in given.items() if value is not None}
        if not hasattr(type(self.backbone), "checkpoint"):
            return LinearLora(
                self.backbone,
                rank=self.rank,
                alpha=self.rank if self.alpha is None else self.alpha,
                local_steps=self.local_steps,
                batch_pairs=self.batch_pairs,
                **given,
            )
        from fedpref.clients.lora_reward import LoraReward  # here, so that linear heads start without torch

        return LoraReward(
            self.backbone,  # type: ignore[arg-type]  # it has a checkpoint
            rank=self.rank,
            alpha=2 * self.rank if self.alpha is None else self.alpha,
            dropout=self.dropout,
            target_modules=self.target_modules,
            last_layers=self.last_layers,
            local_steps=self.local_steps,
            batch_pairs=self.batch_pairs,
            use_cache=self.use_cache,
            **given,
        )

    def fresh(self, rng: np.random.Generator) -> Weights:
        """Initial shared weights, float32; those of the file, if warm."""
        return self._part(self._initial(rng), is_own=False)

    def warm(self, populations: Sequence[Pairs]) -> None:
        """Compute and keep what is frozen for all these pairs, so that no worker has to."""
        self.body.warm(populations)

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        """Margin of each pair, shape (num_pairs,), float64; a newcomer's where the own factor is missing."""
        return self.body.margins(self._whole(weights, None, ClientState()), pairs)

    def export(self, weights: Weights, folder: Path) -> None:
        """Write what serves a newcomer, as ordinary LoRA."""
        self.body.export(self._whole(weights, None, ClientState()), folder)

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        """Train on the shard: what is shared comes back, the own factor is kept.

        Metrics are those of the body, with the own factor in place. A client without pairs keeps what it
        had.

        Raises:
            ConfigurationError: another kind of task, or weights that do not fit.
            FederationError: every step was skipped.
        """
        if len(shard.pairs) == 0 and task.kind == "train":
            return Reply(dict(task.weights), 0, {}), state
        whole = self._whole(task.weights, shard.client_id, state)
        reply, _ = self.body.answer(replace(task, weights=whole), shard, ClientState(), rng)
        return self._parted(reply)

    def answer_cohort(
        self,
        tasks: Sequence[Task],
        shards: Sequence[Shard],
        states: Sequence[ClientState],
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[tuple[Reply, ClientState]]:
        """As ``answer`` for each: the body trains all together."""
        members = [i for i, shard in enumerate(shards) if len(shard.pairs) > 0 or tasks[i].kind != "train"]
        wholes = [self._whole(tasks[i].weights, shards[i].client_id, states[i]) for i in members]
        found = self.body.answer_cohort(
            [replace(tasks[i], weights=whole) for i, whole in zip(members, wholes, strict=True)],
            [shards[i] for i in members],
            [ClientState() for _ in members],
            [rngs[i] for i in members],
        )
        trained = {i: self._parted(reply) for i, (reply, _) in zip(members, found, strict=True)}
        return [
            trained[i] if i in trained else (Reply(dict(task.weights), 0, {}), state)
            for i, (task, state) in enumerate(zip(tasks, states, strict=True))
        ]

    def _parted(self, reply: Reply) -> tuple[Reply, ClientState]:
        """What of the body's reply is sent, and what is kept."""
        decay = 1 + self.body.lr * reply.metrics["steps_done"] * self.ridge / reply.num_pairs
        trained = self._part(reply.weights, is_own=True)
        own = ClientState({key: array / np.float32(decay) for key, array in trained.items()})
        return reply._replace(weights=self._part(reply.weights, is_own=False)), own

    def workload(self, task: Task, shard: Shard) -> Workload:
        """As ordinary LoRA's."""
        return self.body.workload(task, shard)

    def personalise(self, weights: Weights, shard: Shard | None, state: ClientState) -> Weights:
        """Shared weights and the client's own factor.

        The own factor, with the rest frozen, takes ``refit_steps`` from what is kept or, where nothing is,
        ``adapt_steps`` from its start. A newcomer without pairs stays at the start.
        """
        whole = self._whole(weights, None if shard is None else shard.client_id, state)
        work = self._last_steps(shard, state)
        if work is None:
            return whole
        return self.body.train_part(whole, work.pairs, self._marker, work.steps, work.mu, work.rng)

    def personalise_cohort(
        self, weights: Sequence[Weights], shards: Sequence[Shard | None], states: Sequence[ClientState]
    ) -> Sequence[Weights]:
        """As ``personalise`` for each: in linear heads all take their steps together."""
        entries = list(zip(weights, shards, states, strict=True))
        if not isinstance(self.body, LinearLora):
            return [self.personalise(*entry) for entry in entries]
        served = [
            self._whole(model, None if shard is None else shard.client_id, state)
            for model, shard, state in entries
        ]
        work = {i: self._last_steps(shard, state) for i, (_, shard, state) in enumerate(entries)}
        found = {i: own for i, own in work.items() if own is not None}
        if found:
            pairs, *rest = zip(*found.values(), strict=True)
            trained = self.body.train_parts([served[i] for i in found], pairs, self._marker, *rest)
            for i, own in zip(found, trained, strict=True):
                served[i] = own
        return served

    def _last_steps(self, shard: Shard | None, state: ClientState) -> _LastSteps | None:
        """Those before a client is served; None if there are none."""
        steps = self.refit_steps if state.arrays else self.adapt_steps
        if shard is None or len(shard.pairs) == 0 or steps == 0:
            return None
        rng = generator(self.own_seed, "adapt", shard.client_id)
        return _LastSteps(shard.pairs, steps, self.precision / len(shard.pairs), rng)

    @property
    def _marker(self) -> str:
        """What the keys of the own factor contain."""
        return f"lora_{self.own.upper()}"

    def _part(self, weights: Weights, is_own: bool) -> dict[str, np.ndarray]:
        return {key: array for key, array in weights.items() if (self._marker in key) == is_own}

    def _whole(self, weights: Weights, client_id: ClientId | None, state: ClientState) -> Weights:
        """Both factors; those that are there already stay."""
        if self._part(weights, is_own=True):
            return weights
        return {**weights, **(state.arrays or self._first_own(weights, client_id))}

    def _first_own(self, shared: Weights, client_id: ClientId | None) -> Weights:
        """The own factor of a client that never trained; A and B are not both 0, where it is to train."""
        if self.start != "independent":
            return self._part(self._initial(generator(self.own_seed, "own")), is_own=True)
        own = self._part(self._initial(generator(self.own_seed, "own", client_id or 0)), is_own=True)
        is_trained = any(array.any() for key, array in shared.items() if "lora_B" in key)
        if client_id is None or is_trained:
            return {key: np.zeros_like(array) for key, array in own.items()}
        return own

    def _initial(self, rng: np.random.Generator) -> Weights:
        fresh = self.body.fresh(rng)
        return fresh if self.warm_from is None else _trained(self.warm_from, fresh)


class _LastSteps(NamedTuple):
    """Steps on the own factor before it is served: arguments of the body's ``train_part``."""

    pairs: Pairs
    steps: int
    mu: float
    rng: np.random.Generator


def _trained(path: str, like: Weights) -> Weights:
    """The weights of ``like``, from a file.

    Raises:
        ConfigurationError: the file cannot be read, or lacks some of them.
    """
    found = _read(path)
    wrong = sorted(key for key in like if key not in found or found[key].shape != like[key].shape)
    if wrong:
        raise ConfigurationError(
            f"client.warm_from: {path} does not fit this LoRA: {', '.join(wrong[:3])}; it must come from the "
            "same backbone, rank and target modules"
        )
    return {key: found[key].astype(np.float32) for key in like}


@lru_cache(maxsize=2)
def _read(path: str) -> Mapping[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise ConfigurationError(f"client.warm_from: {path} cannot be read: {error}") from error
