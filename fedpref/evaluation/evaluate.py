"""Evaluate what a strategy serves, on every held-out set of a population."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.evaluation import metrics
from fedpref.evaluation.answers import (
    Kept,
    answer_of,
    answers_of,
    nothing_kept,
    shared_answers_of,
    together,
)
from fedpref.evaluation.groups import (
    Agreement,
    Grouping,
    adjusted_rand_index,
    agreement,
    normalised_mutual_information,
)
from fedpref.evaluation.personal import effects
from fedpref.evaluation.span import SpanRecovery, recovered_span
from fedpref.types import ClientId, ClientRule, Population, Strategy, Weights

__all__ = ["Evaluation", "UserScore", "evaluate", "model_agreement"]


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
        served_by: group that the strategy put its client in, if it has.
        shared_accuracy: accuracy without the client's own part, if the rule is personal; it has one.
    """

    name: str
    client_id: ClientId | None
    num_pairs: int
    accuracy: float
    loss: float
    group: int | None = None
    oracle: float | None = None
    served_by: int | None = None
    shared_accuracy: float | None = None

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
            truth is known ``worst_group``, ``oracle`` and ``regret``, as means over users; for a selector
            ``position_bias`` and ``position_bias_sd`` (logits) and ``order_consistency`` of what is served,
            where several models vote of their mean logit; for groups against the truth ``ari``, ``nmi``;
            for a personal rule ``shared_accuracy``, ``personal_gain`` and ``harmed`` (see ``personal``);
            ``span_recovery`` where ``span`` is known.
        groups: group of every client that the strategy put in one; None if it knows no groups.
        span: the shared span against true tastes, if the rule has one and they are known.
    """

    users: Sequence[UserScore]
    aggregate: Mapping[str, float]
    groups: Mapping[ClientId, int] | None = None
    span: SpanRecovery | None = None


def evaluate(
    rule: ClientRule,
    strategy: Strategy[Any],
    state: Any,
    population: Population,
    rng: np.random.Generator,
    kept: Kept = nothing_kept,
) -> Evaluation:
    """Score what ``strategy`` serves to the owner of each held-out set.

    Several served models vote (``metrics.vote``). Sets that get the very same arrays are scored in one
    call of the rule: of ``both_orders`` if it has that, else of ``margins``. With a known truth every
    accuracy and loss is an expectation over labels. People with shots are left out: see ``few_shot``.

    Args:
        rule: turns weights and pairs into margins.
        strategy: says which models serve whom.
        state: the strategy's state.
        population: held-out pairs and, if known, the truth.
        rng: the draws of the bootstrap.
        kept: what clients keep, for rules that are personal.

    Raises:
        ConfigurationError: there is no held-out pair.
        FederationError: a margin is not finite, or there is not one a pair.
    """
    indices = _judged_by(population)
    truth = population.truth
    answers = answers_of(rule, strategy, state, population, indices, kept)
    groups = strategy.groups(state) if isinstance(strategy, Grouping) else None
    p_chosen = {} if truth is None else {index: truth.p_chosen(index) for index in indices}
    shared = {
        index: float(metrics.correctness(answer.margins, p_chosen.get(index)).mean())
        for index, answer in shared_answers_of(rule, strategy, state, population, indices).items()
    }
    users = [
        _score(population, index, answers[index].margins, p_chosen.get(index), groups or {}, shared)
        for index in indices
    ]
    every_margin = np.concatenate([answers[index].margins for index in indices])
    every_p = np.concatenate([p_chosen[index] for index in indices]) if p_chosen else None
    aggregate = _aggregate(users, every_margin, every_p, rng)
    aggregate |= _order_effects([answer.orders for answer in answers.values() if answer.orders is not None])
    both = [(user.accuracy, user.shared_accuracy) for user in users if user.shared_accuracy is not None]
    aggregate |= effects([own for own, _ in both], [without for _, without in both])
    if groups is not None:
        aggregate |= _match_with_truth(groups, population)
    span = recovered_span(rule, strategy, state, population)
    if span is not None:
        aggregate["span_recovery"] = span.held
    return Evaluation(tuple(users), aggregate, groups, span)


def model_agreement(rule: ClientRule, models: Mapping[str, Weights], population: Population) -> Agreement:
    """How often ``models`` choose alike on all held-out pairs together.

    Raises:
        ConfigurationError: there is no held-out pair.
        FederationError: a margin is not finite, or there is not one a pair.
    """
    pairs = together(population, tuple(_judged_by(population)))
    margins = np.stack([answer_of(rule, model, pairs).margins for model in models.values()])
    return Agreement(tuple(models), agreement(margins))


def _judged_by(population: Population) -> list[int]:
    """The held-out sets that a run is judged by: those with pairs, but without shots."""
    indices = [
        index
        for index, held_out in enumerate(population.held_out)
        if len(held_out.pairs) and held_out.shots is None
    ]
    if not indices:
        raise ConfigurationError("the population has no held-out pairs: hold some out to evaluate on")
    return indices


def _score(
    population: Population,
    index: int,
    margins: np.ndarray,
    p_chosen: np.ndarray | None,
    groups: Mapping[ClientId, int],
    shared: Mapping[int, float],
) -> UserScore:
    held_out, truth = population.held_out[index], population.truth
    client_id = held_out.client_id
    return UserScore(
        name=held_out.name,
        client_id=client_id,
        num_pairs=len(margins),
        accuracy=float(metrics.correctness(margins, p_chosen).mean()),
        loss=float(metrics.log_loss(margins, p_chosen).mean()),
        group=None if truth is None else int(truth.groups[index]),
        oracle=None if p_chosen is None else metrics.bayes_accuracy(p_chosen),
        served_by=None if client_id is None else groups.get(client_id),
        shared_accuracy=shared.get(index),
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


def _order_effects(orders: Sequence[np.ndarray]) -> dict[str, float]:
    """What a selector makes of the order of the responses; nothing for rules that see no order."""
    if not orders:
        return {}
    logits = np.concatenate(orders)
    bias = metrics.position_bias(logits)
    return {
        "position_bias": float(bias.mean()),
        "position_bias_sd": float(bias.std()),
        "order_consistency": metrics.order_consistency(logits),
    }


def _match_with_truth(groups: Mapping[ClientId, int], population: Population) -> dict[str, float]:
    """Indices of found against hidden groups, over the held-out sets whose clients are in a group."""
    if population.truth is None:
        return {}
    both = [
        (groups[held_out.client_id], int(true))
        for held_out, true in zip(population.held_out, population.truth.groups, strict=True)
        if held_out.client_id is not None and held_out.client_id in groups
    ]
    if len(both) < 2:
        return {}
    found, true = zip(*both, strict=True)
    return {"ari": adjusted_rand_index(found, true), "nmi": normalised_mutual_information(found, true)}
