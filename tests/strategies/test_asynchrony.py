"""What asynchronous strategies share: how many are busy, that nothing is lost, that a run can resume."""

from typing import Any

import numpy as np
import pytest
from clock_toy import Clock

from fedpref.errors import ConfigurationError
from fedpref.federation.plain import from_plain, state_classes, to_plain
from fedpref.maths.combine import WeightedMean
from fedpref.seeds import generator
from fedpref.strategies.afa_cd import AfaCd
from fedpref.strategies.afa_cs import AfaCs
from fedpref.strategies.cohort import refill
from fedpref.strategies.fedasync import FedAsync
from fedpref.strategies.fedbuff import FedBuff
from fedpref.strategies.fedcompass import FedCompass
from fedpref.strategies.fedfix import FedFix
from fedpref.strategies.tail_average import TailAverage
from fedpref.types import Strategy, Wait

MINIMA = [float(value) for value in generator(0, "minima").normal(size=12)]
SECONDS = [float(value) for value in generator(0, "seconds").uniform(0.1, 1.0, size=12)]
BUSY = 5
STRATEGIES: list[Strategy[Any]] = [
    FedAsync(concurrency=BUSY),
    FedBuff(3, concurrency=BUSY),
    FedFix(0.8, concurrency=BUSY),
    AfaCd(3, concurrency=BUSY, least_steps=1, most_steps=6),
    AfaCs(2, concurrency=BUSY, least_steps=1, most_steps=6),
]


@pytest.fixture(params=STRATEGIES, ids=lambda strategy: type(strategy).__name__)
def strategy(request: pytest.FixtureRequest) -> Strategy[Any]:
    return request.param  # type: ignore[no-any-return]


def num_in_flight(state: Any) -> int:
    return state.in_flight if isinstance(state.in_flight, int) else len(state.in_flight)


def test_the_concurrency_is_kept_and_never_exceeded(strategy: Strategy[Any]) -> None:
    clock = Clock(strategy, MINIMA, SECONDS, lost=frozenset(range(0, 200, 7)))
    for _ in range(60):
        busy, before = len(clock.busy), clock.num_tasks
        arrivals = clock.advance()
        assert busy + clock.num_tasks - before == BUSY
        assert len(clock.busy) == num_in_flight(clock.state) == BUSY - len(arrivals)


def test_everybody_is_busy_where_no_concurrency_is_set() -> None:
    for everybody in (FedAsync(), FedBuff(3), FedFix(0.8), AfaCd(3), AfaCs()):
        clock = Clock(everybody, MINIMA, SECONDS)
        clock.advance()
        assert [task.client_id for task in clock.tasks] == list(range(12))


def test_clients_that_are_offline_are_replaced_and_those_that_return_are_not_too_many(
    strategy: Strategy[Any],
) -> None:
    clock = Clock(strategy, MINIMA, SECONDS)
    state, plan = strategy.plan(clock.state, [3, 7], 0.0, generator(0))
    assert [task.client_id for task in plan.tasks] == [3, 7]
    state, plan = strategy.plan(state, [0, 1, 2, 4, 5, 6], 0.0, generator(0))
    assert len(plan.tasks) == BUSY - 2
    state, plan = strategy.plan(state, range(8, 12), 0.0, generator(0))
    assert not plan.tasks and num_in_flight(state) == BUSY


def test_every_task_is_folded_once(strategy: Strategy[Any]) -> None:
    clock = Clock(strategy, MINIMA, SECONDS, lost=frozenset(range(0, 200, 7)))
    for _ in range(60):
        clock.advance()
    numbers = [arrival.task.number for arrival in clock.arrivals]
    assert len(set(numbers)) == len(numbers) == clock.num_tasks - len(clock.busy)


def test_a_run_in_which_everything_is_lost_leaves_the_model_and_goes_on(strategy: Strategy[Any]) -> None:
    clock = Clock(strategy, MINIMA, SECONDS, lost=frozenset(range(1000)))
    for _ in range(30):
        clock.advance()
    assert (clock.version, clock.value) == (0, 0.25)
    assert clock.arrivals
    clock.lost = frozenset()
    clock.run(2)
    assert clock.value != 0.25


def test_clients_without_pairs_weigh_nothing_and_the_versions_go_on(strategy: Strategy[Any]) -> None:
    clock = Clock(strategy, MINIMA, SECONDS, num_pairs=[0] * 12).run(5)
    assert clock.value == 0.25


def test_a_fold_of_nothing_changes_nothing(strategy: Strategy[Any]) -> None:
    clock = Clock(strategy, MINIMA, SECONDS)
    for _ in range(7):
        clock.advance()
    fold = strategy.fold(clock.state, [], clock.clock_s, generator(0))
    assert fold.updated == 0 and not fold.rejected
    trees = [to_plain(state, {}) for state in (fold.state, clock.state)]
    assert trees[0] == trees[1]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_state_saved_at_any_moment_goes_on_to_the_same_bits(strategy: Strategy[Any], wrapped: bool) -> None:
    chosen = TailAverage(strategy) if wrapped else strategy
    undisturbed = Clock(chosen, MINIMA, SECONDS, horizon=20)
    resumed = Clock(chosen, MINIMA, SECONDS, horizon=20)
    for _ in range(25):
        undisturbed.advance()
        resumed.advance()
        arrays: dict[str, np.ndarray] = {}
        tree = to_plain(resumed.state, arrays)
        resumed.state = from_plain(tree, arrays, state_classes(chosen))
        assert resumed.value == undisturbed.value
    assert undisturbed.version > 0


def test_nothing_that_is_handed_in_is_mutated(strategy: Strategy[Any]) -> None:
    clock = Clock(strategy, MINIMA, SECONDS)
    for _ in range(20):
        before: dict[str, np.ndarray] = {}
        state, tree = clock.state, to_plain(clock.state, before)
        copies = {name: array.copy() for name, array in before.items()}
        clock.advance()
        after: dict[str, np.ndarray] = {}
        assert to_plain(state, after) == tree
        assert all(np.array_equal(after[name], copies[name]) for name in copies)


def test_shares_times_factors_sum_to_one_where_nothing_is_stale() -> None:
    sums = []

    class Listening(WeightedMean):
        def __call__(self, base, updates, shares, cohort, rng, memory=None):  # type: ignore[no-untyped-def]
            sums.append(sum(u.factor * s for u, s in zip(updates, shares, strict=True)) / sum(shares))
            return super().__call__(base, updates, shares, cohort, rng, memory)

    for kind, size in ((FedBuff, "buffer_size"), (AfaCd, "buffer_size"), (AfaCs, "buffer_size")):
        Clock(kind(**{size: 12}, combine=Listening()), MINIMA, [1.0] * 12, num_pairs=range(1, 13)).run(4)
    Clock(FedFix(4.0, combine=Listening()), MINIMA, [1.0] * 12, num_pairs=range(1, 13)).run(4)
    assert sums == pytest.approx([1.0] * len(sums), abs=1e-12) and len(sums) > 16


def test_an_impossible_concurrency_is_refused() -> None:
    for concurrency, message in ((0, "at least 1"), (13, "population of 12")):
        for kind in (FedAsync, FedFix):
            with pytest.raises(ConfigurationError, match=message):
                Clock(kind(concurrency=concurrency), MINIMA, SECONDS)
        for kind in (FedBuff, AfaCd, AfaCs):
            with pytest.raises(ConfigurationError, match=message):
                Clock(kind(buffer_size=1, concurrency=concurrency), MINIMA, SECONDS)


def test_those_that_step_on_answers_wait_for_the_next_one_and_fedfix_for_a_moment() -> None:
    for strategy in STRATEGIES:
        clock = Clock(strategy, MINIMA, SECONDS)
        _, plan = strategy.plan(clock.state, range(12), 2.0, generator(0))
        assert plan.wait == (Wait(until_s=3 * 0.8) if isinstance(strategy, FedFix) else Wait(count=1))


@pytest.mark.parametrize("in_flight", [3, 4])
def test_nobody_is_drawn_where_enough_are_busy(in_flight: int) -> None:
    assert refill([1, 2, 5], 3, in_flight, generator(0)) == []
    assert refill([], 3, 0, generator(0)) == []
    assert refill([1, 2, 5], None, in_flight, generator(0)) == [1, 2, 5]


@pytest.mark.parametrize("kind", [FedAsync, FedBuff, FedCompass])
def test_the_name_of_a_discount_is_refused_with_the_mend(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"staleness='hinge' is no discount; .*_target_=.*Hinge"):
        kind(staleness="hinge")


def test_a_refill_passes_over_those_who_are_spoken_for_and_looks_at_nobody_where_none_is_missing() -> None:
    assert refill([1, 2, 5], 9, 0, generator(0), besides={2}) == [1, 5]
    assert refill([1, 2, 5], None, 0, generator(0), besides={1, 5}) == [2]

    class Unseen(tuple[int, ...]):
        def __iter__(self) -> Any:
            raise AssertionError("the whole population is looked at")

    assert refill(Unseen((1, 2, 5)), 3, 3, generator(0), besides={2}) == []
