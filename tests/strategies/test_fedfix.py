import dataclasses

import numpy as np
import pytest
from clock_toy import Clock

from fedpref.errors import ConfigurationError
from fedpref.seeds import generator
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.fedfix import FedFix, next_tick_s

RNG = generator(0, "minima")
MINIMA = [float(value) for value in RNG.normal(size=8)]
SECONDS = [float(value) for value in RNG.uniform(0.1, 0.33, size=8)]  # below 1 with 3 local steps
PAIRS = [int(value) for value in RNG.integers(1, 9, size=8)]


@pytest.mark.parametrize("window_s", [1.0, 0.7, 1 / 3, 60.0, 1e-3])
def test_ticks_are_the_multiples_of_the_window_and_every_one_comes(window_s: float) -> None:
    clock_s = 0.0
    for tick in range(1, 2000):
        clock_s = next_tick_s(clock_s, window_s)
        assert clock_s == tick * window_s
    assert next_tick_s(2.5 * window_s, window_s) == 3 * window_s


@pytest.mark.parametrize("share", ["clients", "pairs", "sqrt"])
@pytest.mark.parametrize("cohort_size", [3, None])
@pytest.mark.parametrize("lost", [frozenset(), frozenset({0, 4, 7})])
def test_a_window_above_the_slowest_is_fedavg_to_the_bit(
    share: str, cohort_size: int | None, lost: frozenset[int]
) -> None:
    average = FedAvg(cohort_size, share)  # type: ignore[arg-type]
    fixed = FedFix(1.0, concurrency=cohort_size, share=share)  # type: ignore[arg-type]
    one, other = (Clock(s, MINIMA, SECONDS, num_pairs=PAIRS, lost=lost).run(9) for s in (average, fixed))
    assert one.values == other.values


def test_a_window_of_exactly_the_slowest_is_fedavg_too() -> None:
    one, other = (Clock(s, MINIMA, [0.25] * 8, steps=4).run(9) for s in (FedAvg(), FedFix(1.0)))
    assert one.values == other.values
    assert one.clock_s == other.clock_s


def limit_of_two_quadratics(lr: float, weight_fast: float, weight_slow: float) -> float:
    """Fixed point at even ticks: minima 0 (slow, two windows) and 1 (fast, one), one step of ``lr`` each.

    ``first = w + weight_fast lr (1 - w)`` and
    ``w = first + weight_fast lr (1 - first) - weight_slow lr w``.
    """
    keep = 1 - weight_fast * lr
    return (1 - keep**2) / (1 - keep**2 + weight_slow * lr)


@pytest.mark.parametrize(("reweight", "published"), [(True, 0.499), (False, 0.666)])
def test_the_two_quadratics_of_the_theory_end_where_the_weights_say(reweight: bool, published: float) -> None:
    lr = 0.004
    strategy = FedFix(0.5, reweight=reweight)
    clock = Clock(strategy, [0.0, 1.0], [1.0, 0.5], steps=1, lr=lr, initial=0.5).run(4000)
    expected = limit_of_two_quadratics(lr, 0.5, 1.0 if reweight else 0.5)
    assert clock.values[-1] == pytest.approx(expected, abs=5e-5)  # float32 stands still below that
    assert clock.values[-1] == pytest.approx(published, abs=1.5e-3)


def test_slow_clients_that_hold_more_pairs_keep_their_share() -> None:
    # The optimum weights the minima 0 and 1 by pairs, 6 to 2, though the fast client comes twice as often.
    strategy = FedFix(0.5, share="pairs")
    clock = Clock(strategy, [0.0, 1.0], [1.0, 0.5], 1, lr=0.004, initial=0.25, num_pairs=[6, 2]).run(3000)
    assert clock.values[-1] == pytest.approx(0.25, abs=2e-3)


@pytest.mark.parametrize("concurrency", [8, 20, 40])
def test_the_limit_is_near_the_mean_of_the_minima_however_many_are_busy(concurrency: int) -> None:
    # The slow half, with minimum 0, takes three windows. With 8 of 40 busy all idle some eight windows, so
    # that the slow come 0.8 times as often: counting them 3 times would end near 0.3, once near 0.55.
    strategy = FedFix(1.0, concurrency=concurrency)
    minima, seconds = [0.0] * 20 + [1.0] * 20, [3.0] * 20 + [1.0] * 20
    clock = Clock(strategy, minima, seconds, steps=1, lr=0.05, initial=0.5).run(800)
    assert np.mean(clock.values[200:]) == pytest.approx(0.5, abs=0.025)


def test_work_is_given_at_ticks_alone() -> None:
    clock = Clock(FedFix(1.0), MINIMA[:3], [0.1, 0.5, 0.9])  # three steps: 0.3, 1.5 and 2.7 s
    for _ in range(20):
        clock.advance()
    assert all(arrival.sent_s == round(arrival.sent_s) for arrival in clock.arrivals)
    counts = np.bincount([arrival.task.client_id for arrival in clock.arrivals])
    assert counts.tolist() == [20, 10, 6]  # one, two and three windows each


def test_an_empty_window_lets_time_pass_and_leaves_the_model() -> None:
    clock = Clock(FedFix(0.5), [1.0], [0.6], steps=2)
    assert clock.advance() == [] and clock.advance() == []
    assert (clock.version, clock.clock_s, clock.value) == (0, 1.0, 0.25)
    assert len(clock.advance()) == 1 and clock.version == 1


def test_a_window_of_failures_leaves_the_model() -> None:
    clock = Clock(FedFix(10.0), MINIMA, SECONDS, lost=frozenset(range(8)))
    assert len(clock.advance()) == 8
    assert (clock.version, clock.value, clock.state.in_flight) == (0, 0.25, ())
    clock.advance()
    assert clock.version == 1


def test_shares_of_a_window_and_of_those_still_busy_sum_to_one() -> None:
    # Equal minima and identical weights: per window the model goes the arrived clients' part of the way.
    strategy = FedFix(1.0, reweight=False, share="clients")
    clock = Clock(strategy, [1.0] * 4, [1.0, 1.0, 1.0, 2.0], steps=1, lr=0.5, initial=0.0)
    clock.advance()
    assert clock.value == 0.5 * 3 / 4


def test_the_windows_of_a_client_add_up_to_the_ticks_whatever_the_floats_do() -> None:
    # 0.1 + 0.3 just misses the fourth tick or not: the answer counts for the windows that it took.
    clock = Clock(FedFix(0.1), [0.0, 1.0, 2.0], [0.3, 0.1, 0.7], steps=1)
    last_tick = np.zeros(3, int)
    for tick in range(1, 200):
        for arrival in clock.advance():
            last_tick[arrival.task.client_id] = tick
        assert clock.clock_s == tick * 0.1
        assert clock.state.num_windows == last_tick.sum()


def test_work_that_begins_between_two_ticks_counts_for_the_ticks_at_which_it_is_awaited() -> None:
    # Nobody was online before 0.625 s. Client 0 is in one of the two sums at 1 s and 2 s, client 1 in both.
    clock = Clock(FedFix(1.0), [0.0, 1.0], [1.0, 0.25], steps=1)
    clock.clock_s = 0.625
    clock.advance()
    clock.advance()
    assert [(a.task.client_id, a.arrived_s) for a in clock.arrivals] == [(1, 0.875), (0, 1.625), (1, 1.25)]
    assert (clock.state.num_answers, clock.state.num_windows) == (3, 1 + 2 + 1)


@pytest.mark.parametrize("window_s", [0.0, -1.0, float("inf"), float("nan")])
def test_a_window_that_never_ends_or_never_begins_is_refused(window_s: float) -> None:
    with pytest.raises(ConfigurationError, match=f"strategy.window_s={window_s}"):
        dataclasses.replace(FedFix(), window_s=window_s)
