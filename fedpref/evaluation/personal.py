"""What a client's own part is worth: everybody beside what a newcomer without any pairs is served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedpref.evaluation import metrics
from fedpref.evaluation.answers import together, voted_answer
from fedpref.types import ClientRule, ClientState, Personal, Population, Strategy, Weights

__all__ = ["HARM", "effects", "shared_accuracies", "shared_models"]

HARM = 0.02
"""Who is served worse than by the shared model by more than this is harmed."""


def shared_models(rule: ClientRule, strategy: Strategy[Any], state: Any) -> Sequence[Weights]:
    """What serves somebody of whom nothing is known; a personal rule adds the prior of its population."""
    models = strategy.serve(state, None)
    if not isinstance(rule, Personal):
        return models
    return [rule.personalise(model, None, ClientState()) for model in models]


def shared_accuracies(
    rule: ClientRule, strategy: Strategy[Any], state: Any, population: Population, indices: Sequence[int]
) -> np.ndarray:
    """Accuracy of :func:`shared_models` on each of the held-out sets ``indices``, shape (len(indices),).

    Also of a plain global model, which is the reference of personal ones on the same population. With a
    known truth an accuracy is an expectation over labels.

    Args:
        rule: turns weights and pairs into margins.
        strategy: says which models serve a newcomer.
        state: the strategy's state.
        population: the held-out sets and, if known, the truth.
        indices: at least one; each set has pairs.

    Raises:
        FederationError: a margin is not finite, or there is not one a pair.
    """
    pairs = together(population, tuple(indices))
    margins = voted_answer(rule, shared_models(rule, strategy, state), pairs).margins
    ends = np.cumsum([len(population.held_out[index].pairs) for index in indices])[:-1]
    truth = population.truth
    return np.array(
        [
            metrics.correctness(part, None if truth is None else truth.p_chosen(index)).mean()
            for index, part in zip(indices, np.split(margins, ends), strict=True)
        ]
    )


def effects(own: Sequence[float], shared: Sequence[float]) -> dict[str, float]:
    """``shared_accuracy``, ``personal_gain`` and ``harmed``: means over users; nothing if there are none.

    Args:
        own: accuracy of each user's own model.
        shared: accuracy of the shared model on the same user.

    Returns:
        The mean of ``shared``, the mean gain over it, and the share of users who lose more than ``HARM``.

    Raises:
        ValueError: the lengths differ.
    """
    if len(own) != len(shared):
        raise ValueError(f"{len(own)} users have models of their own, {len(shared)} a shared one")
    if not own:
        return {}
    gains = np.asarray(own) - np.asarray(shared)
    return {
        "shared_accuracy": float(np.mean(shared)),
        "personal_gain": float(gains.mean()),
        "harmed": float((gains < -HARM).mean()),
    }
