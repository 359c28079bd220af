"""Convex solves of many clients at once: each client's are those that it finds alone."""

from __future__ import annotations

import numpy as np
import pytest

from fedpref.objectives.blocks import Blocks, once_each, stacks
from fedpref.objectives.convex import laplace
from fedpref.objectives.convex_cohort import laplaces, mean_losses
from fedpref.objectives.margin import mean_loss
from fedpref.seeds import generator

DIM = 4
COUNTS = (1, 3, 31, 32, 33, 100)


def _parts() -> list[np.ndarray]:
    return [generator(0, "rows", count).standard_normal((count, DIM)) for count in COUNTS]


def _matrices(many: int) -> np.ndarray:
    factors = generator(0, "factors").standard_normal((many, DIM, DIM))
    return np.matmul(factors, factors.swapaxes(1, 2)) + 0.1 * np.eye(DIM)


def test_blocks_sum_each_clients_rows_and_no_others() -> None:
    parts = _parts()
    blocks = Blocks.of(parts)
    vectors = generator(0, "vectors").standard_normal((len(parts), 2, DIM))
    products = blocks.products(vectors)
    sums, combined = blocks.sums(np.exp(products)), blocks.combined(products)
    moments, first_moments = blocks.second_moments(2)(products), blocks.second_moments(1)(products[:, :1])
    assert blocks.counts.tolist() == list(COUNTS)
    for i, rows in enumerate(parts):
        own = rows @ vectors[i].T
        np.testing.assert_allclose(sums[i], np.exp(own).sum(axis=0))
        np.testing.assert_allclose(combined[i], own.T @ rows)
        np.testing.assert_allclose(first_moments[i], moments[i, :1], atol=1e-12)
        for k in range(2):
            np.testing.assert_allclose(moments[i, k], (rows * own[:, k : k + 1]).T @ rows, atol=1e-12)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])  # of the features: at 30, full steps overshoot
def test_each_posterior_is_what_the_client_finds_alone(scale: float) -> None:
    parts = [scale * part for part in _parts()]
    means = generator(0, "means").standard_normal((len(parts), 3, DIM))
    precisions = _matrices(len(parts))
    found = laplaces(Blocks.of(parts), means, precisions)
    for i, part in enumerate(parts):
        for k in range(3):
            alone = laplace(part, means[i, k], precisions[i])
            np.testing.assert_allclose(found.weights[i, k], alone.weights, atol=1e-6)
            np.testing.assert_allclose(found.covariances[i, k], alone.covariance, rtol=1e-5, atol=1e-8)
            assert found.log_evidences[i, k] == pytest.approx(alone.log_evidence, rel=1e-8)
            assert found.flops[i, k] == alone.flops


def test_mean_losses_are_over_each_clients_own_pairs() -> None:
    parts = _parts()
    heads = 200 * generator(0, "heads").standard_normal((len(parts), 2, DIM))
    losses = mean_losses(Blocks.of(parts), heads)
    for i, part in enumerate(parts):
        np.testing.assert_allclose(losses[i], [mean_loss(part @ head) for head in heads[i]])


def test_what_is_the_very_same_is_computed_once() -> None:
    same, other, calls = {"a": np.zeros(1)}, {"a": np.zeros(1)}, []

    def compute(weights: dict[str, np.ndarray]) -> int:
        calls.append(weights)
        return len(calls)

    assert once_each([same, other, dict(same)], compute) == [1, 2, 1]


def test_stacks_keep_the_order_and_a_large_client_has_one_of_its_own() -> None:
    rows = {i: np.zeros((count, 1)) for i, count in enumerate([10, 200_000, 10, 20])}
    assert [list(stack) for stack in stacks(rows, 2)] == [[0], [1], [2, 3]]
    assert list(stacks({}, 2)) == []
