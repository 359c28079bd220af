"""FLUTE: one representation for everybody, a head for each client, and a server that edits what it keeps.

The server averages the representation and keeps the head that each client sent last; then it edits. So the
heads leave the clients, unlike in FedRep, and an edited head travels down with the representation the next
time its client works. The head says what is edited: with one row the client's model is linear, and the
representation and all heads are balanced together; with a row for each answer it is a classifier, and the
rows of each one that came are drawn apart.

Source: Liu et al. 2024, "Federated Representation Learning in the Under-Parameterized Regime" (FLUTE),
arXiv:2406.04596; the constants of the linear variant and the SVD step are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.maths.combine import WeightedMean
from fedpref.maths.flute import (
    balance_defect,
    balanced_factors,
    balanced_step,
    collapse_defect,
    collapse_gradient,
    stable_rate,
)
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.global_model import GlobalModel, Share
from fedpref.types import Arrival, ClientId, Combine, Fold, Fresh, Plan, Task, Update, Weights

__all__ = ["Flute", "FluteState"]

_REPRESENTATION, _HEAD, _OF_HEADS = "representation.weight", "head.weight", "head."


@dataclass(frozen=True, eq=False)
class FluteState:
    """State: what is shared, and the head of every client.

    Attributes:
        shared: all weights but the head, and what the combine remembers.
        heads: the ``head.`` keys of all clients, stacked along the first axis; empty if there are none.
        has_trained: shape (num_clients,), bool; the other clients' heads are the initial one.
    """

    shared: GlobalModel
    heads: Weights
    has_trained: np.ndarray


@dataclass(frozen=True)
class Flute:
    """FedAvg of all weights but those under ``head.``, which stay each client's own, and a step on them.

    Without a step on linear heads (``balance=0``, ``server_svd=false``) it takes the weights of any client
    rule; one without ``head.weight`` then has nothing of its own, and the strategy is FedAvg.

    Attributes:
        cohort_size: clients a round; None is everybody.
        share: weight of a client: its "pairs", their square root "sqrt", or equal "clients".
        server_lr: step along the combined delta; 1 is plain averaging.
        combine: how the deltas become one.
        balance: for heads of one row: a step on ``|B^T B - W W^T|_F^2`` after each round, over the heads of
            all clients that have trained, as a share of the largest curvature, so that it is stable for any
            number of clients; 0 is no step.
        server_svd: for heads of one row: replace (B, W) by the balanced factors of the SVD of B W after each
            round; needs as many trained clients as the rank.
        collapse_lr: for heads of several rows: a gradient step on the mean distance from neural collapse,
            NC(W), over the heads that came in a round; biases and representation stay. 0 is no step.

    Raises:
        ConfigurationError: the balance is not in [0, 1/2), from where on the step diverges, or the other step
            is negative.
    """

    cohort_size: int | None = None
    share: Share = "clients"
    server_lr: float = 1.0
    combine: Combine = field(default_factory=WeightedMean)
    balance: float = 0.1
    server_svd: bool = False
    collapse_lr: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.balance < 0.5:
            raise ConfigurationError(f"strategy.balance={self.balance} must be in [0, 0.5)")
        if not 0 <= self.collapse_lr < math.inf:
            raise ConfigurationError(
                f"strategy.collapse_lr={self.collapse_lr} must be 0 or above, and finite"
            )
        _ = self.average  # its checks are ours

    @property
    def average(self) -> FedAvg:
        """The FedAvg that draws the cohort and folds what is shared."""
        return FedAvg(self.cohort_size, self.share, self.server_lr, self.combine)

    def init(
        self, fresh: Fresh, clients: Sequence[ClientId], horizon: int, rng: np.random.Generator
    ) -> FluteState:
        """The initial representation, and the initial head for everybody.

        Raises:
            ConfigurationError: the population cannot fill the cohort, or there is nothing to balance.
        """
        model = fresh("global")
        if (self.balance > 0 or self.server_svd) and not {_REPRESENTATION, _HEAD} <= model.keys():
            raise ConfigurationError(
                f"strategy.balance={self.balance}: {_REPRESENTATION} and {_HEAD} are to be balanced, but the "
                f"client rule trains {', '.join(sorted(model))}; choose client=flute or flute_selector, "
                "or strategy.balance=0 strategy.server_svd=false"
            )
        if self.server_svd and len(model[_HEAD]) > 1:
            raise ConfigurationError(
                f"strategy.server_svd=true: heads of {len(model[_HEAD])} rows are no linear models; choose "
                "client=flute, or strategy.server_svd=false"
            )
        shared = self.average.init(lambda *address: _shared(fresh(*address)), clients, horizon, rng)
        heads = {key: np.stack([model[key]] * len(clients)) for key in model if key.startswith(_OF_HEADS)}
        return FluteState(shared, heads, np.zeros(len(clients), bool))

    def plan(
        self, state: FluteState, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[FluteState, Plan]:
        """FedAvg's cohort; each client gets its own head, as the server has edited it."""
        _, plan = self.average.plan(state.shared, idle, clock_s, rng)
        tasks = [Task(task.client_id, _weights_of(state, task.client_id)) for task in plan.tasks]
        return state, Plan(tasks, plan.wait)

    def fold(
        self, state: FluteState, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator
    ) -> Fold:
        """Average what is shared, keep the heads that came, then edit both; nothing moves without an answer.

        Metrics, after the edit: of linear models ``balance_defect``, ``|B^T B - W W^T|_F`` relative to
        ``|B^T B|_F + |W W^T|_F``; of classifiers ``collapse_defect``, the mean NC of the heads that came.
        """
        trained = [
            arrival.update
            for arrival in arrivals
            if arrival.update is not None and arrival.update.num_pairs > 0
        ]
        fold = self.average.fold(state.shared, [_without_head(arrival) for arrival in arrivals], clock_s, rng)
        if not trained:
            return Fold(replace(state, shared=fold.state), fold.updated, metrics=fold.metrics)
        edited, defect = self._edited(
            _with_heads(state, fold.state, trained), [update.client_id for update in trained]
        )
        return Fold(edited, fold.updated, metrics={**fold.metrics, **defect})

    def models(self, state: FluteState) -> Mapping[str, Weights]:
        """``global``, with the mean head, and ``client/i`` for every client that has trained a head."""
        trained = np.flatnonzero(state.has_trained) if state.heads else ()
        own = {f"client/{client}": _weights_of(state, int(client)) for client in trained}
        return {"global": _weights_of(state, None), **own}

    def serve(self, state: FluteState, client_id: ClientId | None) -> Sequence[Weights]:
        """A client's own head; the mean of all trained heads for a newcomer, or before the first training."""
        has_head = client_id is not None and state.has_trained[client_id]
        return [_weights_of(state, client_id if has_head else None)]

    def _edited(self, state: FluteState, came: Sequence[ClientId]) -> tuple[FluteState, Mapping[str, float]]:
        """After the server's steps, in float64: on all linear heads, or on the classifiers that ``came``."""
        if _HEAD not in state.heads:
            return state, {}
        if state.heads[_HEAD].shape[1] > 1:
            return self._drawn_apart(state, came)
        return self._balanced(state) if _REPRESENTATION in state.shared.weights else (state, {})

    def _balanced(self, state: FluteState) -> tuple[FluteState, Mapping[str, float]]:
        rows = np.flatnonzero(state.has_trained)
        stacked = state.heads[_HEAD]
        representation = state.shared.weights[_REPRESENTATION].astype(np.float64)
        heads = stacked[rows].reshape(len(rows), -1).astype(np.float64)
        if self.balance > 0:
            rate = stable_rate(representation, heads, self.balance)
            representation, heads = balanced_step(representation, heads, rate)
        if self.server_svd:
            representation, heads = balanced_factors(representation, heads)
        size = sum(np.linalg.norm(factor.T @ factor) for factor in (representation, heads))
        defect = np.linalg.norm(balance_defect(representation, heads)) / size if size > 0 else 0.0
        weights = {**state.shared.weights, _REPRESENTATION: representation.astype(np.float32)}
        shared = replace(state.shared, weights=weights)
        edited = _with_rows(state.heads, rows, heads.reshape(stacked[rows].shape))
        return replace(state, shared=shared, heads=edited), {"balance_defect": float(defect)}

    def _drawn_apart(
        self, state: FluteState, came: Sequence[ClientId]
    ) -> tuple[FluteState, Mapping[str, float]]:
        rate, heads = self.collapse_lr / len(came), state.heads[_HEAD][list(came)].astype(np.float64)
        if rate > 0:
            heads = np.stack([head - rate * collapse_gradient(head) for head in heads])
        defect = float(np.mean([collapse_defect(head) for head in heads]))
        return replace(state, heads=_with_rows(state.heads, came, heads)), {"collapse_defect": defect}


def _with_rows(heads: Weights, clients: Sequence[ClientId] | np.ndarray, edited: np.ndarray) -> Weights:
    stacked = heads[_HEAD].copy()
    stacked[np.asarray(clients)] = edited.astype(np.float32)
    return {**heads, _HEAD: stacked}


def _shared(weights: Weights) -> Weights:
    return {key: array for key, array in weights.items() if not key.startswith(_OF_HEADS)}


def _without_head(arrival: Arrival) -> Arrival:
    if arrival.update is None:
        return arrival
    update = replace(
        arrival.update, weights=_shared(arrival.update.weights), received=_shared(arrival.update.received)
    )
    return replace(arrival, update=update)


def _with_heads(state: FluteState, shared: GlobalModel, trained: Sequence[Update]) -> FluteState:
    """The state with the new ``shared`` and the heads of the clients that ``trained``."""
    heads = {key: stacked.copy() for key, stacked in state.heads.items()}
    has_trained = state.has_trained.copy()
    for update in trained:
        has_trained[update.client_id] = True
        for key, stacked in heads.items():
            stacked[update.client_id] = update.weights[key]
    return FluteState(shared, heads, has_trained)


def _weights_of(state: FluteState, client_id: ClientId | None) -> Weights:
    """What one client works with; with the mean of all trained heads for a newcomer."""
    if client_id is not None:
        return {**state.shared.weights, **{key: stacked[client_id] for key, stacked in state.heads.items()}}
    rows = np.flatnonzero(state.has_trained) if state.has_trained.any() else [0]
    mean = {
        key: stacked[rows].mean(axis=0, dtype=np.float64).astype(np.float32)
        for key, stacked in state.heads.items()
    }
    return {**state.shared.weights, **mean}
