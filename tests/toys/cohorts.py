"""That a batched form of a client rule gives what the rule gives one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedpref.seeds import generator
from fedpref.types import ClientState, Personal, PersonalInCohorts, Shard, Task, Weights

__all__ = ["assert_cohort_equals_singles", "assert_parts_equal_singles"]


def assert_cohort_equals_singles(
    rule: Any,
    tasks: Sequence[Task],
    shards: Sequence[Shard],
    states: Sequence[ClientState] | None = None,
    tolerance: float = 1e-5,
) -> None:
    """Weights, numbers of pairs, metrics and states agree to ``tolerance``, names and order exactly.

    Metrics that count (steps, pairs, operations) are compared relatively.
    """
    states = [ClientState()] * len(tasks) if states is None else states
    draws = [[generator(0, "task", i) for i in range(len(tasks))] for _ in range(2)]
    alone = [rule.answer(*each) for each in zip(tasks, shards, states, draws[0], strict=True)]
    together = rule.answer_cohort(tasks, shards, states, draws[1])
    assert len(together) == len(alone)
    for (reply, state), (expected, kept) in zip(together, alone, strict=True):
        assert reply.num_pairs == expected.num_pairs
        _agree(reply.weights, expected.weights, tolerance)
        assert reply.metrics.keys() == expected.metrics.keys()
        for name, value in expected.metrics.items():
            np.testing.assert_allclose(
                reply.metrics[name], value, rtol=tolerance, atol=tolerance, err_msg=name
            )
        _agree(state.arrays, kept.arrays, tolerance)
        assert dict(state.numbers) == dict(kept.numbers)
    for one, other in zip(*draws, strict=True):  # as much was drawn
        assert one.random() == other.random()


def assert_parts_equal_singles(
    rule: Personal,
    weights: Sequence[Weights],
    shards: Sequence[Shard | None],
    states: Sequence[ClientState] | None = None,
    tolerance: float = 1e-5,
) -> None:
    """What serves each client agrees to ``tolerance``, names, types and order exactly."""
    states = [ClientState()] * len(weights) if states is None else states
    expected = [rule.personalise(*entry) for entry in zip(weights, shards, states, strict=True)]
    assert isinstance(rule, PersonalInCohorts)
    together = rule.personalise_cohort(weights, shards, states)
    assert len(together) == len(weights)
    for found, alone in zip(together, expected, strict=True):
        _agree(found, alone, tolerance)
    assert list(rule.personalise_cohort([], [], [])) == []


def _agree(found: Any, expected: Any, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        assert found[key].dtype == array.dtype and found[key].shape == array.shape
        np.testing.assert_allclose(found[key], array, rtol=tolerance, atol=tolerance, err_msg=key)
