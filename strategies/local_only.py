"""local_only: nobody shares anything; the baseline that every federation must beat.

Each client has a model of its own, trained by the same rule for as many tasks as in FedAvg and
never aggregated. A newcomer gets the initial model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedpref.strategies.cohort import check_cohort, draw_cohort
from fedpref.types import Arrival, ClientId, Fold, Fresh, Plan, Task, Weights

__all__ = ["LocalModels", "LocalOnly"]


@dataclass(frozen=True, eq=False)
class LocalModels:
    """State: the common initial model, and the model of each client that has trained."""

    initial: Weights
    own: Mapping[int, Weights]


@dataclass(frozen=True)
class LocalOnly:
    """Every client trains its own model from one common initial model.

    Attributes:
        cohort_size: clients a round; None is everybody.
    """

    cohort_size: int | None = None

    def init(
        self, fresh: Fresh, clients: Sequence[ClientId], horizon: int, rng: np.random.Generator
    ) -> LocalModels:
        """Nobody has trained yet."""
        check_cohort(self.cohort_size, len(clients))
        return LocalModels(fresh("global"), {})

    def plan(
        self, state: LocalModels, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[LocalModels, Plan]:
        """Each client of the cohort goes on with its own model."""
        cohort = draw_cohort(idle, self.cohort_size, rng)
        return state, Plan([Task(client, state.own.get(client, state.initial)) for client in cohort])

    def fold(
        self, state: LocalModels, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator
    ) -> Fold:
        """Keep each client's weights for that client alone."""
        trained = {
            arrival.task.client_id: arrival.update.weights
            for arrival in arrivals
            if arrival.update is not None and arrival.update.num_pairs > 0
        }
        return Fold(LocalModels(state.initial, {**state.own, **trained}), updated=bool(trained))

    def models(self, state: LocalModels) -> Mapping[str, Weights]:
        """``initial`` and ``client/i`` for every client that has trained."""
        own = {f"client/{client}": state.own[client] for client in sorted(state.own)}
        return {"initial": state.initial, **own}

    def serve(self, state: LocalModels, client_id: ClientId | None) -> Sequence[Weights]:
        """A client's own model; the initial one for a newcomer."""
        return [state.initial if client_id is None else state.own.get(client_id, state.initial)]
