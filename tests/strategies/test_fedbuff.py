import dataclasses

import numpy as np
import pytest
from clock_toy import Clock

from fedpref.errors import ConfigurationError
from fedpref.federation.plain import from_plain, to_plain
from fedpref.maths.staleness import Constant, Polynomial
from fedpref.seeds import generator
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.fedbuff import FedBuff
from fedpref.types import Update

RNG = generator(0, "minima")
MINIMA = [float(value) for value in RNG.normal(size=8)]
PAIRS = [int(value) for value in RNG.integers(1, 9, size=8)]


@pytest.mark.parametrize("share", ["clients", "pairs"])
@pytest.mark.parametrize("cohort_size", [3, 8, None])
def test_equal_speeds_and_a_buffer_of_the_concurrency_are_fedavg_to_the_bit(
    share: str, cohort_size: int | None
) -> None:
    average = FedAvg(cohort_size=cohort_size, share=share)  # type: ignore[arg-type]
    buffered = FedBuff(cohort_size or 8, concurrency=cohort_size, share=share)  # type: ignore[arg-type]
    one, other = (Clock(s, MINIMA, [1.0] * 8, num_pairs=PAIRS).run(9) for s in (average, buffered))
    assert one.values == other.values
    assert one.clock_s == other.clock_s


def test_a_buffer_of_one_without_discount_takes_a_fresh_answer_whole() -> None:
    clock = Clock(FedBuff(1, Constant(), concurrency=1), MINIMA, [1.0] * 8)
    for _ in range(5):
        (arrival,) = clock.advance()
        assert arrival.update is not None
        assert clock.value == float(arrival.update.weights["w"][0])


def test_a_checkpoint_holds_what_waiting_answers_received_once_and_they_share_it_again() -> None:
    clock = Clock(FedBuff(8), MINIMA, np.linspace(1.0, 1.7, 8).tolist())
    for _ in range(5):
        clock.advance()
    waiting = clock.state.updates
    assert len(waiting) == 5
    arrays: dict[str, np.ndarray] = {}
    tree = to_plain(waiting, arrays)
    assert len(arrays) == 5 + 1
    back = from_plain(tree, arrays, [Update])
    assert len({id(update.received["w"]) for update in back}) == 1
    assert [update.delta["w"].tolist() for update in back] == [u.delta["w"].tolist() for u in waiting]


def test_a_step_is_the_sum_of_discounted_deltas_over_k() -> None:
    clock = Clock(FedBuff(3, Polynomial(1.0), server_lr=0.5), MINIMA[:4], [1.0, 0.917, 0.303, 0.2111])
    for _ in range(30):
        held = [(update.factor, float(update.delta["w"][0])) for update in clock.state.updates]
        before, version = clock.value, clock.version
        (arrival,) = clock.advance()
        assert arrival.update is not None
        held.append((1 / (1 + arrival.staleness), float(arrival.update.delta["w"][0])))
        if clock.version > version:
            assert len(held) == 3 and clock.state.updates == ()
            step = 0.5 * sum(factor * delta for factor, delta in held) / 3
            assert clock.value == pytest.approx(before + step, abs=1e-6)
        else:
            assert len(held) < 3 and clock.value == before
    assert max(arrival.staleness for arrival in clock.arrivals) >= 1


def test_staleness_counts_server_steps_and_not_answers() -> None:
    # While client 0 computes its first answer, client 1 gives nine: four steps of two, and one to come.
    clock = Clock(FedBuff(2, concurrency=2), [0.0, 1.0], [9.5, 1.0], steps=1)
    while not any(arrival.task.client_id == 0 for arrival in clock.arrivals):
        clock.advance()
    assert len(clock.arrivals) == 10
    assert clock.arrivals[-1].staleness == 4


def test_more_than_k_at_one_instant_are_steps_of_exactly_k_each_and_the_rest_waits() -> None:
    clock = Clock(FedBuff(3, Polynomial(1.0)), MINIMA, [1.0] * 8)
    arrivals = clock.advance()
    assert (clock.version, len(clock.state.updates)) == (2, 2)
    deltas = [float(arrival.update.delta["w"][0]) for arrival in arrivals if arrival.update]
    # Every answer was sent version 0: those behind the first step are one version old.
    step = sum(deltas[:3]) / 3 + sum(deltas[3:6]) / 3 / 2
    assert clock.value == pytest.approx(0.25 + step, abs=1e-6)
    assert [update.factor for update in clock.state.updates] == [1 / 3, 1 / 3]


def test_answers_that_are_too_stale_are_refused_and_not_counted_towards_k() -> None:
    clock = Clock(FedBuff(2, max_staleness=0), MINIMA[:5], [1.0] * 5)
    idle = range(5)
    state, plan = clock.strategy.plan(clock.state, idle, 0.0, generator(0))
    arrivals = [dataclasses.replace(clock._arrival(task, 0.0), staleness=0) for task in plan.tasks]
    fold = clock.strategy.fold(state, arrivals, 0.0, generator(0))
    assert fold.updated == 1
    assert list(fold.rejected) == arrivals[2:]
    assert fold.state.updates == () and fold.state.in_flight == 0


def test_failures_do_not_fill_the_buffer_but_stand_in_the_cohort() -> None:
    cohorts = []

    @dataclasses.dataclass(frozen=True)
    class Listening:
        inner: object = dataclasses.field(default_factory=lambda: FedBuff().combine)

        def init(self, clients: object) -> None:
            return None

        def __call__(self, base, updates, shares, cohort, rng, memory):  # type: ignore[no-untyped-def]
            cohorts.append((len(updates), sorted(cohort)))
            return self.inner(base, updates, shares, cohort, rng, memory)  # type: ignore[operator]

    clock = Clock(FedBuff(3, combine=Listening()), MINIMA[:4], [1.0] * 4, lost=frozenset({1, 2}))
    cohorts.clear()  # the trial of init
    clock.advance()
    assert clock.version == 0 and len(clock.state.updates) == 2
    clock.advance()
    assert cohorts[0] == (3, [0, 0, 1, 2, 3])  # the two failures and client 0's second answer included


def test_a_faster_client_takes_part_more_often_and_draws_the_model_to_itself() -> None:
    # Minima 0 and 1, twice the speed for 1: its share of the answers is 2/3, and so is the limit.
    strategy = FedBuff(1, Constant())
    clock = Clock(strategy, [0.0, 1.0], [1.0, 0.5], steps=1, lr=0.002, initial=0.5).run(4000)
    assert np.mean(clock.values[-3:]) == pytest.approx(2 / 3, abs=0.005)


@pytest.mark.parametrize(("buffer_size", "concurrency"), [(4, 3), (9, None)])
def test_a_buffer_larger_than_the_concurrency_is_refused_with_the_mend(
    buffer_size: int, concurrency: int | None
) -> None:
    strategy = FedBuff(buffer_size, concurrency=concurrency)
    with pytest.raises(ConfigurationError, match=rf"buffer_size={buffer_size} is larger than .* or less"):
        Clock(strategy, MINIMA, [1.0] * 8)


def test_an_empty_buffer_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"strategy.buffer_size=0"):
        FedBuff(0)
