"""Group-robust optimisation: the worse a group is served, the more its clients count.

``min_w max_alpha sum_g alpha_g L_g(w)``, alpha in the simplex. The server holds alpha; every client reports
its loss at the model that it received.

Source: Ramesh et al. 2024, "Group Robust Preference Optimization in Reward-free RLHF", arXiv:2405.20304,
algorithm 1; Sagawa et al. 2020, "Distributionally Robust Neural Networks", arXiv:1911.08731. Different here:
a round sees only some groups, so their losses count the more the rarer they are sampled, and as excess over
the mean of the groups that were; a shift that all groups share would cancel in alpha if all were seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fedpref.errors import ConfigurationError, FederationError
from fedpref.maths.combine import WeightedMean
from fedpref.maths.weights import add_delta
from fedpref.strategies.cohort import check_cohort, draw_cohort
from fedpref.strategies.global_model import GlobalModel, check_server_lr, first_model
from fedpref.types import Arrival, ClientId, Combine, Fold, Fresh, Plan, Task, Weights

__all__ = ["GroupDro", "GroupWeights", "reweighted"]

MOST_IMPORTANCE = 10.0
FLOOR = 0.01
_LOSS = "loss_before"


@dataclass(frozen=True, eq=False)
class GroupWeights:
    """State.

    Attributes:
        model: the iterate that is sent.
        mean: mean of all iterates after a step; the initial model before.
        steps: iterates in the mean.
        alpha: weight of each group, shape (G,), float64, sums to 1.
        importance: ``min(1 / p_g, 10)``, p_g the probability that a cohort has a client of group g.
        groups: group of each client, shape (num_clients,).
    """

    model: GlobalModel
    mean: Weights
    steps: int
    alpha: np.ndarray
    importance: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True)
class GroupDro:
    """FedAvg with group weights alpha that follow the losses; serves the mean of the iterates.

    Attributes:
        client_groups: "clients", each a group of its own, or the declared group of every client in order:
            numbers from 0, without gaps.
        eta: step of log alpha along the losses; 0 keeps the groups equal.
        cohort_size: clients a round; None is everybody. A round in which only one group answers says nothing
            about alpha.
        server_lr: step along the combined delta.
        combine: how the deltas become one; a client's share is ``alpha_g n_u / sum_v n_v`` over its group.
    """

    client_groups: Literal["clients"] | tuple[int, ...] = "clients"
    eta: float = 0.1
    cohort_size: int | None = None
    server_lr: float = 1.0
    combine: Combine = field(default_factory=WeightedMean)

    def __post_init__(self) -> None:
        if self.client_groups != "clients":
            if isinstance(self.client_groups, str):
                raise ConfigurationError(
                    f"strategy.client_groups={self.client_groups!r} must be clients, or the group of every "
                    "client in order"
                )
            object.__setattr__(self, "client_groups", tuple(self.client_groups))  # a list, when from YAML
            found = sorted(set(self.client_groups))
            if found != list(range(len(found))):
                raise ConfigurationError(
                    f"strategy.client_groups has the groups {found}; number them from 0, without gaps"
                )
        if not 0 <= self.eta < math.inf:
            raise ConfigurationError(f"strategy.eta={self.eta} must be 0 or more, and finite")
        check_server_lr(self.server_lr)

    def init(
        self, fresh: Fresh, clients: Sequence[ClientId], horizon: int, rng: np.random.Generator
    ) -> GroupWeights:
        """Equal group weights.

        Raises:
            ConfigurationError: not one group a client, or what FedAvg refuses: a cohort that cannot be
                filled, weights that cannot be combined.
        """
        check_cohort(self.cohort_size, len(clients))
        groups = np.arange(len(clients)) if self.client_groups == "clients" else np.array(self.client_groups)
        if len(groups) != len(clients):
            raise ConfigurationError(
                f"strategy.client_groups has {len(groups)} entries for {len(clients)} clients; "
                "give one a client"
            )
        sizes, place = np.unique(np.bincount(groups), return_inverse=True)
        p_seen = [_p_sampled(int(size), len(clients), self.cohort_size) for size in sizes]
        importance = np.array([min(1 / p, MOST_IMPORTANCE) for p in p_seen])[place]
        model = first_model(fresh, self.combine, clients)
        alpha = np.full(len(place), 1 / len(place))
        return GroupWeights(model, model.weights, 0, alpha, importance, groups)

    def plan(
        self, state: GroupWeights, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[GroupWeights, Plan]:
        """Everybody in the cohort trains the iterate, and reports its loss at it."""
        cohort = draw_cohort(idle, self.cohort_size, rng)
        return state, Plan([Task(client, state.model.weights) for client in cohort])

    def fold(
        self, state: GroupWeights, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator
    ) -> Fold:
        """First alpha moves along the losses, then the model along the reweighted deltas.

        An answer without a loss is rejected.

        Raises:
            FederationError: no answer has a loss: the client rule reports no ``loss_before``.
        """
        answered = [a for a in arrivals if a.update is not None and a.update.num_pairs > 0]
        rejected = [a for a in answered if a.update is not None and _LOSS not in a.update.metrics]
        if not answered:
            return Fold(state, updated=False)
        if len(rejected) == len(answered):
            raise FederationError(f"group_dro needs the loss of its clients; none reported {_LOSS}")
        updates = [a.update for a in answered if a.update is not None and a not in rejected]
        group_of = [int(state.groups[update.client_id]) for update in updates]
        num_groups = len(state.alpha)
        pairs = np.bincount(group_of, [update.num_pairs for update in updates], num_groups)
        sums = np.bincount(group_of, [u.num_pairs * u.metrics[_LOSS] for u in updates], num_groups)
        is_seen = pairs > 0
        losses = sums / np.maximum(pairs, 1.0)
        alpha = reweighted(state.alpha, losses, is_seen, state.importance, self.eta)
        shares = [alpha[g] * u.num_pairs / pairs[g] for g, u in zip(group_of, updates, strict=True)]
        cohort = [arrival.task.client_id for arrival in arrivals]
        model = state.model
        combined = self.combine(model.weights, updates, shares, cohort, rng, model.memory)
        weights = add_delta(model.weights, combined.delta, self.server_lr)
        steps = state.steps + 1
        after = GroupWeights(
            GlobalModel(weights, combined.memory),
            _running_mean(state.mean, weights, steps),
            steps,
            alpha,
            state.importance,
            state.groups,
        )
        worst = int(np.argmax(np.where(is_seen, losses, -np.inf)))
        metrics = {"worst_group_loss": float(losses[worst]), "largest_alpha": float(alpha.max())}
        return Fold(after, updated=True, rejected=rejected, metrics={**combined.metrics, **metrics})

    def models(self, state: GroupWeights) -> Mapping[str, Weights]:
        """The mean of the iterates."""
        return {"global": state.mean}

    def serve(self, state: GroupWeights, client_id: ClientId | None) -> Sequence[Weights]:
        """The mean of the iterates serves everybody."""
        return [state.mean]


def reweighted(
    alpha: np.ndarray, losses: np.ndarray, is_seen: np.ndarray, importance: np.ndarray, eta: float
) -> np.ndarray:
    """``alpha_g exp(eta c_g (L_g - mean L)) / Z`` for groups that were seen, floored at ``0.01 / G``.

    Args:
        alpha: before, shape (G,).
        losses: mean loss of each group, shape (G,); those of unseen groups are not read.
        is_seen: which groups answered, at least one; the mean is over them.
        importance: c_g, shape (G,).
        eta: the step.
    """
    excess = np.where(is_seen, losses - losses[is_seen].mean(), 0.0)
    moved = eta * importance * excess
    new = alpha * np.exp(moved - moved.max())
    new = np.maximum(new / new.sum(), FLOOR / len(alpha))
    result: np.ndarray = new / new.sum()
    return result


def _p_sampled(size: int, num_clients: int, cohort_size: int | None) -> float:
    """Probability that ``cohort_size`` of ``num_clients``, without replacement, has one of ``size``."""
    if cohort_size is None:
        return 1.0
    p_none = 1.0
    for place in range(cohort_size):
        p_none *= max(num_clients - size - place, 0) / (num_clients - place)
    return 1.0 - p_none


def _running_mean(mean: Weights, weights: Weights, steps: int) -> Weights:
    """The mean of ``steps`` iterates, from that of one less and the last."""
    return add_delta(mean, {key: weights[key].astype(np.float64) - mean[key] for key in mean}, 1 / steps)
