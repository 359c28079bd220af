"""AFA-CS: anarchic clients, and a server that remembers the last answer of each of them.

Source: Yang et al. 2022, "Anarchic Federated Learning", arXiv:2108.09875, the cross-silo algorithm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fedpref.maths.combine import WeightedMean
from fedpref.strategies.afa_cd import check_anarchy, chosen_steps, per_step, steps_done
from fedpref.strategies.cohort import refill
from fedpref.strategies.fedbuff import check_buffer
from fedpref.strategies.global_model import GlobalModel, Share, check_share, first_model, stepped
from fedpref.types import Arrival, ClientId, Combine, Fold, Fresh, Plan, Task, Update, Wait, Weights

__all__ = ["AfaCs", "Remembered"]


@dataclass(frozen=True, eq=False)
class Remembered:
    """State.

    Attributes:
        model: the global model.
        num_clients: size of the population, N.
        in_flight: tasks that have not ended.
        last: the last answer of every client that was heard.
        num_new: answers since the last step.
    """

    model: GlobalModel
    num_clients: int
    in_flight: int
    last: Mapping[int, Update]
    num_new: int


@dataclass(frozen=True)
class AfaCs:
    """``w <- w - eta_s / N sum_i G_i`` over all N clients on every m answers, G_i the last that i sent.

    Who comes often counts no more than others, only newer; clients that were never heard count as zero,
    so the first steps are short. The server holds N answers, and so does each checkpoint: for silos. The
    rule is about SGD: after an adaptive optimiser ``delta_i / K_i`` is no mean of gradients.

    Attributes:
        buffer_size: m, answers a step.
        server_steps: eta_s, in local steps: the model moves as far as so many of them. None is the mean of
            all K_i that are remembered, the pace of FedAvg.
        least_steps: fewest steps that a client chooses to do; drawn on its behalf. None leaves them alone.
        most_steps: most steps that it chooses.
        concurrency: clients busy at all times; None is everybody.
        share: weight of a client: equal "clients" as published, its "pairs", or their square root "sqrt".
            Whoever was not heard is taken for a mean client.
        combine: how the deltas become one.
    """

    buffer_size: int = 1
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
    ) -> Remembered:
        """The global model; nobody was heard.

        Raises:
            ConfigurationError: more clients are to be busy than there are, or fewer than ``buffer_size``.
        """
        check_buffer(self.buffer_size, self.concurrency, len(clients))
        return Remembered(first_model(fresh, self.combine, clients), len(clients), 0, {}, 0)

    def plan(
        self, state: Remembered, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[Remembered, Plan]:
        """Whoever is missing from ``concurrency`` gets the current model; wait for the next answer."""
        clients = refill(idle, self.concurrency, state.in_flight, rng)
        tasks = [
            Task(client, state.model.weights, settings=chosen_steps(self.least_steps, self.most_steps, rng))
            for client in clients
        ]
        return replace(state, in_flight=state.in_flight + len(tasks)), Plan(tasks, Wait(count=1))

    def fold(
        self, state: Remembered, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator
    ) -> Fold:
        """Remember the answers in task order; every m-th steps the model along all that is remembered."""
        model, last, num_new, updated = state.model, dict(state.last), state.num_new, 0
        rejected: list[Arrival] = []
        metrics: Mapping[str, float] = {}
        for arrival in arrivals:
            if arrival.update is None:
                continue
            if steps_done(arrival.update) <= 0:
                rejected.append(arrival)
                continue
            last[arrival.task.client_id] = arrival.update
            num_new += 1
            if num_new == self.buffer_size:
                model, metrics = self._step(model, last, state.num_clients, rng)
                num_new, updated = 0, updated + 1
        after = Remembered(model, state.num_clients, state.in_flight - len(arrivals), last, num_new)
        heard = {"heard_share": len(last) / state.num_clients}
        return Fold(after, updated, rejected, {**metrics, **heard})

    def _step(
        self, model: GlobalModel, last: Mapping[int, Update], num_clients: int, rng: np.random.Generator
    ) -> tuple[GlobalModel, Mapping[str, float]]:
        heard = sorted(last)
        updates = per_step([last[c] for c in heard], self.server_steps, len(heard) / num_clients)
        return stepped(model, updates, self.share, 1.0, self.combine, heard, rng)

    def models(self, state: Remembered) -> Mapping[str, Weights]:
        """The global model."""
        return {"global": state.model.weights}

    def serve(self, state: Remembered, client_id: ClientId | None) -> Sequence[Weights]:
        """The global model serves everybody."""
        return [state.model.weights]
