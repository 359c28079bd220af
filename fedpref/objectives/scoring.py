"""What a client answers when it is asked which of several models fits it best: a mean loss for each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.objectives.grouping import grouping_split, models_to_score
from fedpref.objectives.local import reported_loss
from fedpref.types import Reply, Settings, Shard, Task, Weights

__all__ = ["num_models", "scored"]


def num_models(settings: Settings) -> int:
    """How many models a task to score holds: what its settings say, else one."""
    return int(settings.get("num_selectors", 1))


def scored(
    task: Task,
    shard: Shard,
    rng: np.random.Generator,
    margins: Callable[[Weights, np.ndarray], np.ndarray],
    flops: Callable[[np.ndarray], float],
) -> Reply:
    """The answer to a task to score: ``loss_u`` of model u on the grouping pairs, in nats, and ``flops``.

    A loss that is not finite is left out. A client with a single pair, none of which is held back, draws its
    losses at random, so that it prefers no group.

    Args:
        task: whose weights hold model u under keys ``u/…``.
        shard: of the client.
        rng: the draws of who has a single pair.
        margins: of the pairs at some rows, under a model.
        flops: operations of one model on the pairs at some rows.

    Raises:
        ConfigurationError: fewer models than the settings tell.
    """
    models = models_to_score(task.weights)
    if len(models) < num_models(task.settings):
        raise ConfigurationError(
            f"client: {len(models)} models came to be scored, not {num_models(task.settings)}"
        )
    if len(shard.pairs) == 0:
        return Reply({}, 0, {})
    rows = grouping_split(shard, task.settings).grouping
    if rows is None:
        return Reply({}, len(shard.pairs), {f"loss_{u}": float(rng.random()) for u in models})
    metrics = {"flops": len(models) * float(flops(rows))}
    for u, weights in models.items():
        found = margins(weights, rows)
        if np.isfinite(found).all():
            metrics |= reported_loss(f"loss_{u}", found)
    return Reply({}, len(shard.pairs), metrics)
