"""FedBuff: asynchronous clients, and a server step on every K answers.

Source: Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous Aggregation",
arXiv:2106.06639, algorithm 1. The released code (FLSim) neither divides by K nor leaves a fresh update
at 1: it divides s(tau) by s(1). Here the published rule stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.maths.combine import WeightedMean
from fedpref.maths.staleness import Polynomial, Staleness, check_max_staleness, check_staleness
from fedpref.strategies.cohort import check_cohort, refill
from fedpref.strategies.global_model import (
    GlobalModel,
    Share,
    check_server_lr,
    check_share,
    first_model,
    stepped,
)
from fedpref.types import Arrival, ClientId, Combine, Fold, Fresh, Plan, Task, Update, Wait, Weights

__all__ = ["Buffer", "FedBuff", "check_buffer"]


@dataclass(frozen=True, eq=False)
class Buffer:
    """State.

    Attributes:
        model: the global model.
        in_flight: tasks that have not ended.
        updates: accepted since the last step, fewer than the buffer holds.
        ended: clients whose tasks ended since the last step, failures included.
    """

    model: GlobalModel
    in_flight: int
    updates: tuple[Update, ...]
    ended: tuple[ClientId, ...]


def check_buffer(buffer_size: int, concurrency: int | None, num_clients: int) -> None:
    """Refuse a concurrency that the population cannot fill, and a buffer larger than the concurrency.

    Raises:
        ConfigurationError: either; the message has the mend.
    """
    check_cohort(concurrency, num_clients)
    num_busy = num_clients if concurrency is None else concurrency
    if buffer_size > num_busy:
        raise ConfigurationError(
            f"strategy.buffer_size={buffer_size} is larger than the {num_busy} clients that are busy at a "
            f"time; set strategy.buffer_size={num_busy} or less, or raise cohort_size"
        )


@dataclass(frozen=True)
class FedBuff:
    """``w <- w + server_lr / K sum_i s(tau_i) delta_i`` whenever K answers have come.

    A client gets its next task at once, so its model may be one that others have trained already. The
    discount is that of the moment when the answer comes.

    Attributes:
        buffer_size: K, answers a step.
        staleness: discount s of an answer whose model is tau versions old.
        max_staleness: older answers are refused; None refuses none.
        server_lr: step along the mean.
        concurrency: clients busy at all times; None is everybody.
        share: weight of a client: equal "clients" as published, its "pairs", or their square root "sqrt".
        combine: how the deltas become one.
    """

    buffer_size: int = 10
    staleness: Staleness = field(default_factory=Polynomial)
    max_staleness: int | None = None
    server_lr: float = 1.0
    concurrency: int | None = None
    share: Share = "clients"
    combine: Combine = field(default_factory=WeightedMean)

    def __post_init__(self) -> None:
        check_share(self.share)
        check_server_lr(self.server_lr)
        if self.buffer_size < 1:
            raise ConfigurationError(f"strategy.buffer_size={self.buffer_size} must be at least 1")
        check_staleness(self.staleness)
        check_max_staleness(self.max_staleness)

    def init(
        self, fresh: Fresh, clients: Sequence[ClientId], horizon: int, rng: np.random.Generator
    ) -> Buffer:
        """The global model and an empty buffer.

        Raises:
            ConfigurationError: more clients are to be busy than there are, or fewer than fill the buffer.
        """
        check_buffer(self.buffer_size, self.concurrency, len(clients))
        return Buffer(first_model(fresh, self.combine, clients), 0, (), ())

    def plan(
        self, state: Buffer, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[Buffer, Plan]:
        """Whoever is missing from ``concurrency`` gets the current model; wait for the next answer."""
        clients = refill(idle, self.concurrency, state.in_flight, rng)
        tasks = [Task(client, state.model.weights) for client in clients]
        return replace(state, in_flight=state.in_flight + len(tasks)), Plan(tasks, Wait(count=1))

    def fold(
        self, state: Buffer, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator
    ) -> Fold:
        """Fill the buffer in task order; every K-th answer steps the model and empties it."""
        model, updates, ended, updated = state.model, state.updates, state.ended, 0
        rejected: list[Arrival] = []
        metrics: Mapping[str, float] = {}
        for arrival in arrivals:
            ended = (*ended, arrival.task.client_id)
            if arrival.update is None:
                continue
            staleness = arrival.staleness + updated
            if self.max_staleness is not None and staleness > self.max_staleness:
                rejected.append(arrival)
                continue
            updates = (*updates, replace(arrival.update, factor=self.staleness(staleness)))
            if len(updates) == self.buffer_size:
                model, metrics = stepped(model, updates, self.share, self.server_lr, self.combine, ended, rng)
                updates, ended, updated = (), (), updated + 1
        after = Buffer(model, state.in_flight - len(arrivals), updates, ended)
        return Fold(after, updated, rejected, metrics)

    def models(self, state: Buffer) -> Mapping[str, Weights]:
        """The global model; what waits in the buffer is not in it."""
        return {"global": state.model.weights}

    def serve(self, state: Buffer, client_id: ClientId | None) -> Sequence[Weights]:
        """The global model serves everybody."""
        return [state.model.weights]
