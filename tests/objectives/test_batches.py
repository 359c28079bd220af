from __future__ import annotations

import numpy as np
import pytest

from fedpref.errors import ConfigurationError
from fedpref.objectives.batches import Drawn, batches, drawn
from fedpref.objectives.local import reported_loss, reported_losses, steps_and_mu
from fedpref.seeds import generator


def rng() -> np.random.Generator:
    return generator(0, "batches")


def test_every_epoch_sees_every_pair_once() -> None:
    rows = list(batches(num_pairs=10, batch_pairs=4, steps=6, rng=rng()))
    assert [len(row) for row in rows] == [4, 4, 2, 4, 4, 2]
    for epoch in (rows[:3], rows[3:]):
        assert sorted(np.concatenate(epoch).tolist()) == list(range(10))


def test_epochs_are_in_different_orders() -> None:
    rows = list(batches(num_pairs=50, batch_pairs=25, steps=4, rng=rng()))
    assert np.concatenate(rows[:2]).tolist() != np.concatenate(rows[2:]).tolist()


@pytest.mark.parametrize("batch_pairs", [None, 5, 99])
def test_a_batch_of_the_whole_shard_draws_nothing(batch_pairs: int | None) -> None:
    used, unused = rng(), rng()
    rows = list(batches(5, batch_pairs, 3, used))
    assert [row.tolist() for row in rows] == [[0, 1, 2, 3, 4]] * 3
    assert used.random() == unused.random()


def test_no_steps_give_no_batches() -> None:
    assert list(batches(5, 2, 0, rng())) == []


def test_settings_of_the_task_override_the_rule() -> None:
    assert steps_and_mu({"local_steps": 3, "proximal_mu": 0.5}, 30, 0.1) == (3, 0.5)
    assert steps_and_mu({}, 30, 0.1) == (30, 0.0)


@pytest.mark.parametrize("mu", [-0.1, 20.0, float("nan")])
def test_a_proximal_weight_that_diverges_is_refused(mu: float) -> None:
    with pytest.raises(ConfigurationError, match=r"strategy\.mu"):
        steps_and_mu({"proximal_mu": mu}, 30, 0.1)


def test_losses_are_reported_over_finite_margins_only() -> None:
    margins = np.array([np.nan, 0.0, np.inf])
    assert reported_loss("loss", margins) == {"loss": pytest.approx(np.log(2))}
    assert reported_loss("loss", margins[:1]) == {}


@pytest.mark.parametrize("num_pairs", [1, 7, 8, 10])
@pytest.mark.parametrize("batch_pairs", [None, 1, 4, 8, 20])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 11])
def test_batches_drawn_as_arrays_are_the_same_from_the_same_draws(
    num_pairs: int, batch_pairs: int | None, steps: int
) -> None:
    one, other = rng(), rng()
    rows, found = (
        list(batches(num_pairs, batch_pairs, steps, one)),
        drawn(num_pairs, batch_pairs, steps, other),
    )
    again = Drawn.of(rows)
    assert found.num_steps == again.num_steps == steps
    for mine, his in zip(found[:3], again[:3], strict=True):
        np.testing.assert_array_equal(mine, his)
    assert [own.tolist() for own in found.batches()] == [own.tolist() for own in rows]
    np.testing.assert_allclose(np.bincount(found.steps, found.shares, minlength=steps), np.ones(steps))
    assert one.random() == other.random()


def test_losses_of_several_are_those_of_each() -> None:
    margins = [
        np.array([0.5, -2.0, 3.0]),
        np.array([np.inf, np.nan]),
        np.array([-np.inf, 1.0, 800.0]),
        np.ones(1),
    ]
    expected = [reported_loss("loss", own) for own in margins]
    found = reported_losses("loss", margins)
    assert [set(own) for own in found] == [set(own) for own in expected]
    assert found == [pytest.approx(own) for own in expected]
