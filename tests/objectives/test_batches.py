from __future__ import annotations

import numpy as np
import pytest

from fedpref.errors import ConfigurationError
from fedpref.objectives.batches import batches
from fedpref.objectives.local import reported_loss, steps_and_mu
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
