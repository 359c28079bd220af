"""FedAvg: local training, then the weighted mean of the deltas.

Source: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized
Data", arXiv:1602.05629, algorithm 1. Uniform shares are those of FedBis. Deadline and over-selection:
Bonawitz et al. 2019, "Towards Federated Learning at Scale", arXiv:1902.01046, section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.maths.combine import WeightedMean
from fedpref.strategies.cohort import check_cohort, draw_cohort
from fedpref.strategies.global_model import (
    GlobalModel,
    Share,
    check_server_lr,
    check_share,
    first_model,
    stepped,
)
from fedpref.types import Arrival, ClientId, Combine, Fold, Fresh, Plan, Task, Wait, Weights

__all__ = ["FedAvg"]


@dataclass(frozen=True)
class FedAvg:
    """``w <- w + server_lr * combine(delta_i)`` over a cohort drawn without replacement.

    Attributes:
        cohort_size: clients a round; None is everybody.
        share: weight of a client: its "pairs", their square root "sqrt", or equal "clients".
        server_lr: step along the combined delta; 1 is plain averaging.
        combine: how the deltas become one.
        deadline_s: virtual seconds after which an answer is not wanted; None waits for all.
        over_selection: share of clients asked beyond ``cohort_size``; the first ``cohort_size`` answers
            count, with those of the same instant; whoever is later stops for nothing.
    """

    cohort_size: int | None = None
    share: Share = "pairs"
    server_lr: float = 1.0
    combine: Combine = field(default_factory=WeightedMean)
    deadline_s: float | None = None
    over_selection: float = 0.0

    def __post_init__(self) -> None:
        check_share(self.share)
        check_server_lr(self.server_lr)
        if self.cohort_size is not None and self.cohort_size < 1:
            raise ConfigurationError(f"cohort_size={self.cohort_size} must be at least 1")
        if self.deadline_s is not None and not self.deadline_s > 0:
            raise ConfigurationError(f"strategy.deadline_s={self.deadline_s} must be above 0, or null")
        if not self.over_selection >= 0:
            raise ConfigurationError(f"strategy.over_selection={self.over_selection} must be 0 or more")
        if self.over_selection > 0 and self.cohort_size is None:
            raise ConfigurationError(
                f"strategy.over_selection={self.over_selection} asks more clients than the cohort has; "
                "set cohort_size"
            )

    @property
    def num_asked(self) -> int | None:
        """Clients asked a round; None is everybody."""
        if self.cohort_size is None:
            return None
        more = round(self.cohort_size * self.over_selection, 9)  # 25 * 0.12 is 3, whatever floats say
        return self.cohort_size + math.ceil(more)

    def init(
        self, fresh: Fresh, clients: Sequence[ClientId], horizon: int, rng: np.random.Generator
    ) -> GlobalModel:
        """The global model.

        Raises:
            ConfigurationError: the population cannot fill the cohort.
        """
        check_cohort(self.cohort_size, len(clients))
        if self.num_asked is not None and self.num_asked > len(clients):
            raise ConfigurationError(
                f"strategy.over_selection={self.over_selection} asks {self.num_asked} of {len(clients)} "
                "clients; lower it, or cohort_size"
            )
        return first_model(fresh, self.combine, clients)

    def plan(
        self, state: GlobalModel, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[GlobalModel, Plan]:
        """Everybody in the cohort trains the global model; wait for all, or for the first ones."""
        cohort = draw_cohort(idle, self.num_asked, rng)
        expires_s = math.inf if self.deadline_s is None else clock_s + self.deadline_s
        tasks = [Task(client, state.weights, expires_s=expires_s) for client in cohort]
        if self.over_selection == 0 or self.cohort_size is None:
            return state, Plan(tasks)
        return state, Plan(tasks, Wait(count=self.cohort_size, drop_late=True))

    def fold(
        self, state: GlobalModel, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator
    ) -> Fold:
        """Step along the weighted mean of the answers; the model stays where none carries weight."""
        updates = [arrival.update for arrival in arrivals if arrival.update is not None]
        cohort = [arrival.task.client_id for arrival in arrivals]
        model, metrics = stepped(state, updates, self.share, self.server_lr, self.combine, cohort, rng)
        return Fold(model, updated=bool(updates), metrics=metrics)

    def models(self, state: GlobalModel) -> Mapping[str, Weights]:
        """The global model."""
        return {"global": state.weights}

    def serve(self, state: GlobalModel, client_id: ClientId | None) -> Sequence[Weights]:
        """The global model serves everybody."""
        return [state.weights]
