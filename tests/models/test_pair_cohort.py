"""Pair heads trained together: only those whose steps are a reward head's."""

import numpy as np
import pytest

from fedpref.models import Given
from fedpref.models.pair_head import BIAS, WEIGHT, PairHead
from fedpref.models.selector_head import Course
from fedpref.seeds import generator
from fedpref.types import Pairs, Weights

DIM = 12
HEAD = PairHead(Given(DIM), lr=0.6)


def pairs(num_pairs: int, seed: int) -> Pairs:
    chosen, rejected = generator(seed, "pairs").standard_normal((2, num_pairs, DIM)).astype(np.float32)
    ids = tuple(f"{seed}/{i}" for i in range(num_pairs))
    return Pairs(("",) * num_pairs, chosen, rejected, ids, ("",) * num_pairs)


def unbiased(seed: int = 0) -> Weights:
    half = generator(seed, "half").standard_normal((1, DIM)).astype(np.float32)
    return {WEIGHT: np.concatenate([half, -half], axis=1), BIAS: np.zeros(1, np.float32)}


def course(weights: Weights, num_pairs: int = 9, steps: int = 6, mu: float = 0.0, seed: int = 0) -> Course:
    rows = np.arange(num_pairs)[1:]  # the first is held back
    rng = generator(seed, "batches")
    batches = [rng.permutation(num_pairs - 1)[:4] for _ in range(steps)]
    return Course(weights, pairs(num_pairs, seed), rows, batches, mu)


@pytest.mark.parametrize("mu", [0.0, 0.8])
@pytest.mark.parametrize("num_pairs", [9, 60])
def test_heads_without_bias_end_where_each_ends_alone(num_pairs: int, mu: float) -> None:
    courses = [course(unbiased(i), num_pairs, 6 + i, mu, seed=i) for i in range(4)]
    for each, result in zip(courses, HEAD.train_together(courses, 5), strict=True):
        assert result is not None
        batches = [each.rows[places] for places in each.batches]
        alone = HEAD.train(each.weights, each.pairs, batches, each.mu, generator(0))
        assert result.trained.flops == alone.flops and result.trained.skipped == 0
        for key, array in alone.weights.items():
            np.testing.assert_allclose(result.trained.weights[key], array, atol=1e-5)
        for weights, both in ((each.weights, result.before), (alone.weights, result.after)):
            expected = HEAD.both_orders(weights, each.pairs, each.rows[:5])
            np.testing.assert_allclose(both, expected, atol=1e-5)


def test_a_head_with_a_bias_has_to_train_alone() -> None:
    liking_a = {**unbiased(), BIAS: np.ones(1, np.float32)}
    skewed = {**unbiased(), WEIGHT: np.ones((1, 2 * DIM), np.float32)}
    found = HEAD.train_together([course(liking_a), course(unbiased()), course(skewed)], 5)
    assert [result is None for result in found] == [True, False, True]


def test_adamw_and_courses_without_a_step_are_not_for_a_stack() -> None:
    adamw = PairHead(Given(DIM), lr=0.01, optimizer="adamw")
    assert adamw.train_together([course(unbiased())], 5) == [None]
    assert HEAD.train_together([course(unbiased(), steps=0)], 5) == [None]


def test_a_head_that_is_no_number_has_to_train_alone_and_spoils_no_other() -> None:
    broken = {key: np.full_like(array, np.nan) for key, array in unbiased().items()}
    huge = course(unbiased())
    huge.pairs.chosen[3] = np.nan  # the features
    found = HEAD.train_together([course(broken), huge, course(unbiased(2), seed=2)], 5)
    assert [result is None for result in found] == [True, True, False]
