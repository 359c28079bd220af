"""FedProx: FedAvg that tolerates partial work and holds local models near the global one.

Source: Li et al. 2020, "Federated Optimization in Heterogeneous Networks", arXiv:1812.06127,
algorithm 2; the straggler draw follows the authors' released code. With a deadline the partial work is
what each device manages in time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.maths.combine import WeightedMean
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.global_model import GlobalModel, Share
from fedpref.types import Arrival, ClientId, Combine, Fold, Fresh, Plan, Task, Weights

__all__ = ["FedProx", "straggler_steps"]


@dataclass(frozen=True)
class FedProx:
    """Clients minimise ``F_i(w) + mu/2 ||w - w_t||^2`` for as many steps as each can manage.

    Attributes:
        mu: strength of the proximal term; 0 sends no term at all and is FedAvg to the bit.
        straggler_fraction: share q of the cohort that does fewer steps, drawn uniformly from
            1 … local_steps - 1; their partial work is averaged like any other.
        local_steps: full number of local steps; needed only to draw partial work.
        cohort_size, share, server_lr, combine: as in FedAvg.
        deadline_s: virtual seconds for a round; None is no limit. Each client does as many of its local
            steps as its device manages from the sending of the task to the arrival of its answer,
            where FedAvg with the same deadline loses whoever cannot do all.
        over_selection: as in FedAvg.
    """

    mu: float = 0.01
    straggler_fraction: float = 0.0
    local_steps: int | None = None
    cohort_size: int | None = None
    share: Share = "pairs"
    server_lr: float = 1.0
    combine: Combine = field(default_factory=WeightedMean)
    deadline_s: float | None = None
    over_selection: float = 0.0

    def __post_init__(self) -> None:
        if not self.mu >= 0:
            raise ConfigurationError(f"strategy.mu={self.mu} must be 0 or more")
        if not 0 <= self.straggler_fraction <= 1:
            raise ConfigurationError(
                f"strategy.straggler_fraction={self.straggler_fraction} is not in [0, 1]"
            )
        if self.straggler_fraction > 0 and (self.local_steps is None or self.local_steps < 1):
            raise ConfigurationError(
                "strategy.straggler_fraction > 0 draws partial work and needs strategy.local_steps, "
                "the full number of steps"
            )
        _ = self.average  # its checks are ours

    @property
    def average(self) -> FedAvg:
        """The FedAvg that draws the cohort and folds the answers."""
        return FedAvg(
            cohort_size=self.cohort_size,
            share=self.share,
            server_lr=self.server_lr,
            combine=self.combine,
            deadline_s=self.deadline_s,
            over_selection=self.over_selection,
        )

    def init(
        self, fresh: Fresh, clients: Sequence[ClientId], horizon: int, rng: np.random.Generator
    ) -> GlobalModel:
        """The global model."""
        return self.average.init(fresh, clients, horizon, rng)

    def plan(
        self, state: GlobalModel, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[GlobalModel, Plan]:
        """FedAvg's cohort, with the proximal term and each client's steps in the settings."""
        state, plan = self.average.plan(state, idle, clock_s, rng)
        num_steps: Sequence[int | None] = [None] * len(plan.tasks)
        if self.straggler_fraction > 0 and self.local_steps is not None:
            num_steps = straggler_steps(len(plan.tasks), self.local_steps, self.straggler_fraction, rng)
        tasks = [self._with_settings(task, n) for task, n in zip(plan.tasks, num_steps, strict=True)]
        return state, dataclasses.replace(plan, tasks=tasks)

    def _with_settings(self, task: Task, num_steps: int | None) -> Task:
        settings = dict(task.settings)
        if self.mu > 0:
            settings["proximal_mu"] = self.mu
        if num_steps is not None:
            settings["local_steps"] = num_steps
        if self.deadline_s is not None:
            settings["within_s"] = self.deadline_s
        return dataclasses.replace(task, settings=settings)

    def fold(
        self, state: GlobalModel, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator
    ) -> Fold:
        """FedAvg's fold: partial work counts in full."""
        return self.average.fold(state, arrivals, clock_s, rng)

    def models(self, state: GlobalModel) -> Mapping[str, Weights]:
        """The global model."""
        return self.average.models(state)

    def serve(self, state: GlobalModel, client_id: ClientId | None) -> Sequence[Weights]:
        """The global model serves everybody."""
        return self.average.serve(state, client_id)


def straggler_steps(
    cohort_size: int, local_steps: int, straggler_fraction: float, rng: np.random.Generator
) -> list[int]:
    """Steps of each client of a cohort.

    ``round(m (1 - q))`` clients do all ``local_steps``; each other one draws uniformly from
    1 … local_steps - 1, or does its single step where there is no less.
    """
    num_full = round(cohort_size * (1 - straggler_fraction))
    order = rng.permutation(cohort_size)
    partial = rng.integers(1, max(2, local_steps), size=cohort_size)
    steps = [local_steps] * cohort_size
    for position in order[num_full:]:
        steps[int(position)] = int(partial[position])
    return steps
