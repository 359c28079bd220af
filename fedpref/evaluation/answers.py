"""What the served models answer on held-out pairs: each model asked once for all whom it serves."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import numpy as np

from fedpref.errors import FederationError
from fedpref.evaluation import metrics
from fedpref.types import (
    ClientId,
    ClientRule,
    ClientState,
    Pairs,
    Personal,
    PersonalInCohorts,
    Population,
    Shard,
    Strategy,
    Weights,
)

__all__ = [
    "Answer",
    "Kept",
    "OrderAware",
    "answer_of",
    "answers_of",
    "nothing_kept",
    "personalised",
    "shared_answers_of",
    "together",
    "voted_answer",
]

Kept = Callable[[ClientId], ClientState]
"""What a client keeps, as far as the server has accepted it."""


def nothing_kept(client_id: ClientId) -> ClientState:
    """Of clients without a memory."""
    return ClientState()


_MOST_GROUPINGS = 8
_kept_groupings: WeakKeyDictionary[Population, dict[tuple[int, ...], Pairs]] = WeakKeyDictionary()


@runtime_checkable
class OrderAware(Protocol):
    """A client rule whose logit depends on which response stands first, as a selector's does."""

    def both_orders(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        """Logits of (chosen, rejected) and (rejected, chosen), shape (num_pairs, 2), float64.

        Half their difference is the rule's margin.
        """
        ...


class Answer(NamedTuple):
    """Margins, shape (num_pairs,), and, if the rule sees the order, logits of both, (num_pairs, 2)."""

    margins: np.ndarray
    orders: np.ndarray | None


def answers_of(
    rule: ClientRule,
    strategy: Strategy[Any],
    state: Any,
    population: Population,
    indices: Sequence[int],
    kept: Kept,
) -> dict[int, Answer]:
    """What is answered on every held-out set in ``indices``; one call per set of served models.

    Where the rule is personal every client adds its own part first.

    Raises:
        FederationError: a margin is not finite, or there is not one a pair.
    """
    # All served weights stay referenced until the end: an identity is only unique among living objects.
    served = {index: strategy.serve(state, population.held_out[index].client_id) for index in indices}
    if isinstance(rule, Personal):
        return _asked(rule, population, _with_own_parts(rule, population, served, kept))
    return _asked(rule, population, served)


def personalised(
    rule: Personal, models: Sequence[Weights], shards: Sequence[Shard | None], states: Sequence[ClientState]
) -> list[Weights]:
    """Each model with its client's own part, in order: all together if the rule can, else one by one.

    Args:
        rule: adds the parts.
        models: what each client is served.
        shards: the clients' training pairs; None for a newcomer without any.
        states: what the clients keep.
    """
    if isinstance(rule, PersonalInCohorts):
        return list(rule.personalise_cohort(models, shards, states))
    return [rule.personalise(*each) for each in zip(models, shards, states, strict=True)]


def shared_answers_of(
    rule: ClientRule, strategy: Strategy[Any], state: Any, population: Population, indices: Sequence[int]
) -> dict[int, Answer]:
    """What a personal rule answers to everybody as it would to a newcomer, without any client's own part.

    Args:
        rule: turns weights and pairs into margins; one that is not personal has no answers here.
        strategy: says which models serve whom.
        state: the strategy's state.
        population: held-out pairs.
        indices: held-out sets; those of newcomers, who have no part of their own, are left out.

    Raises:
        FederationError: a margin is not finite, or there is not one a pair.
    """
    if not isinstance(rule, Personal):
        return {}
    known = [index for index in indices if population.held_out[index].client_id is not None]
    models = [rule.personalise(model, None, ClientState()) for model in strategy.serve(state, None)]
    return _asked(rule, population, dict.fromkeys(known, models))


def _with_own_parts(
    rule: Personal, population: Population, served: Mapping[int, Sequence[Weights]], kept: Kept
) -> dict[int, list[Weights]]:
    """What is served to every held-out set, with the part of its client, if that is known."""
    owners = {index: population.held_out[index].client_id for index in served}
    shards = {index: None if own is None else population.shards[own] for index, own in owners.items()}
    states = {index: ClientState() if own is None else kept(own) for index, own in owners.items()}
    asked = [(index, model) for index, models in served.items() for model in models]
    found = personalised(
        rule,
        [model for _, model in asked],
        [shards[index] for index, _ in asked],
        [states[index] for index, _ in asked],
    )
    own_models: dict[int, list[Weights]] = {index: [] for index in served}
    for (index, _), model in zip(asked, found, strict=True):
        own_models[index].append(model)
    return own_models


def _asked(
    rule: ClientRule, population: Population, served: Mapping[int, Sequence[Weights]]
) -> dict[int, Answer]:
    """The answers on every held-out set to which models are ``served``, each set of models asked once."""
    alike: dict[Hashable, list[int]] = {}
    for index, models in served.items():
        alike.setdefault(_identity(models), []).append(index)
    answers: dict[int, Answer] = {}
    for members in alike.values():
        pairs = together(population, tuple(members))
        voted = voted_answer(rule, served[members[0]], pairs)
        ends = np.cumsum([len(population.held_out[index].pairs) for index in members])[:-1]
        margins = np.split(voted.margins, ends)
        orders = [None] * len(members) if voted.orders is None else np.split(voted.orders, ends)
        answers.update(zip(members, map(Answer, margins, orders), strict=True))
    return answers


def voted_answer(rule: ClientRule, models: Sequence[Weights], pairs: Pairs) -> Answer:
    """What several models answer: margins by vote, logits as means over the models.

    Raises:
        FederationError: a margin is not finite, or there is not one a pair.
    """
    answers = [answer_of(rule, model, pairs) for model in models]
    orders = [answer.orders for answer in answers if answer.orders is not None]
    return Answer(
        metrics.vote(np.stack([answer.margins for answer in answers])),
        np.mean(orders, axis=0) if orders else None,
    )


def _identity(models: Sequence[Weights]) -> Hashable:
    """Equal for sets that are served the same arrays, also where the mapping around them is new."""
    return tuple(tuple(sorted((name, id(array)) for name, array in model.items())) for model in models)


def answer_of(rule: ClientRule, model: Weights, pairs: Pairs) -> Answer:
    """What one model answers.

    Raises:
        FederationError: a margin is not finite, or there is not one a pair.
    """
    if isinstance(rule, OrderAware):
        orders = _checked(rule.both_orders(model, pairs), (len(pairs), 2))
        return Answer((orders[:, 0] - orders[:, 1]) / 2.0, orders)
    return Answer(_checked(rule.margins(model, pairs), (len(pairs),)), None)


def _checked(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    margins = np.asarray(values, dtype=np.float64)
    if margins.shape != shape:
        raise FederationError(f"evaluation: {shape[0]} pairs but margins of shape {margins.shape}")
    num_bad = int(np.count_nonzero(~np.isfinite(margins)))
    if num_bad:
        raise FederationError(
            f"evaluation: {num_bad} of {margins.size} margins are not finite: the served model has"
            " diverged; lower the learning rate"
        )
    return margins


def together(population: Population, members: tuple[int, ...]) -> Pairs:
    """Pairs of several held-out sets as one object, the same at every evaluation of a global model.

    Rules keep what they compute for an object; the last few groupings of a population are remembered.
    """
    kept = _kept_groupings.setdefault(population, {})
    if members not in kept:
        while len(kept) >= _MOST_GROUPINGS:
            del kept[next(iter(kept))]
        kept[members] = Pairs.concatenated([population.held_out[index].pairs for index in members])
    return kept[members]
