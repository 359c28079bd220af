"""Which point a search tries next: a pure function of the trials before it, so that any search can go on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedpref.cli.space import Choice, Dimension, Point
from fedpref.errors import ConfigurationError
from fedpref.seeds import generator, number

__all__ = ["Tried", "propose", "require_optuna"]


@dataclass(frozen=True)
class Tried:
    """A point that was tried.

    Attributes:
        point: a value of each option.
        value: what is to be large; None where the trial failed.
    """

    point: Point
    value: float | None


def require_optuna() -> Any:
    """The module ``optuna``, told to keep its log to itself.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise ConfigurationError(
            "a search needs Optuna, which is not installed; install it with: pip install 'fedpref[tune]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def propose(space: Sequence[Dimension], tried: Sequence[Tried], seed: int) -> Point | None:
    """The next point, or None where every point of a finite space was tried.

    Args:
        space: what is searched.
        tried: all trials so far, in order.
        seed: the run's seed; with the number of the trial the address of its draws.

    Raises:
        ConfigurationError: Optuna is not installed.

    Source: Bergstra et al. 2011 (tree-structured Parzen estimator), as Optuna has it; the first ten trials
        are drawn at random.
    """
    optuna = require_optuna()
    distributions = {dimension.key: _distribution(optuna, dimension) for dimension in space}
    sampler = optuna.samplers.TPESampler(seed=number(seed, "tune", len(tried)))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in tried:
        state = optuna.trial.TrialState.FAIL if trial.value is None else optuna.trial.TrialState.COMPLETE
        study.add_trial(
            optuna.trial.create_trial(
                state=state, value=trial.value, params=dict(trial.point), distributions=distributions
            )
        )
    drawn = study.ask(distributions).params
    point: Point = {
        dimension.key: drawn[dimension.key]
        if isinstance(dimension, Choice)
        else dimension.rounded(drawn[dimension.key])
        for dimension in space
    }
    points = [trial.point for trial in tried]
    if point not in points:
        return point
    choices = [dimension for dimension in space if isinstance(dimension, Choice)]
    if len(choices) < len(space):
        return point
    keys = [choice.key for choice in choices]
    grid = (
        dict(zip(keys, values, strict=True))
        for values in itertools.product(*(choice.values for choice in choices))
    )
    untried = [other for other in grid if other not in points]
    if not untried:
        return None
    return untried[generator(seed, "tune", "untried", len(tried)).integers(len(untried))]


def _distribution(optuna: Any, dimension: Dimension) -> Any:
    if isinstance(dimension, Choice):
        return optuna.distributions.CategoricalDistribution(dimension.values)
    return optuna.distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.is_log)
