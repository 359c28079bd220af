import dataclasses
import itertools

import numpy as np
import pytest
from clock_toy import Clock

from fedpref.errors import ConfigurationError
from fedpref.maths.staleness import Constant, Polynomial
from fedpref.strategies.fedasync import FedAsync


def test_one_client_that_is_taken_whole_is_sequential_sgd_to_the_bit() -> None:
    clock = Clock(FedAsync(alpha=1.0), minima=[-0.7], seconds=[1.0]).run(20)
    value = np.float32(0.25)
    for _ in range(20):
        local = np.float64(value)
        for _ in range(clock.steps):
            local = local - clock.lr * (local - -0.7)
        value = np.float32(local)
    assert clock.value == float(value)


def test_alpha_one_without_discount_takes_the_clients_weights_to_the_bit() -> None:
    clock = Clock(
        FedAsync(alpha=1.0, staleness=Constant()), minima=[-0.3, 0.1, 1.7], seconds=[1.0, 0.7, 0.31]
    )
    for _ in range(12):
        *_, last = clock.advance()
        assert last.update is not None
        assert clock.value == float(last.update.weights["w"][0])


def test_the_model_moves_towards_an_answer_by_alpha_times_the_discount() -> None:
    strategy = FedAsync(alpha=0.5, staleness=Polynomial(1.0))
    clock = Clock(strategy, minima=[1.0, -1.0], seconds=[1.0, 0.4])
    for _ in range(10):
        before = clock.value
        (arrival,) = clock.advance()
        assert arrival.update is not None
        part = 0.5 / (1 + arrival.staleness)
        answer = float(arrival.update.weights["w"][0])
        assert clock.value == pytest.approx((1 - part) * before + part * answer, rel=1e-6)
    assert {arrival.staleness for arrival in clock.arrivals} >= {0, 1, 2}


def test_answers_of_one_instant_are_versions_one_after_the_other_and_age_those_behind_them() -> None:
    strategy = FedAsync(alpha=0.8, staleness=Polynomial(1.0), concurrency=3)
    clock = Clock(strategy, minima=[1.0, 2.0, -4.0], seconds=[1.0] * 3)
    arrivals = clock.advance()
    assert clock.version == 3
    assert [arrival.staleness for arrival in arrivals] == [0, 0, 0]
    value = 0.25
    for staleness, arrival in enumerate(arrivals):
        assert arrival.update is not None
        value += 0.8 / (1 + staleness) * (float(arrival.update.weights["w"][0]) - value)
    assert clock.value == pytest.approx(value, rel=1e-6)


def test_answers_that_are_too_stale_are_refused_and_make_no_version() -> None:
    minima, seconds = [1.0, -1.0], [10.0, 1.0]
    clock = Clock(FedAsync(max_staleness=3), minima, seconds)
    for _ in range(9):
        clock.advance()
    before, version = clock.value, clock.version
    state, arrivals = clock.state, clock.advance()  # task 0 and the tenth of the fast client, at 30 s
    rejected = [arrival for arrival in arrivals if arrival.staleness > 3]
    assert [arrival.task.client_id for arrival in rejected] == [0]
    fold = clock.strategy.fold(state, rejected, 0.0, np.random.default_rng(0))
    assert (list(fold.rejected), fold.updated) == (rejected, 0)
    assert float(fold.state.model.weights["w"][0]) == before
    assert clock.version == version + len(arrivals) - 1


def test_versions_before_an_answer_in_the_same_fold_count_towards_the_bound() -> None:
    clock = Clock(FedAsync(max_staleness=1), minima=[1.0] * 4, seconds=[1.0] * 4)
    clock.advance()
    assert clock.version == 2  # staleness 0 and 1; the others are 2 versions old by then


def test_the_proximal_term_travels_only_if_there_is_one() -> None:
    sent = [
        Clock(FedAsync(rho=rho), minima=[1.0], seconds=[1.0]).run(1).tasks[0].settings for rho in (0, 0.01)
    ]
    assert sent == [{}, {"proximal_mu": 0.01}]


def test_a_failure_changes_nothing_and_the_client_gets_the_current_model() -> None:
    clock = Clock(FedAsync(), minima=[1.0], seconds=[1.0], lost=frozenset({0}))
    clock.advance()
    assert (clock.version, clock.value) == (0, 0.25)
    clock.advance()
    assert clock.version == 1 and clock.tasks[1].client_id == 0


@pytest.mark.parametrize(
    ("key", "value"), [("alpha", 0.0), ("alpha", 1.5), ("rho", -1.0), ("max_staleness", -2)]
)
def test_values_that_cannot_be_meant_are_refused(key: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"strategy.{key}={value}"):
        dataclasses.replace(FedAsync(), **{key: value})  # type: ignore[arg-type]


def test_a_longer_delay_never_moves_the_model_further() -> None:
    steps = []
    for staleness in range(5):
        clock = Clock(FedAsync(), minima=[1.0], seconds=[1.0])
        state, plan = clock.strategy.plan(clock.state, [0], 0.0, np.random.default_rng(0))
        clock.tasks = list(plan.tasks)
        arrival = dataclasses.replace(clock._arrival(plan.tasks[0], 0.0), staleness=staleness)
        fold = clock.strategy.fold(state, [arrival], 0.0, np.random.default_rng(0))
        steps.append(float(fold.state.model.weights["w"][0]) - 0.25)
    assert all(earlier > later > 0 for earlier, later in itertools.pairwise(steps))
