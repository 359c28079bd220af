"""How many pairs of a newcomer it takes: a finished model, its shared tensors frozen, adapts to each of them.

The first k pairs of a shuffled set are the shots, so that larger sets hold the smaller ones; every method
sees the same shuffles, so that curves may be compared person by person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.evaluation import metrics
from fedpref.evaluation.answers import personalised, voted_answer
from fedpref.evaluation.personal import HARM, shared_accuracies
from fedpref.seeds import generator
from fedpref.types import ClientRule, ClientState, Personal, Population, Shard, Strategy, Weights

__all__ = [
    "LEAST_GAIN",
    "SHOT_COUNTS",
    "FewShotCurve",
    "Point",
    "curve_of",
    "few_shot",
    "newcomers",
    "unadapted",
]

SHOT_COUNTS = (0, 1, 2, 5, 10, 20, 50, 100)
"""Pairs shown, of one newcomer."""

LEAST_GAIN = 0.005
"""A mean gain below this does not count as better than the reference."""

_NOBODY = -1
"""Client id of a newcomer's shard: it is none of the population's."""


@dataclass(frozen=True)
class Point:
    """One number of shots, over all newcomers.

    Attributes:
        shots: pairs shown; a person who has fewer shows all.
        accuracy: mean over the people.
        gain: mean difference to the reference.
        gain_low: lower end of the gain's 95 % interval over people; None for one person alone.
        gain_high: upper end.
        accuracy_low: lower end of the accuracy's interval.
        accuracy_high: upper end.
        harmed: share of the people who lose more than ``personal.HARM``.
    """

    shots: int
    accuracy: float
    gain: float
    harmed: float
    gain_low: float | None = None
    gain_high: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None


@dataclass(frozen=True, eq=False)
class FewShotCurve:
    """Accuracy over the number of shots.

    Attributes:
        names: the newcomers.
        shots: pairs shown, ascending.
        accuracies: mean over the resamples, shape (num_counts, num_people).
        reference: accuracy of the model without adaptation that is to be beaten, shape (num_people,).
        points: means and intervals, one a number of shots.
        resamples: shuffles of each person's shots; 0 for a model that nothing adapts.
    """

    names: Sequence[str]
    shots: Sequence[int]
    accuracies: np.ndarray
    reference: np.ndarray
    points: Sequence[Point]
    resamples: int

    @property
    def k_star(self) -> int | None:
        """The fewest shots with a gain of ``LEAST_GAIN`` whose interval lies above 0, if any."""
        for point in self.points:
            if point.gain >= LEAST_GAIN and point.gain_low is not None and point.gain_low > 0.0:
                return point.shots
        return None

    def as_json(self) -> dict[str, Any]:
        """Plain data: the points, ``k_star``, ``resamples``, and one row of accuracies a person."""
        return {
            "k_star": self.k_star,
            "reference": float(self.reference.mean()),
            "resamples": self.resamples,
            "points": [{key: v for key, v in vars(point).items() if v is not None} for point in self.points],
            "people": [
                {"name": name, "reference": float(reference), "accuracies": own.tolist()}
                for name, reference, own in zip(self.names, self.reference, self.accuracies.T, strict=True)
            ],
        }


def newcomers(population: Population) -> list[int]:
    """The held-out sets of people who have shots and are asked something."""
    return [
        index
        for index, person in enumerate(population.held_out)
        if person.shots is not None and len(person.pairs)
    ]


def few_shot(
    rule: ClientRule,
    strategy: Strategy[Any],
    state: Any,
    population: Population,
    seed: int,
    reference: np.ndarray | None = None,
    counts: Sequence[int] = SHOT_COUNTS,
    resamples: int = 10,
) -> FewShotCurve:
    """The curve of a trained personal rule over all people with shots.

    Args:
        rule: adapts to a shard of k pairs, with nothing kept; at k = 0 it has no shard at all.
        strategy: says which models a newcomer starts from.
        state: the strategy's state; it does not change.
        population: people with shots, and the truth if it is known.
        seed: of the shuffles and the bootstrap; a shuffle depends on the person's name too.
        reference: accuracy of another model on each of ``newcomers(population)``, as
            ``personal.shared_accuracies`` gives it for a global model; by default that of this rule
            without any shots.
        counts: pairs to show, ascending; those beyond what anybody has are left out.
        resamples: shuffles of each person's shots.

    Raises:
        ConfigurationError: the rule is not personal, nobody has shots, or there is no resample.
        FederationError: a margin is not finite, or there is not one a pair.
        ValueError: there is not one reference a person.
    """
    if not isinstance(rule, Personal):
        raise ConfigurationError(
            f"client: {type(rule).__name__} has no personal part that could adapt to pairs"
        )
    if resamples < 1:
        raise ConfigurationError(f"resamples={resamples} must be at least 1")
    people = newcomers(population)
    if not people:
        raise ConfigurationError("nobody has pairs to adapt to: draw newcomers with data.unseen=30")
    shared = shared_accuracies(rule, strategy, state, population, people)
    reference = shared if reference is None else np.asarray(reference, dtype=np.float64)
    if reference.shape != shared.shape:
        raise ValueError(f"{len(people)} newcomers, but references of shape {reference.shape}")
    models = strategy.serve(state, None)
    most = max(_num_shots(population, index) for index in people)
    counts = [count for count in counts if count <= most]
    accuracies = np.stack(
        [
            _person(rule, models, population, index, counts, resamples, seed, float(without))
            for index, without in zip(people, shared, strict=True)
        ],
        axis=1,
    )
    names = [population.held_out[index].name for index in people]
    rng = generator(seed, "few_shot", "bootstrap")
    return curve_of(names, counts, accuracies, reference, resamples, rng)


def unadapted(
    rule: ClientRule, strategy: Strategy[Any], state: Any, population: Population, seed: int
) -> FewShotCurve:
    """The curve of a rule without a personal part: one point, since no pairs change what people are served.

    It is what personal rules have to beat on the same newcomers.

    Args:
        rule: of the finished model.
        strategy: says which models a newcomer is served.
        state: the strategy's state.
        population: at least one person with shots.
        seed: of the bootstrap.

    Raises:
        FederationError: a margin is not finite, or there is not one a pair.
    """
    people = newcomers(population)
    shared = shared_accuracies(rule, strategy, state, population, people)
    names = [population.held_out[index].name for index in people]
    rng = generator(seed, "few_shot", "bootstrap")
    return curve_of(names, (0,), shared[np.newaxis], shared, 0, rng)


def curve_of(
    names: Sequence[str],
    shots: Sequence[int],
    accuracies: np.ndarray,
    reference: np.ndarray,
    resamples: int,
    rng: np.random.Generator,
) -> FewShotCurve:
    """The curve of accuracies that are known, as of the newcomers of several runs together.

    Args:
        names: the newcomers, at least one.
        shots: pairs shown, ascending.
        accuracies: shape (num_counts, num_people).
        reference: what is to be beaten, shape (num_people,).
        resamples: how many shuffles each accuracy is a mean of.
        rng: the draws of the bootstrap.
    """
    points = [_point(count, row, reference, rng) for count, row in zip(shots, accuracies, strict=True)]
    return FewShotCurve(names, shots, accuracies, reference, points, resamples)


def _person(
    rule: Any,
    models: Sequence[Weights],
    population: Population,
    index: int,
    counts: Sequence[int],
    resamples: int,
    seed: int,
    without: float,
) -> np.ndarray:
    """Mean accuracy of one person at each count, shape (num_counts,)."""
    person, truth = population.held_out[index], population.truth
    assert person.shots is not None
    p_chosen = None if truth is None else truth.p_chosen(index)
    num_shots = len(person.shots)
    shown = [count for count in counts if min(count, num_shots) > 0]
    orders = [
        generator(seed, "few_shot", resample, person.name).permutation(num_shots)
        for resample in range(resamples)
    ]
    shards = [
        Shard(_NOBODY, person.name, person.shots.take(order[:count])) for order in orders for count in shown
    ]
    adapted = [
        personalised(rule, [model] * len(shards), shards, [ClientState()] * len(shards)) for model in models
    ]
    accuracies = [
        metrics.correctness(voted_answer(rule, own, person.pairs).margins, p_chosen).mean()
        for own in zip(*adapted, strict=True)
    ]
    means = np.reshape(accuracies, (resamples, len(shown))).mean(axis=0)
    return np.concatenate([np.full(len(counts) - len(shown), without), means])


def _num_shots(population: Population, index: int) -> int:
    shots = population.held_out[index].shots
    return 0 if shots is None else len(shots)


def _point(shots: int, accuracies: np.ndarray, reference: np.ndarray, rng: np.random.Generator) -> Point:
    gains, ones = accuracies - reference, np.ones(len(reference))
    intervals: dict[str, float] = {}
    if len(reference) > 1:
        for name, values in (("gain", gains), ("accuracy", accuracies)):
            low, high = metrics.bootstrap_interval(values, ones, rng)
            intervals |= {f"{name}_low": low, f"{name}_high": high}
    harmed = float((gains < -HARM).mean())
    return Point(shots, float(accuracies.mean()), float(gains.mean()), harmed, **intervals)
