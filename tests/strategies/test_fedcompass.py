import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from clock_toy import Clock

from fedpref.errors import ConfigurationError
from fedpref.maths.staleness import Constant, Polynomial
from fedpref.seeds import generator
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.fedcompass import Compass, FedCompass, steps_to_create, steps_to_join
from fedpref.types import Arrival

RNG = generator(0, "minima")
MINIMA = [float(value) for value in RNG.normal(size=8)]


def compass(strategy: FedCompass, seconds: Sequence[float], lost: Sequence[int] = ()) -> Clock:
    return Clock(strategy, MINIMA[: len(seconds)], seconds, lr=0.01, lost=frozenset(lost))


def given_steps(clock: Clock) -> list[tuple[int, int]]:
    return [(task.client_id, int(task.settings["local_steps"])) for task in clock.tasks]


def arrived(arrivals: Sequence[Arrival]) -> list[tuple[float, int]]:
    return [(arrival.arrived_s, arrival.task.client_id) for arrival in arrivals]


# ------------------------------------------------------------------- the published example


def test_the_slower_of_two_gets_the_steps_that_let_it_meet_the_faster_one() -> None:
    clock = compass(FedCompass(), [1.0, 1.8])
    assert arrived(clock.advance()) == [(100.0, 0)]
    clock.advance()  # sends client 0 anew and waits for client 1
    assert arrived(clock.arrivals) == [(100.0, 0), (180.0, 1)]
    (group,) = clock.state.groups.values()
    assert (group.expected_s, group.latest_s, group.members) == (200.0, 250.0, (0,))
    clock.advance()
    # To join, client 1 could do 20 s / 1.8 s = 11 steps, fewer than 20. It is to meet client 0 the next
    # time, at 250 s + 100 steps of 1 s: 170 s / 1.8 s = 94 steps.
    assert given_steps(clock) == [(0, 100), (1, 100), (0, 100), (1, 94)]


@pytest.mark.parametrize(
    ("expected_s", "step_s", "clock_s", "steps"),
    [
        (200.0, 1.8, 180.0, 11),
        (200.0, 1.0, 100.0, 100),
        (0.3 + 7 * 0.1, 0.1, 0.3, 7),  # 6.999… after rounding
        (10.0, 1.0, 10.5, -1),
    ],
)
def test_only_whole_steps_count_and_rounding_costs_none(
    expected_s: float, step_s: float, clock_s: float, steps: int
) -> None:
    assert steps_to_join(expected_s, step_s, clock_s) == steps


@pytest.mark.parametrize(
    ("meetings_s", "steps"),
    [
        ([], 100),  # nobody to meet
        ([350.0], 94),
        ([350.0, 300.0], 94),  # the most that is allowed
        ([350.0, 900.0], 94),  # 400 steps are too many
        ([900.0], 100),
        ([190.0], 20),  # 5 steps are too few
    ],
)
def test_a_group_is_opened_to_meet_another_with_the_most_steps(meetings_s: list[float], steps: int) -> None:
    assert steps_to_create(meetings_s, 1.8, 180.0, 20, 100) == steps


# ------------------------------------------------------------------------- reductions


@pytest.mark.parametrize("concurrency", [1, 3, 8, None])
@pytest.mark.parametrize("seconds", [0.1, 1.0, 0.0])
def test_identical_speeds_are_synchronous_fedavg_to_the_bit(concurrency: int | None, seconds: float) -> None:
    strategy = FedCompass(min_steps=3, max_steps=7, alpha=1.0, concurrency=concurrency)
    one = Clock(strategy, MINIMA, [seconds] * 8).run(9)
    average = FedAvg(cohort_size=concurrency, share="clients")
    other = Clock(average, MINIMA, [seconds] * 8, steps=7).run(9)
    assert one.values == other.values
    assert one.clock_s == other.clock_s
    assert {arrival.staleness for arrival in one.arrivals} == {0}
    assert {steps for _, steps in given_steps(one)} == {7}


def test_alpha_scales_the_mean_of_all_that_are_busy() -> None:
    whole, part = (
        Clock(FedCompass(3, 7, alpha=alpha, concurrency=4), MINIMA, [1.0] * 8).run(1) for alpha in (1.0, 0.25)
    )
    assert part.value - 0.25 == pytest.approx(0.25 * (whole.value - 0.25), abs=1e-7)


# ------------------------------------------------------------------------- groups


def test_clients_of_different_speed_arrive_together() -> None:
    seconds = [1.0, 1.3, 1.7, 2.2, 2.9, 3.1]
    clock = compass(FedCompass(min_steps=20, max_steps=100), seconds)
    for _ in range(60):
        clock.advance()
    # After the first tasks, a group of six answers within one step of its slowest member.
    sizes = [len(group.members) for group in clock.state.groups.values()]
    assert max(sizes) == 6
    (group,) = [group for group in clock.state.groups.values() if len(group.members) == 6]
    while group.expected_s > clock.clock_s:
        clock.advance()
    last = {arrival.task.client_id: arrival.arrived_s for arrival in clock.arrivals}
    for client, step_s in enumerate(seconds):
        assert group.expected_s - step_s <= last[client] <= group.expected_s + 1e-6


def test_an_answer_waits_for_its_group_and_its_client_gets_no_task() -> None:
    clock = compass(FedCompass(20, 100), [1.0, 1.9])
    waited = 0
    for _ in range(40):
        state: Compass = clock.state
        waiting = {held.update.client_id for group in state.groups.values() for held in group.held}
        num_tasks, value, version = len(clock.tasks), clock.value, clock.version
        clock.advance()
        waited += bool(waiting)
        assert not waiting & {task.client_id for task in clock.tasks[num_tasks:]}
        assert (clock.value == value) == (clock.version == version)
    assert waited > 0


def test_a_step_is_the_discounted_sum_over_everybody_who_is_busy() -> None:
    clock = compass(FedCompass(5, 40, alpha=0.9, staleness=Polynomial(1.0)), [1.0, 1.9, 4.7])
    seen_stale = False
    for _ in range(40):
        state: Compass = clock.state
        held = [(h.version, h.update) for group in state.groups.values() for h in group.held]
        held += [(h.version, h.update) for h in state.late]
        before, version = clock.value, clock.version
        for arrival in clock.advance():
            assert arrival.update is not None
            held.append((version - arrival.staleness, arrival.update))
        if clock.version > version:
            kept = [h.task for group in clock.state.groups.values() for h in group.held]
            assert kept == []
            stale = [version - of for of, _ in held]
            seen_stale = seen_stale or max(stale) > 0
            terms = [u.delta["w"][0] / (1 + tau) for tau, (_, u) in zip(stale, held, strict=True)]
            assert clock.value == pytest.approx(before + 0.9 / 3 * sum(terms), abs=1e-6)
    assert seen_stale


def test_a_member_that_never_reports_delays_its_group_to_its_latest_time_only() -> None:
    clock = compass(FedCompass(20, 100), [1.0, 1.0, 1.0])
    clock.run(1)
    # All three are sent again at 100 s, to be back at 200 s; client 2 now takes four times as long.
    clock.seconds = [1.0, 1.0, 4.0]
    clock.advance()
    assert (clock.clock_s, clock.version) == (200.0, 1)
    before = clock.value
    assert clock.advance() == []
    assert (clock.clock_s, clock.version) == (250.0, 2)
    deltas = [a.update.delta["w"][0] for a in clock.arrivals[-2:] if a.update is not None]
    assert clock.value == pytest.approx(before + 0.9 / 3 * sum(deltas), abs=1e-6)


def test_a_late_answer_is_taken_along_by_the_next_step_and_its_client_works_on_at_once() -> None:
    clock = compass(FedCompass(20, 100, staleness=Constant()), [1.0, 1.0, 1.0]).run(1)
    clock.seconds = [1.0, 1.0, 2.6]
    clock.run(2)  # at 250 s without client 2, which is back at 360 s
    before = clock.value
    while clock.clock_s < 350:  # clients 0 and 1 are back
        clock.advance()
    assert clock.version == 3 and clock.state.late == ()
    before = clock.value
    (arrival,) = clock.advance()
    assert (arrival.arrived_s, arrival.task.client_id, arrival.staleness) == (360.0, 2, 2)
    assert clock.version == 3 and clock.value == before
    assert [held.update.client_id for held in clock.state.late] == [2]
    arrivals = clock.advance()
    assert clock.tasks[-1].client_id == 2 and clock.tasks[-1].settings["local_steps"] != 100
    while clock.version == 3:
        arrivals += clock.advance()
    assert clock.state.late == ()
    updates = [arrival.update, *(a.update for a in arrivals)]
    deltas = [update.delta["w"][0] for update in updates if update is not None]
    assert clock.value == pytest.approx(before + 0.9 / 3 * sum(deltas), abs=1e-6)


def test_a_group_of_which_nobody_reports_leaves_the_model() -> None:
    clock = compass(FedCompass(20, 100), [1.0]).run(1)
    clock.seconds = [9.0]
    before = clock.value
    assert clock.advance() == []
    assert (clock.clock_s, clock.version, clock.value, clock.state.groups) == (250.0, 1, before, {})


def test_a_group_whose_last_member_fails_does_not_wait_any_longer() -> None:
    clock = compass(FedCompass(20, 100), [1.0, 1.0], lost=[3]).run(1)
    before = clock.value
    ok, lost = clock.advance()
    assert ok.update is not None and lost.update is None
    assert (clock.clock_s, clock.version) == (200.0, 2)
    assert clock.value == pytest.approx(before + 0.45 * ok.update.delta["w"][0], abs=1e-6)


# ------------------------------------------------------------------------- speeds


def test_the_estimate_of_a_speed_follows_the_newest_measurement() -> None:
    clock = compass(FedCompass(20, 100, speed_rate=0.9), [1.0]).run(1)
    assert clock.state.step_s == {0: 1.0}
    clock.seconds = [1.2]
    clock.run(2)
    assert clock.state.step_s[0] == pytest.approx(0.1 * 1.0 + 0.9 * 1.2)


def test_a_measurement_that_makes_no_sense_leaves_the_estimate() -> None:
    strategy = FedCompass(20, 100)
    clock = compass(strategy, [1.0]).run(1)
    state, plan = strategy.plan(clock.state, [0], clock.clock_s, generator(0, "plan", 1))
    (first,) = clock.arrivals
    for sent_s, steps_done in ((first.arrived_s, 100.0), (0.0, 0.0)):
        assert first.update is not None
        update = dataclasses.replace(first.update, metrics={"steps_done": steps_done})
        arrival = dataclasses.replace(first, task=plan.tasks[0], update=update, sent_s=sent_s)
        fold = strategy.fold(state, [arrival], 200.0, generator(0, "fold", 1))
        assert fold.state.step_s == {0: 1.0} and fold.updated == 1


def test_the_log_has_how_unequal_the_steps_were() -> None:
    strategy = FedCompass()
    clock = compass(strategy, [1.0, 1.0]).run(1)
    state, plan = strategy.plan(clock.state, [0, 1], clock.clock_s, generator(0, "plan", 1))
    arrivals = [
        dataclasses.replace(
            arrival, task=task, update=dataclasses.replace(arrival.update, metrics={"steps_done": steps})
        )
        for arrival, task, steps in zip(clock.arrivals, plan.tasks, (100.0, 40.0), strict=True)
        if arrival.update is not None
    ]
    metrics = strategy.fold(state, arrivals, 200.0, generator(0, "fold", 1)).metrics
    assert (metrics["least_local_steps"], metrics["most_local_steps"]) == (40.0, 100.0)


# ------------------------------------------------------------------------- the rest


@pytest.mark.parametrize("concurrency", [1, 3, 5])
def test_at_no_time_are_more_than_the_stated_number_of_clients_engaged(concurrency: int) -> None:
    seconds = [float(value) for value in generator(1, "speeds").uniform(1, 10, size=8)]
    clock = Clock(FedCompass(5, 40, concurrency=concurrency), MINIMA, seconds, lr=0.01)
    for _ in range(80):
        clock.advance()
        state: Compass = clock.state
        waiting = sum(len(group.held) for group in state.groups.values())
        assert len(clock.busy) + waiting <= concurrency
        assert clock.busy == set(state.group_of)
    assert np.isfinite(clock.value) and len({task.client_id for task in clock.tasks}) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_steps": 0}, "min_steps=0"),
        ({"min_steps": 30, "max_steps": 20}, "max_steps=20"),
        ({"latest": 0.9}, r"latest=0\.9"),
        ({"alpha": 0.0}, r"alpha=0\.0"),
        ({"speed_rate": 0.0}, r"speed_rate=0\.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        FedCompass(**options)  # type: ignore[arg-type]


def test_more_busy_clients_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="cohort_size=9"):
        Clock(FedCompass(concurrency=9), MINIMA, [1.0] * 8)
