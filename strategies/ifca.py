"""IFCA: K heads, each trained by the clients whose pairs it fits best; restarts guard against a bad start.

This is hard expectation-maximisation over K heads, as in MaxMin-RLHF. Every round the cohort reports the loss
of each head on its own training pairs ("score"), and then trains the head of its lowest one ("train").

Different here: equal heads could not be told apart, so those of a set start from the answers of K clients
that differ much (as k-means++ chooses its centres). Such a start, and a new one for a head that nobody
trains, shows everybody the model of one client; it is hidden in no average.

Source: Ghosh et al. 2020, "An Efficient Framework for Clustered Federated Learning", arXiv:2006.04088,
algorithm 1; Chakraborty et al. 2024, "MaxMin-RLHF", arXiv:2402.08925, algorithm 2; for the start Arthur and
Vassilvitskii 2007, "k-means++".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.maths.assignment import lowest_loss
from fedpref.maths.combine import WeightedMean
from fedpref.maths.weights import distance
from fedpref.strategies.cohort import check_cohort, draw_cohort
from fedpref.strategies.global_model import (
    GlobalModel,
    Share,
    check_server_lr,
    check_share,
    first_model,
    stepped,
)
from fedpref.types import Arrival, ClientId, Combine, Fold, Fresh, Plan, Task, Update, Weights

__all__ = ["HeadSet", "Heads", "Ifca", "starts"]


@dataclass(frozen=True, eq=False)
class HeadSet:
    """K heads that compete for the same clients.

    Attributes:
        heads: one model each.
        groups: head of every client by its last choice.
        idle: rounds in a row in which nobody trained the head.
    """

    heads: tuple[GlobalModel, ...]
    groups: Mapping[int, int]
    idle: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Heads:
    """State.

    Attributes:
        sets: one set a restart; the best alone once it was trained again.
        best: which set goes on; None before they were compared.
        chosen: head of each client of this round's cohort; empty before the cohort was asked.
        round: training rounds so far.
        trial_rounds: rounds after which the sets are compared.
        settles_at: round from which ``last_server_lr`` counts.
    """

    sets: tuple[HeadSet, ...]
    best: int | None
    chosen: Mapping[int, int]
    round: int
    trial_rounds: int
    settles_at: int


@dataclass(frozen=True)
class Ifca:
    """K heads; a client trains the one with the lowest loss on its own training pairs.

    Attributes:
        num_heads: K. One head is FedAvg, to the bit where both server steps are equal.
        restarts: sets of K heads, each from a start of its own, of which the best goes on alone: the one with
            the least ``sum_u n_u min_k loss_uk`` over all clients, who are asked once.
        trial: share of the run in which the sets take turns, before they are compared.
        idle_rounds: a head that nobody trained for so many rounds in a row starts again from the answer of
            the client that the heads fit worst.
        cohort_size: clients a round; None is everybody.
        share: weight of a client within its group: its "pairs", their square root "sqrt", or equal "clients".
        server_lr: step along the combined delta; 1 is plain averaging.
        last_server_lr: the same in the last quarter of the run; a small one averages over rounds, where few
            clients a round are left to each head.
        combine: how the deltas of one head become one.
    """

    num_heads: int = 2
    restarts: int = 3
    trial: float = 0.3
    idle_rounds: int = 10
    cohort_size: int | None = None
    share: Share = "pairs"
    server_lr: float = 1.0
    last_server_lr: float = 0.15
    combine: Combine = field(default_factory=WeightedMean)

    def __post_init__(self) -> None:
        for name in ("num_heads", "restarts", "idle_rounds"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"strategy.{name}={getattr(self, name)} must be at least 1")
        if not 0 < self.trial < 1:
            raise ConfigurationError(f"strategy.trial={self.trial} must be a share between 0 and 1")
        check_share(self.share)
        check_server_lr(self.server_lr)
        if not 0 < self.last_server_lr < math.inf:
            raise ConfigurationError(
                f"strategy.last_server_lr={self.last_server_lr} must be above 0, and finite"
            )

    def init(
        self, fresh: Fresh, clients: Sequence[ClientId], horizon: int, rng: np.random.Generator
    ) -> Heads:
        """``restarts`` sets of K equal heads; their first round tells them apart.

        Raises:
            ConfigurationError: more heads than clients, a trial that fills the whole run, or what FedAvg
                refuses: a cohort that cannot be filled, weights that cannot be combined.
        """
        check_cohort(self.cohort_size, len(clients))
        if self.num_heads > len(clients):
            raise ConfigurationError(
                f"strategy.num_heads={self.num_heads} is more than the {len(clients)} clients; "
                "some heads would stay idle for ever"
            )
        restarts = 1 if self.num_heads == 1 else self.restarts
        turns = max(1, math.floor(self.trial * horizon / restarts))  # of each set
        if restarts > 1 and turns * restarts >= horizon:
            raise ConfigurationError(
                f"strategy.restarts={restarts} would fill the whole run of rounds={horizon}; "
                f"set fewer, or rounds above {restarts}"
            )
        first = first_model(fresh, self.combine, clients)
        start = HeadSet((first,) * self.num_heads, {}, (0,) * self.num_heads)
        best = 0 if restarts == 1 else None
        return Heads((start,) * restarts, best, {}, 0, turns * restarts, horizon - horizon // 4)

    def plan(
        self, state: Heads, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[Heads, Plan]:
        """The cohort tells its losses; then each client of it trains its own head only."""
        if self.num_heads == 1 or self._is_start(state):
            state = replace(state, chosen=dict.fromkeys(draw_cohort(idle, self.cohort_size, rng), 0))
        heads = state.sets[_turn(state)].heads
        ready = sorted(set(state.chosen) & set(idle))  # who went offline since is not waited for
        if ready or self.num_heads == 1 or self._is_start(state):
            choices = [(client, state.chosen[client]) for client in ready]
            return state, Plan([Task(c, heads[k].weights, settings={"head": k}) for c, k in choices])
        everybody = _is_comparing(state)
        asked = sorted(idle) if everybody else draw_cohort(idle, self.cohort_size, rng)
        scored = _scored(state)
        everything = {f"{u}/{key}": a for u, head in enumerate(scored) for key, a in head.weights.items()}
        settings = {"num_selectors": len(scored)}
        return state, Plan([Task(client, everything, "score", settings, reply={}) for client in asked])

    def fold(
        self, state: Heads, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator
    ) -> Fold:
        """Note who chose which head, or step each head along its own clients' deltas."""
        updates = [a.update for a in arrivals if a.update is not None and a.update.num_pairs > 0]
        if any(arrival.task.kind == "score" for arrival in arrivals):
            return Fold(self._chosen(state, updates, rng), updated=False)
        if not updates:
            return Fold(replace(state, chosen={}), updated=False)
        if self.num_heads > 1 and self._is_start(state):
            return Fold(self._started(state, updates, rng), updated=True)
        return self._stepped(state, arrivals, rng)

    def models(self, state: Heads) -> Mapping[str, Weights]:
        """Every head: ``head/k``, and ``restart/r/head/k`` while there are several sets."""
        if len(state.sets) == 1:
            return {f"head/{k}": head.weights for k, head in enumerate(state.sets[0].heads)}
        return {
            f"restart/{r}/head/{k}": head.weights
            for r, ours in enumerate(state.sets)
            for k, head in enumerate(ours.heads)
        }

    def groups(self, state: Heads) -> Mapping[ClientId, int]:
        """Head of every client that has chosen one; of the first set before they were compared."""
        return state.sets[state.best or 0].groups

    def serve(self, state: Heads, client_id: ClientId | None) -> Sequence[Weights]:
        """The head that a client chose last; all heads vote for newcomers and for those who never chose."""
        heads = [head.weights for head in state.sets[state.best or 0].heads]
        group = None if client_id is None else self.groups(state).get(client_id)
        return heads if group is None else [heads[group]]

    # ------------------------------------------------------------------------------ details

    def _is_start(self, state: Heads) -> bool:
        """True in the first round of each set, when its heads are still equal."""
        return state.round < len(state.sets)

    def _chosen(self, state: Heads, updates: Sequence[Update], rng: np.random.Generator) -> Heads:
        """The cohort's choices; or, where all sets were scored, the best set and everybody's choice."""
        if not updates:
            return state
        names = [f"loss_{u}" for u in range(len(_scored(state)))]
        # A loss that is missing was not finite.
        losses = np.array([[update.metrics.get(name, math.inf) for name in names] for update in updates])
        clients = [update.client_id for update in updates]
        if _is_comparing(state):
            losses = losses.reshape(len(clients), len(state.sets), self.num_heads)
            best = int(np.argmin([u.num_pairs for u in updates] @ losses.min(axis=2)))
            choices = lowest_loss(losses[:, best], rng).tolist()
            ours = replace(state.sets[best], groups=dict(zip(clients, choices, strict=True)))
            return _with(replace(state, best=best), ours)
        chosen = dict(zip(clients, lowest_loss(losses, rng).tolist(), strict=True))
        ours = state.sets[_turn(state)]
        return replace(_with(state, replace(ours, groups={**ours.groups, **chosen})), chosen=chosen)

    def _started(self, state: Heads, updates: Sequence[Update], rng: np.random.Generator) -> Heads:
        ours = state.sets[_turn(state)]
        found = starts(updates, self.num_heads, rng)
        heads = (
            *(replace(h, weights=w) for h, w in zip(ours.heads, found, strict=False)),
            *ours.heads[len(found) :],
        )
        return replace(_with(state, replace(ours, heads=heads)), chosen={}, round=state.round + 1)

    def _stepped(self, state: Heads, arrivals: Sequence[Arrival], rng: np.random.Generator) -> Fold:
        ours = state.sets[_turn(state)]
        heads, idle = list(ours.heads), list(ours.idle)
        metrics: dict[str, float] = {}
        lr = self.server_lr if state.round < state.settles_at else self.last_server_lr
        for k in range(self.num_heads):
            mine = [arrival for arrival in arrivals if arrival.task.settings["head"] == k]
            updates = [arrival.update for arrival in mine if arrival.update is not None]
            cohort = [arrival.task.client_id for arrival in mine]
            heads[k], numbers = stepped(heads[k], updates, self.share, lr, self.combine, cohort, rng)
            idle[k] = 0 if updates else idle[k] + 1
            metrics |= {f"{name}_{k}": value for name, value in numbers.items()}
        groups = ours.groups
        worst = sorted(
            (a.update for a in arrivals if a.update is not None and a.update.num_pairs > 0),
            key=lambda update: -update.metrics.get("loss_before", 0.0),
        )
        lost = [k for k in range(self.num_heads) if idle[k] >= self.idle_rounds]
        for k, update in zip(lost, worst, strict=False):
            heads[k], idle[k] = replace(heads[k], weights=update.weights), 0
            groups = {client: group for client, group in groups.items() if group != k}
            metrics[f"restarted_{k}"] = 1.0
        after = _with(state, HeadSet(tuple(heads), groups, tuple(idle)))
        if after.best is not None:
            after = replace(after, sets=(after.sets[after.best],), best=0)
        return Fold(replace(after, chosen={}, round=state.round + 1), updated=True, metrics=metrics)


def starts(updates: Sequence[Update], count: int, rng: np.random.Generator) -> list[Weights]:
    """Answers of ``count`` clients that differ much; of all of them where there are fewer.

    The first is drawn in proportion to its pairs n_u, each further one to ``n_u`` times its squared distance
    from the nearest that was drawn before.

    Source: Arthur and Vassilvitskii 2007, "k-means++".
    """
    pairs = np.array([update.num_pairs for update in updates], dtype=np.float64)
    left = np.ones(len(updates))
    nearest = np.full(len(updates), np.inf)
    drawn: list[Weights] = []
    while len(drawn) < min(count, len(updates)):
        odds = left * pairs * (nearest if drawn and np.any(left * nearest > 0) else 1.0)
        place = int(rng.choice(len(updates), p=odds / odds.sum()))
        drawn.append(updates[place].weights)
        left[place] = 0.0
        apart = np.array([distance(update.weights, drawn[-1]) ** 2 for update in updates])
        nearest = np.minimum(nearest, apart)
    return drawn


def _turn(state: Heads) -> int:
    """The set whose round it is."""
    return state.round % len(state.sets) if state.best is None else state.best


def _is_comparing(state: Heads) -> bool:
    """True when all sets are to be scored by everybody."""
    return state.best is None and state.round >= state.trial_rounds


def _scored(state: Heads) -> list[GlobalModel]:
    """The heads to score, those of all sets where they are compared."""
    sets = state.sets if _is_comparing(state) else (state.sets[_turn(state)],)
    return [head for ours in sets for head in ours.heads]


def _with(state: Heads, ours: HeadSet) -> Heads:
    """The state with another set in place of the one whose turn it is."""
    turn = _turn(state)
    return replace(state, sets=(*state.sets[:turn], ours, *state.sets[turn + 1 :]))
