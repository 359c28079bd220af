"""FedASMU: asynchronous mixing with learned weights, and a fresh model for each client half-way.

Source: Liu et al. 2024, "FedASMU: Efficient Asynchronous Federated Learning with Dynamic Staleness-aware
Model Update", arXiv:2312.05770. The paper's learned moment of the refresh is a fixed one here.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.maths.combine import WeightedMean
from fedpref.maths.dynamic_mixing import AnswerWeight, RefreshWeight
from fedpref.maths.staleness import check_max_staleness
from fedpref.strategies.cohort import check_cohort, refill
from fedpref.strategies.global_model import GlobalModel, first_model, stepped
from fedpref.types import (
    Arrival,
    ClientId,
    Combine,
    Fold,
    Fresh,
    Plan,
    Scalar,
    Schema,
    Task,
    Update,
    Wait,
    Weights,
)

__all__ = ["Asmu", "FedASMU", "Halfway"]


@dataclass(frozen=True, eq=False)
class Halfway:
    """A client between its two segments, or in the second.

    Attributes:
        origin: version of the model with which it began.
        loss: what it reported at the end of the first segment; None if nothing.
        fresh: version of the model that it got for the second segment; None before.
        mix: how far it went towards that model.
    """

    origin: int
    loss: float | None
    fresh: int | None = None
    mix: float = 0.0


@dataclass(frozen=True, eq=False)
class Asmu:
    """State.

    Attributes:
        model: the global model.
        version: changes so far.
        in_flight: tasks that have not ended.
        halfway: clients that have done their first segment.
        answer_weights: of each client that has answered.
        refresh_weights: of each client that was refreshed.
    """

    model: GlobalModel
    version: int
    in_flight: int
    halfway: Mapping[int, Halfway]
    answer_weights: Mapping[int, AnswerWeight]
    refresh_weights: Mapping[int, RefreshWeight]


@dataclass(frozen=True)
class FedASMU:
    """``w <- (1 - alpha) w + alpha w_i`` on every answer, alpha learned for each client.

    With the version t and the age s of the client's model, ``xi = lambda / (sqrt(t) s^sigma) + iota`` and
    ``alpha = mu_alpha xi / (1 + mu_alpha xi)``. Half-way the client goes ``beta`` towards the fresh model,
    where there is one, and works on; its age stays that of the model with which it began. The two halves
    are two tasks: the first one's answer has no weights, the second one brings the fresh model. A client
    that goes offline in between loses its first half.

    Coefficients follow the clients' own reports: ``loss_after - loss_before`` of an answer is the slope
    for alpha, the rise of the loss by mixing, over the way that was gone, that for beta. Rules
    that report no loss leave them where they are. Only the sizes are learned, not the moment of the refresh.

    Attributes:
        mu_alpha: strength of all answers.
        initial_lambda: of each client, above 0.
        initial_sigma: of each client; 0 ignores age.
        initial_iota: of each client.
        mu_beta: strength of all refreshes; 0 ignores the fresh models.
        initial_gamma: of each client, above 0.
        initial_upsilon: of each client.
        meta_lr: step size of the coefficients; 0 holds them.
        refresh_at: share of the local steps before the refresh, in (0, 1); None has no refresh.
        local_steps: of both halves together; None leaves them to the client rule.
        max_staleness: answers whose model is more versions old are refused; None refuses none.
        concurrency: clients busy at all times; None is everybody.
        combine: how one delta becomes the model's.
    """

    mu_alpha: float = 1.0
    initial_lambda: float = 1.0
    initial_sigma: float = 0.5
    initial_iota: float = 0.0
    mu_beta: float = 1.0
    initial_gamma: float = 1.0
    initial_upsilon: float = 0.5
    meta_lr: float = 0.01
    refresh_at: float | None = 0.5
    local_steps: int | None = None
    max_staleness: int | None = None
    concurrency: int | None = None
    combine: Combine = field(default_factory=WeightedMean)

    def __post_init__(self) -> None:
        for name in ("mu_alpha", "initial_lambda", "initial_gamma"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigurationError(f"strategy.{name}={getattr(self, name)} must be finite, above 0")
        for name in ("initial_sigma", "initial_iota", "mu_beta", "initial_upsilon", "meta_lr"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigurationError(
                    f"strategy.{name}={getattr(self, name)} must be 0 or more, and finite"
                )
        if self.refresh_at is not None and not 0 < self.refresh_at < 1:
            raise ConfigurationError(f"strategy.refresh_at={self.refresh_at} is not in (0, 1), nor null")
        if self.local_steps is not None and self.local_steps < 1:
            raise ConfigurationError(f"strategy.local_steps={self.local_steps} must be at least 1, or null")
        check_max_staleness(self.max_staleness)

    def init(self, fresh: Fresh, clients: Sequence[ClientId], horizon: int, rng: np.random.Generator) -> Asmu:
        """The global model; every client has the initial coefficients.

        Raises:
            ConfigurationError: more clients are to be busy than there are.
        """
        check_cohort(self.concurrency, len(clients))
        return Asmu(first_model(fresh, self.combine, clients), 0, 0, {}, {}, {})

    def plan(
        self, state: Asmu, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[Asmu, Plan]:
        """Second segments at once, and first ones for whoever is missing; wait for the next answer."""
        halfway = {
            client: half if half.fresh is not None else self._refreshed(state, client, half)
            for client, half in state.halfway.items()
            if half.fresh is not None or _is_in(client, idle)
        }
        resumed = sorted(client for client in halfway if state.halfway[client].fresh is None)
        tasks = [self._second(state, client, halfway[client]) for client in resumed]
        num_busy = state.in_flight + len(resumed)
        clients = refill(idle, self.concurrency, num_busy, rng, besides=set(resumed))
        tasks += [self._first(state, client) for client in clients]
        after = replace(state, in_flight=state.in_flight + len(tasks), halfway=halfway)
        return after, Plan(tasks, Wait(count=1))

    def _refreshed(self, state: Asmu, client: ClientId, half: Halfway) -> Halfway:
        """With how far the client is to go; nowhere where the model is still the one that it had."""
        age = state.version - half.origin + 1
        weight = self._refresh_weight(state, client)
        mix = weight.share(self.mu_beta, state.version + 1, age) if age > 1 else 0.0
        return replace(half, fresh=state.version, mix=mix)

    def _first(self, state: Asmu, client: ClientId) -> Task:
        reply: Schema | None = None if self.refresh_at is None else {}
        return Task(client, state.model.weights, settings=self._settings, reply=reply)

    def _second(self, state: Asmu, client: ClientId, half: Halfway) -> Task:
        return Task(client, state.model.weights, "resume", {**self._settings, "mix": half.mix})

    @property
    def _settings(self) -> dict[str, Scalar]:
        given = {"split_at": self.refresh_at, "local_steps": self.local_steps}
        return {name: value for name, value in given.items() if value is not None}

    def _refresh_weight(self, state: Asmu, client: ClientId) -> RefreshWeight:
        initial = RefreshWeight(self.initial_gamma, self.initial_upsilon)
        return state.refresh_weights.get(client, initial)

    def _answer_weight(self, state: Asmu, client: ClientId) -> AnswerWeight:
        initial = AnswerWeight(self.initial_lambda, self.initial_sigma, self.initial_iota)
        return state.answer_weights.get(client, initial)

    def fold(
        self, state: Asmu, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator
    ) -> Fold:
        """Keep in mind who is half-way; mix the others in, in task order, each a version of its own."""
        rejected: list[Arrival] = []
        metrics: Mapping[str, float] = {}
        started, halfway = state.version, dict(state.halfway)
        for arrival in arrivals:
            update, origin = arrival.update, started - arrival.staleness
            half = halfway.pop(arrival.task.client_id, None)
            if update is None:
                continue
            if half is None and self.refresh_at is not None:  # the end of a first segment
                halfway[update.client_id] = Halfway(origin, update.metrics.get("loss_after"))
                continue
            if half is not None:
                origin = half.origin
                state = self._learned_refresh(state, half, update)
            if self.max_staleness is not None and state.version - origin > self.max_staleness:
                rejected.append(arrival)
                continue
            state, metrics = self._mixed(state, update, state.version - origin + 1, rng)
        state = replace(state, in_flight=state.in_flight - len(arrivals), halfway=halfway)
        return Fold(state, state.version - started, rejected, metrics)

    def _mixed(
        self, state: Asmu, update: Update, age: int, rng: np.random.Generator
    ) -> tuple[Asmu, Mapping[str, float]]:
        """One answer mixed in, and what its client's weight learns from it."""
        client, version = update.client_id, state.version + 1
        weight = self._answer_weight(state, client)
        alpha = weight.share(self.mu_alpha, version, age)
        towards = replace(update, received=state.model.weights, factor=alpha)
        model, metrics = stepped(state.model, [towards], "clients", 1.0, self.combine, [client], rng)
        slope = _rise(update.metrics.get("loss_before"), update.metrics.get("loss_after"))
        adapted = weight.adapted(self.mu_alpha, version, age, slope, self.meta_lr)
        weights = {**state.answer_weights, client: adapted}
        after = replace(state, model=model, version=version, answer_weights=weights)
        return after, {**metrics, "alpha": alpha}

    def _learned_refresh(self, state: Asmu, half: Halfway, update: Update) -> Asmu:
        """What the client's refresh weight learns from the loss before and after mixing."""
        if half.fresh is None or half.mix == 0:
            return state
        slope = _rise(half.loss, update.metrics.get("loss_before")) / half.mix
        weight = self._refresh_weight(state, update.client_id)
        age = half.fresh - half.origin + 1
        adapted = weight.adapted(self.mu_beta, half.fresh + 1, age, slope, self.meta_lr)
        return replace(state, refresh_weights={**state.refresh_weights, update.client_id: adapted})

    def models(self, state: Asmu) -> Mapping[str, Weights]:
        """The global model."""
        return {"global": state.model.weights}

    def serve(self, state: Asmu, client_id: ClientId | None) -> Sequence[Weights]:
        """The global model serves everybody."""
        return [state.model.weights]


def _rise(before: float | None, after: float | None) -> float:
    """By how much a loss rose; 0 where it was not reported."""
    return 0.0 if before is None or after is None else after - before


def _is_in(client: ClientId, ascending: Sequence[ClientId]) -> bool:
    place = bisect_left(ascending, client)
    return place < len(ascending) and ascending[place] == client
