"""Evaluate what a strategy serves, on every held-out set of a population."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from fedpref.errors import ConfigurationError, FederationError
from fedpref.evaluation import metrics
from fedpref.types import ClientId, ClientRule, Pairs, Population, Strategy, Weights

__all__ = ["Evaluation", "UserScore", "evaluate"]


_MOST_GROUPINGS = 8
_kept_groupings: WeakKeyDictionary[Population, dict[tuple[int, ...], Pairs]] = WeakKeyDictionary()


@dataclass(frozen=True)
class UserScore:
    """How well one held-out set is served.

    Attributes:
        name: name of the held-out set.
        client_id: the client it belongs to; None for a newcomer.
        num_pairs: its pairs, at least 1.
        accuracy: share of its pairs predicted right; expected over labels where the truth is known.
        loss: mean negative log-likelihood, in nats.
        group: hidden group, if the truth is known.
        oracle: Bayes accuracy, if the truth is known.
    """

    name: str
    client_id: ClientId | None
    num_pairs: int
    accuracy: float
    loss: float
    group: int | None = None
    oracle: float | None = None

    def as_row(self) -> dict[str, str | int | float]:
        """The fields that are known, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The result of one evaluation.

    Attributes:
        users: one score for each held-out set with pairs, in the population's order.
        aggregate: numbers over all of them. Always ``pair_accuracy``, ``user_accuracy``,
            ``worst_decile``, ``gini``, ``loss`` (nats), ``brier``, ``ece``; from two users on the 95 %
            intervals ``pair_accuracy_low``/``_high`` and ``user_accuracy_low``/``_high``; where the
            truth is known ``worst_group``, ``oracle`` and ``regret``, as means over users.
    """

    users: Sequence[UserScore]
    aggregate: Mapping[str, float]


def evaluate(
    rule: ClientRule, strategy: Strategy[Any], state: Any, population: Population, rng: np.random.Generator
) -> Evaluation:
    """Score what ``strategy`` serves to the owner of each held-out set.

    Several served models vote (``metrics.vote``). Sets that get the very same arrays are scored in one
    call of ``rule.margins``. With a known truth every number is an expectation over labels.

    Args:
        rule: turns weights and pairs into margins.
        strategy: says which models serve whom.
        state: the strategy's state.
        population: held-out pairs and, if known, the truth.
        rng: the draws of the bootstrap.

    Raises:
        ConfigurationError: there is no held-out pair.
        FederationError: a margin is not finite, or there is not one a pair.
    """
    indices = [index for index, held_out in enumerate(population.held_out) if len(held_out.pairs)]
    if not indices:
        raise ConfigurationError("the population has no held-out pairs: hold some out to evaluate on")
    truth = population.truth
    margins = _margins(rule, strategy, state, population, indices)
    p_chosen = None if truth is None else {index: truth.p_chosen(index) for index in indices}
    users = [
        _score(population, index, margins[index], None if p_chosen is None else p_chosen[index])
        for index in indices
    ]
    every_margin = np.concatenate([margins[index] for index in indices])
    every_p = None if p_chosen is None else np.concatenate([p_chosen[index] for index in indices])
    return Evaluation(tuple(users), _aggregate(users, every_margin, every_p, rng))


def _score(population: Population, index: int, margins: np.ndarray, p_chosen: np.ndarray | None) -> UserScore:
    held_out, truth = population.held_out[index], population.truth
    return UserScore(
        name=held_out.name,
        client_id=held_out.client_id,
        num_pairs=len(margins),
        accuracy=float(metrics.correctness(margins, p_chosen).mean()),
        loss=float(metrics.log_loss(margins, p_chosen).mean()),
        group=None if truth is None else int(truth.groups[index]),
        oracle=None if p_chosen is None else metrics.bayes_accuracy(p_chosen),
    )


def _aggregate(
    users: Sequence[UserScore], margins: np.ndarray, p_chosen: np.ndarray | None, rng: np.random.Generator
) -> dict[str, float]:
    accuracies = np.array([user.accuracy for user in users])
    num_pairs = np.array([user.num_pairs for user in users], dtype=np.float64)
    values = {
        "pair_accuracy": float(metrics.correctness(margins, p_chosen).mean()),
        "user_accuracy": float(accuracies.mean()),
        "worst_decile": metrics.worst_decile(accuracies),
        "gini": metrics.gini(accuracies),
        "loss": float(metrics.log_loss(margins, p_chosen).mean()),
        "brier": float(metrics.brier(margins, p_chosen).mean()),
        "ece": metrics.calibration_error(margins, p_chosen),
    }
    if len(users) > 1:
        for name, weights in (("pair_accuracy", num_pairs), ("user_accuracy", np.ones_like(num_pairs))):
            low, high = metrics.bootstrap_interval(accuracies * weights, weights, rng)
            values |= {f"{name}_low": low, f"{name}_high": high}
    groups = [user.group for user in users if user.group is not None]
    oracles = [user.oracle for user in users if user.oracle is not None]
    if groups and oracles:
        oracle = float(np.mean(oracles))
        values["worst_group"] = metrics.worst_group(accuracies, groups)
        values |= {"oracle": oracle, "regret": oracle - values["user_accuracy"]}
    return values


def _margins(
    rule: ClientRule, strategy: Strategy[Any], state: Any, population: Population, indices: Sequence[int]
) -> dict[int, np.ndarray]:
    """Margins of every held-out set in ``indices``; one call per set of served models."""
    # All served weights stay referenced until the end: an identity is only unique among living objects.
    served = {index: strategy.serve(state, population.held_out[index].client_id) for index in indices}
    together: dict[Hashable, list[int]] = {}
    for index, models in served.items():
        together.setdefault(_identity(models), []).append(index)
    margins: dict[int, np.ndarray] = {}
    for members in together.values():
        pairs = _together(population, tuple(members))
        voted = metrics.vote(np.stack([_checked(rule, model, pairs) for model in served[members[0]]]))
        ends = np.cumsum([len(population.held_out[index].pairs) for index in members])
        margins.update(zip(members, np.split(voted, ends[:-1]), strict=True))
    return margins


def _identity(models: Sequence[Weights]) -> Hashable:
    """Equal for sets that are served the same arrays, also where the mapping around them is new."""
    return tuple(tuple(sorted((name, id(array)) for name, array in model.items())) for model in models)


def _checked(rule: ClientRule, model: Weights, pairs: Pairs) -> np.ndarray:
    margins = np.asarray(rule.margins(model, pairs), dtype=np.float64)
    if margins.shape != (len(pairs),):
        raise FederationError(f"evaluation: {len(pairs)} pairs but margins of shape {margins.shape}")
    num_bad = int(np.count_nonzero(~np.isfinite(margins)))
    if num_bad:
        raise FederationError(
            f"evaluation: {num_bad} of {len(margins)} margins are not finite: the served model has"
            " diverged; lower the learning rate"
        )
    return margins


def _together(population: Population, members: tuple[int, ...]) -> Pairs:
    """Pairs of several held-out sets as one object, the same at every evaluation of a global model.

    Rules keep what they compute for an object; the last few groupings of a population are remembered.
    """
    kept = _kept_groupings.setdefault(population, {})
    if members not in kept:
        while len(kept) >= _MOST_GROUPINGS:
            del kept[next(iter(kept))]
        kept[members] = _joined([population.held_out[index].pairs for index in members])
    return kept[members]


def _joined(parts: Sequence[Pairs]) -> Pairs:
    """All pairs of several owners, in order."""
    if len(parts) == 1:
        return parts[0]

    def join(name: str) -> Any:
        columns = [getattr(part, name) for part in parts]
        if isinstance(columns[0], np.ndarray):
            return np.concatenate(columns)
        return tuple(value for column in columns for value in column)

    return Pairs(*(join(name) for name in Pairs.__dataclass_fields__))
