"""Metrics of people who are drawn anew."""

from __future__ import annotations

import numpy as np
import pytest

from fedpref.evaluation import metrics, redrawn

VALUES = np.array([0.2, 0.9, 0.4, 0.7, 0.6])
ONCE = np.ones((1, 5))
# Nobody twice, the third person twice, the first alone.
TIMES = np.array([[1.0, 1, 1, 1, 1], [0, 1, 2, 1, 1], [5, 0, 0, 0, 0]])


def drawn_from(times: np.ndarray) -> np.ndarray:
    return np.repeat(VALUES, times.astype(int))


def test_everybody_once_gives_the_metrics_themselves() -> None:
    groups = np.array([0, 0, 1, 1, 1])
    assert redrawn.worst_share(ONCE, VALUES)[0] == pytest.approx(metrics.worst_decile(VALUES))
    assert redrawn.worst_group(ONCE, VALUES, groups)[0] == pytest.approx(metrics.worst_group(VALUES, groups))
    assert redrawn.mean(ONCE, VALUES, np.ones(5))[0] == pytest.approx(VALUES.mean())


def test_who_is_drawn_twice_counts_twice() -> None:
    people = [drawn_from(times) for times in TIMES]
    np.testing.assert_allclose(redrawn.mean(TIMES, VALUES, np.ones(5)), [each.mean() for each in people])
    for share in (0.1, 0.3, 1.0):
        expected = [metrics.worst_decile(each, share) for each in people]
        np.testing.assert_allclose(redrawn.worst_share(TIMES, VALUES, share), expected)


def test_a_group_that_nobody_was_drawn_from_is_not_the_worst() -> None:
    groups = np.array([0, 1, 1, 1, 1])
    found = redrawn.worst_group(TIMES, VALUES, groups)
    np.testing.assert_allclose(found, [0.2, drawn_from(TIMES[1]).mean(), 0.2])


def test_weights_of_a_mean_are_pairs() -> None:
    """2 of 10, 9 of 10 and so on; the last person judged 30."""
    num_pairs = np.array([10, 10, 10, 10, 30])
    right = 2 + 9 + 4 + 7 + 18
    assert redrawn.mean(ONCE, VALUES, num_pairs)[0] == pytest.approx(right / 70)


def test_a_draw_without_anybody_has_no_value() -> None:
    nobody = np.zeros((1, 5))
    assert np.isnan(redrawn.mean(nobody, VALUES, np.ones(5)))
    assert np.isnan(redrawn.worst_share(nobody, VALUES))
    assert np.isnan(redrawn.worst_group(nobody, VALUES, np.zeros(5)))


def test_draws_are_the_same_however_many_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def draws() -> np.ndarray:
        return np.concatenate(list(redrawn.draws_of(7, np.random.default_rng(0), 50)))

    at_once = draws()
    monkeypatch.setattr(redrawn, "_MOST_ENTRIES", 20)
    np.testing.assert_array_equal(draws(), at_once)
    assert (at_once.sum(axis=1) == 7).all()
