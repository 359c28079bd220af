"""FedBis: one binary selector for everybody, averaged with equal shares.

Source: Wu et al. 2024, "Towards Federated RLHF with Aggregated Client Preference for LLMs",
arXiv:2407.03038, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedpref.maths.combine import WeightedMean
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.global_model import GlobalModel
from fedpref.types import Arrival, ClientId, Combine, Fold, Fresh, Plan, Weights

__all__ = ["FedBis"]


@dataclass(frozen=True)
class FedBis:
    """FedAvg of one selector, every client that answers weighing the same.

    Attributes:
        cohort_size: clients a round; None is everybody.
        combine: how the deltas become one.
    """

    cohort_size: int | None = None
    combine: Combine = field(default_factory=WeightedMean)

    @property
    def average(self) -> FedAvg:
        """The FedAvg that it is."""
        return FedAvg(self.cohort_size, share="clients", combine=self.combine)

    def init(
        self, fresh: Fresh, clients: Sequence[ClientId], horizon: int, rng: np.random.Generator
    ) -> GlobalModel:
        """The selector."""
        return self.average.init(fresh, clients, horizon, rng)

    def plan(
        self, state: GlobalModel, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[GlobalModel, Plan]:
        """A cohort trains the selector."""
        return self.average.plan(state, idle, clock_s, rng)

    def fold(
        self, state: GlobalModel, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator
    ) -> Fold:
        """The plain mean of the answers."""
        return self.average.fold(state, arrivals, clock_s, rng)

    def models(self, state: GlobalModel) -> Mapping[str, Weights]:
        """The one selector."""
        return {"selector/0": state.weights}

    def serve(self, state: GlobalModel, client_id: ClientId | None) -> Sequence[Weights]:
        """The one selector serves everybody."""
        return [state.weights]
