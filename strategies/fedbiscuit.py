"""FedBiscuit: several binary selectors, each trained by the clients that it predicts best.

Source: Wu et al. 2024, "Towards Federated RLHF with Aggregated Client Preference for LLMs",
arXiv:2407.03038, algorithm 2, and the released code, from which this differs where the code is wrong:
grouping pairs are held back by pair and not by row, a client that does not answer a regrouping keeps its
group, and only the selector that a client trains travels to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.maths.assignment import balanced_assignment, lowest_loss
from fedpref.maths.combine import WeightedMean
from fedpref.maths.weights import add_delta
from fedpref.strategies.cohort import draw_cohort
from fedpref.strategies.fedbis import FedBis
from fedpref.types import Arrival, ClientId, Combine, Fold, Fresh, Plan, Settings, Task, Update, Weights

__all__ = ["FedBiscuit", "Selectors"]

AggNorm = Literal["all_clients", "group", "repliers"]
GroupingTime = Literal["periodic", "each_round"]


@dataclass(frozen=True, eq=False)
class Selectors:
    """State.

    Attributes:
        models: the U selectors.
        memories: what the combine remembers of each.
        groups: selector of every client that has one.
        num_clients: size of the population, N.
        round: training rounds so far.
        is_grouped: True once the regrouping that is due before this round has been done.
        cohort: who was scored for this round, where groups are chosen every round.
        grouping_seed: address of every client's split into training and grouping pairs.
        sent: selectors sent so far.
        broadcast: selectors that would have been sent if every client always got all U.
    """

    models: tuple[Weights, ...]
    memories: tuple[Any, ...]
    groups: Mapping[int, int]
    num_clients: int
    round: int
    is_grouped: bool
    cohort: tuple[int, ...]
    grouping_seed: int
    sent: int
    broadcast: int


@dataclass(frozen=True)
class FedBiscuit:
    """U selectors: warm-up one after the other, then groups by loss, regrouped now and then.

    Attributes:
        num_selectors: U.
        warmup_rounds: rounds that each selector is trained by everybody before groups exist.
        regroup_every: rounds between two regroupings over all clients.
        agg_norm: a selector's step is the sum of its clients' deltas over "all_clients" (as published:
            5 of 53 clients move it 5/53 of the way at most), over the clients of its "group", or over
            the "repliers".
        capacity: balance the groups, at most ceil(N/U) clients each.
        grouping: "periodic" regroups over everybody; "each_round" lets each sampled client choose its
            lowest loss anew, as in IFCA, and has no use for ``capacity``.
        grouping_pairs: share of a client's pairs held back for the grouping loss (0.05 as published), or
            "all": nothing is held back and the loss is that of all training pairs.
        regroup_timeout_s: virtual seconds to wait for losses; clients that are later keep their group.
        cohort_size: clients a round; None is everybody.
        combine: how the deltas of one selector become one.
    """

    num_selectors: int = 3
    warmup_rounds: int = 50
    regroup_every: int = 50
    agg_norm: AggNorm = "all_clients"
    capacity: bool = True
    grouping: GroupingTime = "periodic"
    grouping_pairs: float | Literal["all"] = 0.05
    regroup_timeout_s: float | None = None
    cohort_size: int | None = None
    combine: Combine = field(default_factory=WeightedMean)

    def __post_init__(self) -> None:
        for name, least in (("num_selectors", 1), ("warmup_rounds", 0), ("regroup_every", 1)):
            if getattr(self, name) < least:
                raise ConfigurationError(f"strategy.{name}={getattr(self, name)} must be at least {least}")
        for name, kind in (("agg_norm", AggNorm), ("grouping", GroupingTime)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigurationError(
                    f"strategy.{name}={getattr(self, name)!r} is not one of {', '.join(get_args(kind))}"
                )
        if self.grouping_pairs != "all" and not (
            isinstance(self.grouping_pairs, float) and 0 < self.grouping_pairs < 1
        ):
            raise ConfigurationError(
                f"strategy.grouping_pairs={self.grouping_pairs!r} must be a share between 0 and 1, or all"
            )
        if self.regroup_timeout_s is not None and not self.regroup_timeout_s > 0:
            raise ConfigurationError(f"strategy.regroup_timeout_s={self.regroup_timeout_s} must be above 0")

    def init(
        self, fresh: Fresh, clients: Sequence[ClientId], horizon: int, rng: np.random.Generator
    ) -> Selectors:
        """U selectors, each from initial weights of its own; the first has those of FedBis.

        Raises:
            ConfigurationError: more selectors than clients, a warm-up that fills the whole run, or what
                FedBis refuses: a cohort that cannot be filled, weights that cannot be combined.
        """
        first = FedBis(self.cohort_size, self.combine).init(fresh, clients, horizon, rng)
        if self.num_selectors > len(clients):
            raise ConfigurationError(
                f"strategy.num_selectors={self.num_selectors} is more than the {len(clients)} clients; "
                "some groups would stay empty for ever"
            )
        if self.num_selectors * self.warmup_rounds >= horizon and self.warmup_rounds > 0:
            raise ConfigurationError(
                f"strategy.warmup_rounds={self.warmup_rounds} for each of {self.num_selectors} selectors "
                f"fills the whole run of rounds={horizon}; set fewer, or rounds above "
                f"{self.num_selectors * self.warmup_rounds}"
            )
        models = (first.weights, *(fresh("selector", u) for u in range(1, self.num_selectors)))
        groups = dict.fromkeys(clients, 0) if self.num_selectors == 1 else {}
        seed = int(rng.integers(2**31))
        memories = tuple(self.combine.init(clients) for _ in models)
        return Selectors(models, memories, groups, len(clients), 0, False, (), seed, 0, 0)

    def plan(
        self, state: Selectors, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[Selectors, Plan]:
        """Score all selectors where a regrouping is due, else train: each client its own selector only."""
        if self._is_regrouping_due(state):
            return self._plan_scores(state, idle, clock_s, rng)
        scored = sorted(set(state.cohort) & set(idle))  # who went offline since is not waited for
        cohort = scored or draw_cohort(idle, self.cohort_size, rng)
        groups = dict(state.groups)
        tasks = []
        for client in cohort:
            if self._is_warming(state):
                selector = state.round // self.warmup_rounds
            else:  # a client that was never scored joins at random
                selector = groups.setdefault(client, int(rng.integers(self.num_selectors)))
            settings = {**self._split(state), "selector": selector}
            tasks.append(Task(client, state.models[selector], settings=settings))
        sent = state.sent + len(tasks)
        broadcast = state.broadcast + len(tasks) * self.num_selectors
        return replace(state, groups=groups, sent=sent, broadcast=broadcast), Plan(tasks)

    def _plan_scores(
        self, state: Selectors, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[Selectors, Plan]:
        is_periodic = self.grouping == "periodic"
        asked = sorted(idle) if is_periodic else draw_cohort(idle, self.cohort_size, rng)
        everything = {
            f"{u}/{key}": array for u, model in enumerate(state.models) for key, array in model.items()
        }
        expires_s = math.inf if self.regroup_timeout_s is None else clock_s + self.regroup_timeout_s
        settings = {**self._split(state), "num_selectors": self.num_selectors}
        tasks = [
            Task(client, everything, "score", settings, reply={}, expires_s=expires_s) for client in asked
        ]
        copies = len(tasks) * self.num_selectors
        state = replace(state, sent=state.sent + copies, broadcast=state.broadcast + copies)
        return (state if is_periodic else replace(state, cohort=tuple(asked))), Plan(tasks)

    def fold(
        self, state: Selectors, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator
    ) -> Fold:
        """Regroup by the losses that came, or step each selector along its own clients' deltas."""
        if any(arrival.task.kind == "score" for arrival in arrivals):
            return Fold(self._regrouped(state, arrivals, rng), updated=False)
        return self._stepped(state, arrivals, rng)

    def _regrouped(
        self, state: Selectors, arrivals: Sequence[Arrival], rng: np.random.Generator
    ) -> Selectors:
        answered = {a.task.client_id: a.update for a in arrivals if a.update is not None}
        groups: dict[int, int] = dict(state.groups)
        for arrival in arrivals:  # no answer: the group stays; none yet: one at random
            groups.setdefault(arrival.task.client_id, int(rng.integers(self.num_selectors)))
        clients = sorted(answered)
        if clients:
            losses = np.array([self._losses(answered[client]) for client in clients])
            if self.capacity and self.grouping == "periodic":
                chosen = balanced_assignment(losses, rng.permutation(len(clients)).tolist())
            else:
                chosen = lowest_loss(losses, rng)
            groups.update(zip(clients, chosen.tolist(), strict=True))
        return replace(state, groups=groups, is_grouped=True)

    def _stepped(self, state: Selectors, arrivals: Sequence[Arrival], rng: np.random.Generator) -> Fold:
        models, memories, metrics = list(state.models), list(state.memories), {}
        answered = [a for a in arrivals if a.update is not None and a.update.num_pairs > 0]
        for selector in range(self.num_selectors):
            mine = [a for a in arrivals if a.task.settings["selector"] == selector]
            updates = [a.update for a in mine if a.update is not None and a.update.num_pairs > 0]
            if not updates:
                continue
            cohort = [a.task.client_id for a in mine]
            combined = self.combine(
                models[selector], updates, [1.0] * len(updates), cohort, rng, memories[selector]
            )
            memories[selector] = combined.memory
            factor = len(updates) / self._norm(state, selector, len(updates))
            models[selector] = add_delta(models[selector], combined.delta, factor)
            metrics[f"step_factor_{selector}"] = factor
            metrics.update({f"{name}_{selector}": value for name, value in combined.metrics.items()})
        if state.broadcast:
            metrics["broadcast_ratio"] = state.sent / state.broadcast
        after = replace(
            state,
            models=tuple(models),
            memories=tuple(memories),
            round=state.round + bool(answered),
            is_grouped=state.is_grouped and not answered,
            cohort=() if answered else state.cohort,
        )
        return Fold(after, updated=bool(answered), metrics=metrics)

    def models(self, state: Selectors) -> Mapping[str, Weights]:
        """Every selector."""
        return {f"selector/{u}": model for u, model in enumerate(state.models)}

    def groups(self, state: Selectors) -> Mapping[ClientId, int]:
        """Selector of every client that has one; nobody has while the selectors warm up."""
        return {} if self._is_warming(state) else state.groups

    def serve(self, state: Selectors, client_id: ClientId | None) -> Sequence[Weights]:
        """A client's own selector; all vote for a newcomer, and for everybody during the warm-up."""
        group = None if client_id is None else self.groups(state).get(client_id)
        return list(state.models) if group is None else [state.models[group]]

    # ------------------------------------------------------------------------------ details

    def _is_warming(self, state: Selectors) -> bool:
        return state.round < self.num_selectors * self.warmup_rounds

    def _is_regrouping_due(self, state: Selectors) -> bool:
        if self.num_selectors == 1 or self._is_warming(state) or state.is_grouped:
            return False
        since = state.round - self.num_selectors * self.warmup_rounds
        return self.grouping == "each_round" or since % self.regroup_every == 0

    def _split(self, state: Selectors) -> Settings:
        """What a client needs to know to hold the same grouping pairs back in every round."""
        if self.num_selectors == 1:
            return {}
        share = 0.0 if self.grouping_pairs == "all" else float(self.grouping_pairs)
        return {"grouping_share": share, "grouping_seed": state.grouping_seed}

    def _losses(self, update: Update) -> list[float]:
        """Losses of all selectors; one that is missing was not finite."""
        return [update.metrics.get(f"loss_{u}", math.inf) for u in range(self.num_selectors)]

    def _norm(self, state: Selectors, selector: int, num_repliers: int) -> int:
        if self._is_warming(state) or self.agg_norm == "repliers":
            return num_repliers
        if self.agg_norm == "all_clients":
            return state.num_clients
        return sum(group == selector for group in state.groups.values())
