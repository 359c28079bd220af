"""FedAsync: the global model moves towards every answer at once, less far towards a stale one.

Source: Xie et al. 2019, "Asynchronous Federated Optimization", arXiv:1903.03934, algorithm 1. Some
released code raises 1 + tau to a positive power, or scales alpha by 1/N; neither is done here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.maths.combine import WeightedMean
from fedpref.maths.staleness import Polynomial, Staleness, check_max_staleness, check_staleness
from fedpref.strategies.cohort import check_cohort, refill
from fedpref.strategies.global_model import GlobalModel, first_model, stepped
from fedpref.types import Arrival, ClientId, Combine, Fold, Fresh, Plan, Settings, Task, Wait, Weights

__all__ = ["FedAsync", "Mixing"]


@dataclass(frozen=True, eq=False)
class Mixing:
    """State: the global model, and how many tasks are in flight."""

    model: GlobalModel
    in_flight: int


@dataclass(frozen=True)
class FedAsync:
    """``w <- (1 - a) w + a w_i`` with ``a = alpha s(tau)``, on every answer; w is the current model.

    Answers of one instant are mixed in one after the other, each a version of its own.

    Attributes:
        alpha: how far towards a fresh answer, in (0, 1]; 1 with a constant ``staleness`` takes its weights.
        staleness: discount s of an answer whose model is tau versions old.
        max_staleness: older answers are refused; None refuses none.
        rho: clients minimise ``F_i(w) + rho/2 ||w - w_sent||^2``; 0 sends no such term.
        concurrency: clients busy at all times; None is everybody.
        combine: how one delta becomes the model's.
    """

    alpha: float = 0.6
    staleness: Staleness = field(default_factory=Polynomial)
    max_staleness: int | None = None
    rho: float = 0.0
    concurrency: int | None = None
    combine: Combine = field(default_factory=WeightedMean)

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise ConfigurationError(f"strategy.alpha={self.alpha} is not in (0, 1]")
        check_staleness(self.staleness)
        check_max_staleness(self.max_staleness)
        if not self.rho >= 0:
            raise ConfigurationError(f"strategy.rho={self.rho} must be 0 or more")

    def init(
        self, fresh: Fresh, clients: Sequence[ClientId], horizon: int, rng: np.random.Generator
    ) -> Mixing:
        """The global model.

        Raises:
            ConfigurationError: more clients are to be busy than there are.
        """
        check_cohort(self.concurrency, len(clients))
        return Mixing(first_model(fresh, self.combine, clients), 0)

    def plan(
        self, state: Mixing, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[Mixing, Plan]:
        """Whoever is missing from ``concurrency`` gets the current model; wait for the next answer."""
        clients = refill(idle, self.concurrency, state.in_flight, rng)
        settings: Settings = {"proximal_mu": self.rho} if self.rho > 0 else {}
        tasks = [Task(client, state.model.weights, settings=settings) for client in clients]
        return replace(state, in_flight=state.in_flight + len(tasks)), Plan(tasks, Wait(count=1))

    def fold(
        self, state: Mixing, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator
    ) -> Fold:
        """Mix the answers in, in task order; each makes those behind it one version staler."""
        model, updated = state.model, 0
        rejected: list[Arrival] = []
        metrics: Mapping[str, float] = {}
        for arrival in arrivals:
            if arrival.update is None:
                continue
            staleness = arrival.staleness + updated
            if self.max_staleness is not None and staleness > self.max_staleness:
                rejected.append(arrival)
                continue
            towards = replace(
                arrival.update,
                received=model.weights,
                factor=self.alpha * self.staleness(staleness),
            )
            cohort = [arrival.task.client_id]
            model, metrics = stepped(model, [towards], "clients", 1.0, self.combine, cohort, rng)
            updated += 1
        return Fold(Mixing(model, state.in_flight - len(arrivals)), updated, rejected, metrics)

    def models(self, state: Mixing) -> Mapping[str, Weights]:
        """The global model."""
        return {"global": state.model.weights}

    def serve(self, state: Mixing, client_id: ClientId | None) -> Sequence[Weights]:
        """The global model serves everybody."""
        return [state.model.weights]
