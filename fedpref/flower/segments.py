"""Local work in two segments, so that a client can take up a fresh model half-way, whatever its rule.

A task of kind "train" with the setting ``split_at`` is the first segment: that share of the local steps.
The client keeps the local weights at home and answers without any. A task of kind "resume" with the
settings ``split_at`` and ``mix`` is the second: it brings a fresh model, and the client does the other
steps from ``(1 - mix) kept + mix fresh``. The rule sees two ordinary training tasks and knows of neither:
each draws its own batches, and an optimiser starts afresh in the second, which changes nothing for SGD.

Source: Liu et al. 2024, "FedASMU: Efficient Asynchronous Federated Learning with Dynamic Staleness-aware
Model Update", arXiv:2312.05770, whose devices ask for the fresh model in the middle of their work.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from fedpref.errors import ConfigurationError, FederationError
from fedpref.maths.weights import add_delta, difference
from fedpref.types import ClientRule, ClientState, Reply, Shard, Task, Weights

__all__ = ["answer_segment", "as_training", "is_segment", "keeps_segment"]

_KEPT = "fedpref.segment/"  # of array names in a client's state; rules never see them


def as_training(task: Task, rule: ClientRule) -> Task:
    """A segment as the training task that the rule sees, with its own local steps; other tasks as they are.

    Each segment has a step at least, where there are two.

    Raises:
        ConfigurationError: the share is not in (0, 1), or nobody says how many steps there are.
    """
    if not is_segment(task):
        return task
    split_at = float(task.settings.get("split_at", math.nan))
    if not 0 < split_at < 1:
        raise ConfigurationError(f"the setting split_at={split_at} of a segment must be between 0 and 1")
    steps = task.settings.get("local_steps", getattr(rule, "local_steps", None))
    if steps is None:
        raise ConfigurationError(
            f"{type(rule).__name__} has no local_steps that could be split; set strategy.local_steps"
        )
    total = int(steps)
    first = max(min(1, total), min(round(split_at * total), total - 1))
    segment = first if _is_first(task) else total - first
    own = {name: value for name, value in task.settings.items() if name not in ("split_at", "mix")}
    return dataclasses.replace(task, kind="train", settings={**own, "local_steps": segment})


def is_segment(task: Task) -> bool:
    """True for a part of a task, after which or before which the client takes up a fresh model."""
    return _is_first(task) or _is_second(task)


def keeps_segment(state: ClientState) -> bool:
    """True if a first segment waits in what the client keeps."""
    return any(key.startswith(_KEPT) for key in state.arrays)


def answer_segment(
    rule: ClientRule, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
) -> tuple[Reply, ClientState]:
    """Have the rule work on a task that may be a segment.

    What the first segment keeps lasts for one task: the second takes it up, any other drops it.

    Args:
        rule: what works.
        task: any task; one that is no segment goes to the rule as it is.
        shard: of the client.
        state: of the client: what the rule keeps, and what a first segment has kept.
        rng: the task's draws.

    Raises:
        ConfigurationError: a setting is out of range, or the fresh model has other keys.
        FederationError: there is nothing to take up.
    """
    kept = {k.removeprefix(_KEPT): array for k, array in state.arrays.items() if k.startswith(_KEPT)}
    own = {k: array for k, array in state.arrays.items() if not k.startswith(_KEPT)}
    seen = as_training(task, rule)
    if _is_second(task):
        seen = dataclasses.replace(seen, weights=_mixed(task, kept))
    reply, after = rule.answer(seen, shard, ClientState(own, state.numbers), rng)
    if not _is_first(task):
        return reply, after
    arrays = {**after.arrays, **{_KEPT + key: array for key, array in reply.weights.items()}}
    return reply._replace(weights={}), ClientState(arrays, after.numbers)


def _is_first(task: Task) -> bool:
    return task.kind == "train" and "split_at" in task.settings


def _is_second(task: Task) -> bool:
    return task.kind == "resume" and "mix" in task.settings


def _mixed(task: Task, kept: Weights) -> Weights:
    mix = float(task.settings["mix"])
    if not 0 <= mix <= 1:
        raise ConfigurationError(f"the setting mix={mix} of a resumed task must be between 0 and 1")
    if not kept:
        raise FederationError("the task resumes work of which this client has kept nothing")
    if kept.keys() != task.weights.keys():
        raise ConfigurationError(
            f"the fresh model has {sorted(task.weights)}, but the client works on {sorted(kept)}"
        )
    return add_delta(kept, difference(task.weights, kept), mix)
