"""AFA-CD: anarchic clients that come when they like and work as long as they like.

Source: Yang et al. 2022, "Anarchic Federated Learning", arXiv:2108.09875, the cross-device algorithm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.maths.combine import WeightedMean
from fedpref.strategies.cohort import refill
from fedpref.strategies.fedbuff import Buffer, check_buffer
from fedpref.strategies.global_model import GlobalModel, Share, check_share, first_model, stepped
from fedpref.types import Arrival, ClientId, Combine, Fold, Fresh, Plan, Settings, Task, Update, Wait, Weights

__all__ = ["AfaCd", "check_anarchy", "chosen_steps", "per_step", "steps_done"]


def check_anarchy(
    buffer_size: int, server_steps: float | None, least_steps: int | None, most_steps: int | None
) -> None:
    """Refuse what no anarchic strategy can work with.

    Raises:
        ConfigurationError: an empty buffer, a server step of nothing, or no range of local steps.
    """
    if buffer_size < 1:
        raise ConfigurationError(f"strategy.buffer_size={buffer_size} must be at least 1")
    if server_steps is not None and not 0 < server_steps < float("inf"):
        raise ConfigurationError(f"strategy.server_steps={server_steps} must be above 0, or null")
    if (least_steps is None) != (most_steps is None):
        raise ConfigurationError("strategy.least_steps and strategy.most_steps are set together, or neither")
    if least_steps is not None and most_steps is not None and not 1 <= least_steps <= most_steps:
        raise ConfigurationError(
            f"strategy.least_steps={least_steps} must be at least 1 and not above "
            f"strategy.most_steps={most_steps}"
        )


def chosen_steps(least_steps: int | None, most_steps: int | None, rng: np.random.Generator) -> Settings:
    """Settings of a client that chooses its steps, uniformly, both ends included; empty without a range."""
    if least_steps is None or most_steps is None:
        return {}
    return {"local_steps": int(rng.integers(least_steps, most_steps, endpoint=True))}


def steps_done(update: Update) -> float:
    """Local steps behind an update, K_i; 0 where the client did none or does not say."""
    return float(update.metrics.get("steps_done", 0.0))


def per_step(updates: Sequence[Update], server_steps: float | None, part: float = 1.0) -> list[Update]:
    """Updates that count ``part * server_steps / K_i``: a server step along the mean local gradients.

    With plain SGD of step size eta the mean gradient is ``G_i = -delta_i / (eta K_i)``, and a server step
    ``eta_s = server_steps * eta`` needs no eta. Without ``server_steps`` it is the mean of the K_i.

    Args:
        updates: with steps done above 0.
        server_steps: eta_s / eta; None keeps the pace of plain averaging.
        part: scales all of them.
    """
    done = [steps_done(update) for update in updates]
    along = sum(done) / len(done) if server_steps is None else server_steps
    return [replace(u, factor=part * (along / k)) for u, k in zip(updates, done, strict=True)]


@dataclass(frozen=True)
class AfaCd:
    """``w <- w - eta_s / m sum_i G_i`` on every m answers, G_i the mean gradient over a client's K_i steps.

    However long a client worked, it counts the same; how often it comes still decides how much it counts.
    The rule is about SGD: after an adaptive optimiser ``delta_i / K_i`` is no mean of gradients.

    Attributes:
        buffer_size: m, answers a step.
        server_steps: eta_s, in local steps: the model moves as far as so many of them. None is the mean of
            the K_i in the buffer, the pace of FedAvg.
        least_steps: fewest steps that a client chooses to do; drawn on its behalf. None leaves them alone.
        most_steps: most steps that it chooses.
        concurrency: clients busy at all times; None is everybody.
        share: weight of a client: equal "clients" as published, its "pairs", or their square root "sqrt".
        combine: how the deltas become one.
    """

    buffer_size: int = 10
    server_steps: float | None = None
    least_steps: int | None = None
    most_steps: int | None = None
    concurrency: int | None = None
    share: Share = "clients"
    combine: Combine = field(default_factory=WeightedMean)

    def __post_init__(self) -> None:
        check_share(self.share)
        check_anarchy(self.buffer_size, self.server_steps, self.least_steps, self.most_steps)

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
        tasks = [
            Task(client, state.model.weights, settings=chosen_steps(self.least_steps, self.most_steps, rng))
            for client in clients
        ]
        return replace(state, in_flight=state.in_flight + len(tasks)), Plan(tasks, Wait(count=1))

    def fold(
        self, state: Buffer, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator
    ) -> Fold:
        """Fill the buffer in task order; every m-th answer steps the model. One of no steps is refused."""
        model, updates, ended, updated = state.model, state.updates, state.ended, 0
        rejected: list[Arrival] = []
        metrics: Mapping[str, float] = {}
        for arrival in arrivals:
            ended = (*ended, arrival.task.client_id)
            if arrival.update is None:
                continue
            if steps_done(arrival.update) <= 0:
                rejected.append(arrival)
                continue
            updates = (*updates, arrival.update)
            if len(updates) == self.buffer_size:
                model, metrics = self._step(model, updates, ended, rng)
                updates, ended, updated = (), (), updated + 1
        after = Buffer(model, state.in_flight - len(arrivals), updates, ended)
        return Fold(after, updated, rejected, metrics)

    def _step(
        self,
        model: GlobalModel,
        updates: Sequence[Update],
        ended: Sequence[ClientId],
        rng: np.random.Generator,
    ) -> tuple[GlobalModel, Mapping[str, float]]:
        counted = per_step(updates, self.server_steps)
        return stepped(model, counted, self.share, 1.0, self.combine, ended, rng)

    def models(self, state: Buffer) -> Mapping[str, Weights]:
        """The global model; what waits in the buffer is not in it."""
        return {"global": state.model.weights}

    def serve(self, state: Buffer, client_id: ClientId | None) -> Sequence[Weights]:
        """The global model serves everybody."""
        return [state.model.weights]
