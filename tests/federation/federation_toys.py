"""A buffered asynchronous strategy, a client rule with a memory, and clients that misbehave."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fedpref.clients.linear_reward import LinearReward
from fedpref.maths.weights import add_delta, weighted_sum, zeros
from fedpref.types import (
    Arrival,
    ClientId,
    ClientState,
    Fold,
    Fresh,
    Pairs,
    Plan,
    Reply,
    Shard,
    Task,
    Wait,
    Weights,
)

__all__ = ["Buffered", "BufferedState", "Momentum"]


@dataclass(frozen=True, eq=False)
class BufferedState:
    """The model, the deltas that wait for more, and scalars of a precision that must survive."""

    model: Weights
    buffer: tuple[Weights, ...]
    mean_staleness: np.float32


@dataclass(frozen=True)
class Buffered:
    """Every arrival is replaced by a new task; ``size`` answers make a version."""

    concurrency: int = 5
    size: int = 3
    expires_after_s: float = math.inf

    def init(
        self, fresh: Fresh, clients: Sequence[ClientId], horizon: int, rng: np.random.Generator
    ) -> BufferedState:
        return BufferedState(fresh("global"), (), np.float32(0.1))

    def plan(
        self, state: BufferedState, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[BufferedState, Plan]:
        num_busy = NUM_CLIENTS - len(idle)
        chosen = rng.permutation(list(idle))[: max(0, self.concurrency - num_busy)]
        expires_s = clock_s + self.expires_after_s
        tasks = [
            # A NumPy integer, as a schedule computed with NumPy gives: it must reach the checkpoint, too.
            Task(int(client), state.model, settings={"local_steps": rng.integers(1, 5)}, expires_s=expires_s)
            for client in sorted(chosen)
        ]
        return state, Plan(tasks, Wait(count=1))

    def fold(
        self, state: BufferedState, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator
    ) -> Fold:
        mean, buffer = state.mean_staleness, state.buffer
        for arrival in arrivals:
            if arrival.update is not None:
                mean = np.float32(0.9) * mean + np.float32(0.1) * np.float32(arrival.staleness)
                buffer = (*buffer, arrival.update.delta)
        if len(buffer) < self.size:
            return Fold(replace(state, buffer=buffer, mean_staleness=mean), False)
        total = weighted_sum([zeros(state.model), *buffer], [1.0, *[1 / len(buffer)] * len(buffer)])
        step = 1.0 / (1.0 + float(mean))
        return Fold(BufferedState(add_delta(state.model, total, step), (), mean), True)

    def models(self, state: BufferedState) -> Mapping[str, Weights]:
        return {"global": state.model}

    def serve(self, state: BufferedState, client_id: ClientId | None) -> Sequence[Weights]:
        return [state.model]


NUM_CLIENTS = 16  # of the "tiny" preset


@dataclass(frozen=True)
class Momentum:
    """The inner rule plus a velocity that each client keeps between its tasks.

    Attributes:
        inner: trains.
        memory: how much of the velocity is kept.
        faults: what is wrong with some clients: "raise", "exit", "nan", "shape", "norm", "claim", "flops".
        fails_in: the tasks of those clients in which it goes wrong, by number modulo 3.
    """

    inner: LinearReward
    memory: float = 0.5
    faults: Mapping[int, str] = field(default_factory=dict)
    fails_in: tuple[int, ...] = (0, 1, 2)

    def fresh(self, rng: np.random.Generator) -> Weights:
        return self.inner.fresh(rng)

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        return self.inner.margins(weights, pairs)

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        reply, _ = self.inner.answer(task, shard, ClientState(), rng)
        velocity = {
            key: reply.weights[key].astype(np.float64) - received + self.memory * state.arrays.get(key, 0.0)
            for key, received in task.weights.items()
        }
        weights = {key: (task.weights[key] + velocity[key]).astype(np.float32) for key in velocity}
        answers = int(state.numbers.get("answers", 0)) + 1
        metrics = {**reply.metrics, "answers": float(answers)}
        reply = Reply(weights, len(shard.pairs), metrics)
        if task.number % 3 in self.fails_in:
            reply = _spoilt(reply, self.faults.get(shard.client_id))
        return reply, ClientState(velocity, {"answers": answers})


def _spoilt(reply: Reply, fault: str | None) -> Reply:
    ((key, array),) = reply.weights.items()
    changes: dict[str | None, Any] = {
        None: {},
        "nan": {"weights": {key: np.full_like(array, np.nan)}},
        "shape": {"weights": {key: array[:, :1]}},
        "norm": {"weights": {key: np.full_like(array, 1e30)}},
        "claim": {"num_pairs": 10**5},
        "flops": {"metrics": {**reply.metrics, "flops": math.nan}},
    }
    if fault == "raise":
        raise RuntimeError("the dog ate it")
    if fault == "exit":
        raise SystemExit(0)
    return reply._replace(**changes[fault])
