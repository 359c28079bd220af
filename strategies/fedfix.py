"""FedFix: a server step at fixed moments, with weights that do not favour the fast clients.

Source: Fraboni et al. 2023, "A General Theory for Federated Optimization with Asynchronous and
Heterogeneous Clients Updates", arXiv:2206.10189. The paper keeps every client busy; the weights for a
smaller concurrency are ours, and equal the paper's where everybody is busy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.maths.combine import WeightedMean
from fedpref.strategies.cohort import check_cohort, refill
from fedpref.strategies.global_model import (
    GlobalModel,
    Share,
    check_server_lr,
    check_share,
    first_model,
    share_of,
    stepped,
)
from fedpref.types import Arrival, ClientId, Combine, Fold, Fresh, Plan, Task, Wait, Weights

__all__ = ["FedFix", "Windows", "next_tick_s"]


@dataclass(frozen=True, eq=False)
class Windows:
    """State.

    Attributes:
        model: the global model.
        num_clients: size of the population.
        in_flight: clients whose tasks have not ended, in the order of their tasks.
        shares: weight of every client that has answered, not normalised.
        num_answers: answers so far.
        num_windows: windows that those answers took, in all.
    """

    model: GlobalModel
    num_clients: int
    in_flight: tuple[ClientId, ...]
    shares: Mapping[int, float]
    num_answers: int
    num_windows: int


def next_tick_s(clock_s: float, window_s: float) -> float:
    """The first multiple of ``window_s`` after ``clock_s``."""
    return _next_tick(clock_s, window_s) * window_s


def _next_tick(clock_s: float, window_s: float) -> int:
    tick = math.floor(clock_s / window_s) + 1
    while tick * window_s <= clock_s:
        tick += 1
    return tick


@dataclass(frozen=True)
class FedFix:
    """``w <- w + server_lr sum_i d_i p_i delta_i`` over what arrived in a window, at every tick.

    p_i is a client's share among all that were busy in the window. A client that is busy for d windows is
    in one of d sums, so it counts d times there; otherwise the model would be that of the fast clients.
    Where fewer than all N clients are busy, a client also idles between its tasks, about as long whatever
    its speed: with M busy for D windows in the mean, (N - M) / M * D windows. Then
    ``d_i = (M windows_i + (N - M) D) / N``. A window that the slowest client fits into gives d = 1: FedAvg.

    Attributes:
        window_s: virtual seconds between two steps. The paper takes 0.2, 0.5 or 0.8 of the slowest client's
            time; ``fedpref fleet inspect`` shows it.
        reweight: count slow clients more, as above. False leaves d = 1, which favours the fast ones; for a
            combine that weighs by participation itself.
        server_lr: step along the sum.
        concurrency: clients busy at all times; None is everybody. The idle are given work at ticks alone.
        share: weight of a client: its "pairs", their square root "sqrt", or equal "clients". Whoever has
            not answered yet is taken for a mean client.
        combine: how the deltas become one.
    """

    window_s: float = 60.0
    reweight: bool = True
    server_lr: float = 1.0
    concurrency: int | None = None
    share: Share = "pairs"
    combine: Combine = field(default_factory=WeightedMean)

    def __post_init__(self) -> None:
        check_share(self.share)
        check_server_lr(self.server_lr)
        if not 0 < self.window_s < math.inf:
            raise ConfigurationError(f"strategy.window_s={self.window_s} must be above 0 and finite")

    def init(
        self, fresh: Fresh, clients: Sequence[ClientId], horizon: int, rng: np.random.Generator
    ) -> Windows:
        """The global model.

        Raises:
            ConfigurationError: more clients are to be busy than there are.
        """
        check_cohort(self.concurrency, len(clients))
        return Windows(first_model(fresh, self.combine, clients), len(clients), (), {}, 0, 0)

    def plan(
        self, state: Windows, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[Windows, Plan]:
        """Whoever is missing from ``concurrency`` gets the current model; time passes until the next tick."""
        clients = refill(idle, self.concurrency, len(state.in_flight), rng)
        tasks = [Task(client, state.model.weights) for client in clients]
        wait = Wait(until_s=next_tick_s(clock_s, self.window_s))
        return replace(state, in_flight=(*state.in_flight, *clients)), Plan(tasks, wait)

    def fold(
        self, state: Windows, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator
    ) -> Fold:
        """Step along what arrived in this window; the model stays where that is nothing."""
        updates = [arrival.update for arrival in arrivals if arrival.update is not None]
        windows = [self._windows(arrival, clock_s) for arrival in arrivals if arrival.update is not None]
        ended = {arrival.task.client_id for arrival in arrivals}
        after = replace(
            state,
            in_flight=tuple(client for client in state.in_flight if client not in ended),
            shares={**state.shares, **{u.client_id: share_of(u, self.share) for u in updates}},
            num_answers=state.num_answers + len(updates),
            num_windows=state.num_windows + sum(windows),
        )
        if not updates:
            return Fold(after, updated=0)
        part = _part_of_the_busy([update.client_id for update in updates], after)
        counts = [self._count(n, len(state.in_flight), after) for n in windows]
        counted = [replace(u, factor=count * part) for u, count in zip(updates, counts, strict=True)]
        cohort = [arrival.task.client_id for arrival in arrivals]
        model, metrics = stepped(state.model, counted, self.share, self.server_lr, self.combine, cohort, rng)
        return Fold(replace(after, model=model), updated=1, metrics=metrics)

    def _windows(self, arrival: Arrival, clock_s: float) -> int:
        # Work begins between two ticks where nobody was online before; this tick is the last that counts.
        return _next_tick(clock_s, self.window_s) - _next_tick(arrival.sent_s, self.window_s)

    def _count(self, windows: int, num_busy: int, state: Windows) -> float:
        if not self.reweight:
            return 1.0
        mean_windows = state.num_windows / state.num_answers
        num_idle = state.num_clients - num_busy
        return (num_busy * windows + num_idle * mean_windows) / state.num_clients

    def models(self, state: Windows) -> Mapping[str, Weights]:
        """The global model."""
        return {"global": state.model.weights}

    def serve(self, state: Windows, client_id: ClientId | None) -> Sequence[Weights]:
        """The global model serves everybody."""
        return [state.model.weights]


def _part_of_the_busy(arrived: Sequence[ClientId], state: Windows) -> float:
    """Share of those who arrived among all who were busy, failures left out; 1 if nobody is still at it."""
    known = [state.shares[client] for client in sorted(state.shares)]
    mean = sum(known) / len(known)
    num_arrived = sum(state.shares[client] for client in arrived)
    num_left = sum(state.shares.get(client, mean) for client in state.in_flight)
    return num_arrived / (num_arrived + num_left) if num_arrived > 0 else 0.0
