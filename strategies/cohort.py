"""Who works next: the draws that all strategies share."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.types import ClientId

__all__ = ["check_cohort", "draw_cohort", "refill"]


def check_cohort(cohort_size: int | None, num_clients: int) -> None:
    """Refuse a cohort that the population cannot fill.

    Raises:
        ConfigurationError: the cohort is empty or larger than the population.
    """
    if cohort_size is not None and cohort_size < 1:
        raise ConfigurationError(f"cohort_size={cohort_size} must be at least 1")
    if cohort_size is not None and cohort_size > num_clients:
        raise ConfigurationError(
            f"cohort_size={cohort_size} is larger than the population of {num_clients} clients; "
            f"set cohort_size={num_clients} or less, or cohort_size=null for everybody"
        )


def draw_cohort(
    idle: Sequence[ClientId], cohort_size: int | None, rng: np.random.Generator
) -> list[ClientId]:
    """``cohort_size`` of the idle clients, uniformly without replacement, in ascending order.

    Fewer where fewer are idle; all of them where ``cohort_size`` is None.

    Args:
        idle: ascending, as every plan gets them.
        cohort_size: how many, at least 0.
        rng: nothing is drawn from it where everybody is chosen.
    """
    if cohort_size is None or cohort_size >= len(idle):
        return [int(client) for client in idle]
    if cohort_size <= 0:
        return []
    return sorted(int(idle[i]) for i in rng.choice(len(idle), size=cohort_size, replace=False))


def refill(
    idle: Sequence[ClientId],
    concurrency: int | None,
    in_flight: int,
    rng: np.random.Generator,
    besides: Collection[ClientId] = (),
) -> list[ClientId]:
    """Idle clients that bring the tasks in flight back to ``concurrency``, drawn as a cohort is.

    Args:
        idle: ascending, as every plan gets them.
        concurrency: tasks in flight at all times; None is everybody.
        in_flight: tasks that have not ended.
        rng: nothing is drawn from it where all idle clients are chosen.
        besides: idle clients that are to get no task.
    """
    missing = None if concurrency is None else concurrency - in_flight
    if missing is not None and missing <= 0:  # most of the time, and the population may be large
        return []
    free = [client for client in idle if client not in besides] if besides else idle
    return draw_cohort(free, missing, rng)
