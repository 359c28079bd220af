"""FedAvg: local training, then the weighted mean of the deltas.

Source: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized
Data", arXiv:1602.05629, algorithm 1. Uniform shares are those of FedBis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.maths.combine import WeightedMean
from fedpref.maths.weights import add_delta, zeros
from fedpref.types import Arrival, ClientId, Combine, Fold, Fresh, Plan, Task, Update, Weights

__all__ = ["FedAvg", "draw_cohort", "fold_mean", "share_of"]

Share = Literal["pairs", "sqrt", "clients"]


@dataclass(frozen=True)
class FedAvg:
    """``w <- w + server_lr * combine(delta_i)`` over a cohort drawn without replacement.

    Attributes:
        cohort_size: clients a round; None is everybody.
        share: weight of a client: its "pairs", their square root "sqrt", or equal "clients".
        server_lr: step along the combined delta; 1 is plain averaging.
        combine: how the deltas become one.
    """

    cohort_size: int | None = None
    share: Share = "pairs"
    server_lr: float = 1.0
    combine: Combine = field(default_factory=WeightedMean)

    def __post_init__(self) -> None:
        if self.cohort_size is not None and self.cohort_size < 1:
            raise ConfigurationError(f"cohort_size={self.cohort_size} must be at least 1")
        if self.share not in ("pairs", "sqrt", "clients"):
            raise ConfigurationError(f"strategy.share={self.share!r} must be pairs, sqrt or clients")

    def init(
        self, fresh: Fresh, clients: Sequence[ClientId], horizon: int, rng: np.random.Generator
    ) -> Weights:
        """The state is the global model itself."""
        check_cohort(self.cohort_size, len(clients))
        model = fresh("global")
        # A combine that cannot work with these weights says so now, not after the first round.
        self.combine(model, [Update(model, zeros(model), 1, {})], [1.0], [0], rng)
        return model

    def plan(
        self, state: Weights, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[Weights, Plan]:
        """Everybody in the cohort trains the global model; wait for all."""
        cohort = draw_cohort(idle, self.cohort_size, rng)
        return state, Plan([Task(client, state) for client in cohort])

    def fold(
        self, state: Weights, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator
    ) -> Fold:
        """Step along the weighted mean of the answers that came."""
        return fold_mean(state, arrivals, self.share, self.server_lr, self.combine, rng)

    def models(self, state: Weights) -> Mapping[str, Weights]:
        """The global model."""
        return {"global": state}

    def serve(self, state: Weights, client_id: ClientId | None) -> Sequence[Weights]:
        """The global model serves everybody."""
        return [state]


def check_cohort(cohort_size: int | None, num_clients: int) -> None:
    """Refuse a cohort that the population cannot fill.

    Raises:
        ConfigurationError: the cohort is larger than the population.
    """
    if cohort_size is not None and cohort_size > num_clients:
        raise ConfigurationError(
            f"cohort_size={cohort_size} is larger than the population of {num_clients} clients; "
            f"set cohort_size={num_clients} or less, or cohort_size=null for everybody"
        )


def draw_cohort(
    idle: Sequence[ClientId], cohort_size: int | None, rng: np.random.Generator
) -> list[ClientId]:
    """``cohort_size`` of the idle clients, uniformly without replacement, in ascending order.

    Fewer where fewer are idle; all of them where ``cohort_size`` is None.
    """
    everybody = sorted(idle)
    if cohort_size is None or cohort_size >= len(everybody):
        return everybody
    return sorted(everybody[i] for i in rng.choice(len(everybody), size=cohort_size, replace=False))


def share_of(update: Update, share: Share) -> float:
    """Weight of an update before normalisation: n_i, sqrt(n_i) or 1; clients without pairs weigh nothing."""
    if share == "pairs":
        return float(update.num_pairs)
    return float(np.sqrt(update.num_pairs)) if share == "sqrt" else float(update.num_pairs > 0)


def fold_mean(
    model: Weights,
    arrivals: Sequence[Arrival],
    share: Share,
    server_lr: float,
    combine: Combine,
    rng: np.random.Generator,
) -> Fold:
    """One synchronous server step; the round counts but the model stays where no answer carries weight."""
    updates = [arrival.update for arrival in arrivals if arrival.update is not None]
    shares = [share_of(update, share) for update in updates]
    if not any(shares):
        return Fold(model, updated=bool(updates))
    cohort = [arrival.task.client_id for arrival in arrivals]
    combined = combine(model, updates, shares, cohort, rng)
    return Fold(add_delta(model, combined.delta, server_lr), updated=True, metrics=combined.metrics)
