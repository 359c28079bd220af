"""One round, plan, wait and fold, over the virtual grid."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
from flwr.app import Error, Message
from toy_fleet import Timed

from fedpref.errors import ConfigurationError, FederationError
from fedpref.simulation.device_classes import DeviceClass, Mix
from fedpref.types import Task, Wait


def run(rounds, n):
    return [rounds.advance() for _ in range(n)]


def test_one_round_is_the_weighted_mean_of_the_local_results(toy):
    rounds = toy.rounds(3)
    start = rounds.state
    run(rounds, 1)
    # Two steps of w - (w - c)/4 leave (3/4)^2 of the distance; client i weighs i + 1 and pulls to i.
    mean_minimum = (1 * 0 + 2 * 1 + 3 * 2) / 6
    for key, before in start.items():
        np.testing.assert_allclose(rounds.state[key], 0.5625 * before + 0.4375 * mean_minimum, rtol=1e-6)


def test_equal_seeds_give_equal_runs_and_different_seeds_do_not(toy):
    rule = toy.PullRule(noise=0.1)
    first, again, other = (toy.rounds(4, rule, toy.ToyAvg(2), seed=seed) for seed in (1, 1, 2))
    outcomes = [run(rounds, 4) for rounds in (first, again, other)]
    cohorts = [[a.task.client_id for outcome in o for a in outcome.arrivals] for o in outcomes]
    assert toy.same(first.state, again.state) and cohorts[0] == cohorts[1]
    assert not toy.same(first.state, other.state)


def test_every_round_draws_anew_and_a_seed_repeats_its_draws(toy):
    @dataclass(frozen=True)
    class Drawing(type(toy.ToyAvg())):
        def plan(self, state, idle, clock_s, rng):
            draws.append(rng.random())
            return super().plan(state, idle, clock_s, rng)

        def fold(self, state, arrivals, clock_s, rng):
            draws.append(rng.random())
            return super().fold(state, arrivals, clock_s, rng)

    draws = []
    run(toy.rounds(1, strategy=Drawing()), 3)
    assert len(set(draws)) == 6
    run(toy.rounds(1, strategy=Drawing()), 3)
    assert draws[:6] == draws[6:]


def test_a_client_that_reseeds_the_global_streams_moves_nobody_elses(toy):
    np.random.seed(5)
    expected = np.random.random(3)
    np.random.seed(5)
    run(toy.rounds(2, toy.PullRule(noise=1.0)), 1)
    assert np.array_equal(np.random.random(3), expected)


def test_tasks_are_numbered_across_rounds_and_versions_count_updates(toy):
    rounds = toy.rounds(3, strategy=toy.ToyAvg(2))
    outcomes = run(rounds, 3)
    assert [[a.task.number for a in o.arrivals] for o in outcomes] == [[0, 1], [2, 3], [4, 5]]
    assert [{a.task.version for a in o.arrivals} for o in outcomes] == [{0}, {1}, {2}]
    assert (rounds.version, rounds.step, rounds.next_task) == (3, 3, 6)


def test_an_answer_is_as_stale_as_the_versions_that_passed_since_it_was_sent(toy):
    rule = toy.PullRule(flops={0: 1e10, 1: 3.5e10})
    rounds = toy.rounds(2, rule, toy.ToyAvg(count=1))
    arrivals = [a for outcome in run(rounds, 4) for a in outcome.arrivals]
    # Client 0 answers about every second, client 1 after three of its answers.
    assert [(a.task.client_id, a.staleness) for a in arrivals] == [(0, 0), (0, 0), (0, 0), (1, 3)]


def test_all_arrivals_of_one_instant_come_together_although_one_was_enough(toy):
    outcome = toy.rounds(4, strategy=toy.ToyAvg(count=1)).advance()
    assert [a.task.client_id for a in outcome.arrivals] == [0, 1, 2, 3]


def test_virtual_time_is_latency_plus_bytes_plus_work(toy):
    rounds = toy.rounds(1, toy.PullRule(flops={0: 3e10}))
    outcome = rounds.advance()
    raw = 4 * (1 + toy.DIM)
    assert outcome.clock_s == pytest.approx(2 * 0.05 + raw / 2.5e6 + raw / 1.25e6 + 3.0)
    assert outcome.arrivals[0].bytes_down == outcome.arrivals[0].bytes_up == raw
    traffic = rounds.exchange.traffic
    assert traffic.raw_down_bytes == traffic.raw_up_bytes == raw
    assert traffic.framed_down_bytes > raw and traffic.framed_up_bytes > raw


def test_a_straggler_expires_at_its_deadline_and_is_free_again(toy):
    rule = toy.PullRule(flops={0: 1e9, 1: 1e15})
    rounds = toy.rounds(2, rule, toy.ToyAvg(expires_s=3.0))
    outcomes = run(rounds, 2)
    assert [[a.code for a in o.arrivals] for o in outcomes] == [["ok", "expired"]] * 2
    assert [o.clock_s for o in outcomes] == [3.0, 6.0]
    assert rounds.exchange.num_in_flight == 0


def test_an_expired_answer_neither_arrives_later_nor_delays_the_next_task(toy):
    class SlowOnce(toy.PullRule):
        def answer(self, task, shard, state, rng):
            reply, state = super().answer(task, shard, state, rng)
            return reply._replace(metrics={"flops": 10.0 if task.number == 0 else 0.5}), state

    device = DeviceClass(flops_per_s=1.0, latency_s=0.0, down_bytes_per_s=1e300, up_bytes_per_s=1e300)
    exchange = toy.exchange(1, SlowOnce(), fleet=Mix({"one": device}))
    weights = toy.PullRule().fresh(np.random.default_rng(0))
    ends = [
        (arrival.task.number, arrival.code, arrival.arrived_s)
        for number in range(4)
        for arrival in exchange.run([Task(0, weights, number=number, expires_s=1.0 + number)], Wait(), 0)
    ]
    exchange.run([], Wait(until_s=20.0), 0)
    assert ends == [(0, "expired", 1.0), (1, "ok", 1.5), (2, "ok", 2.0), (3, "ok", 2.5)]
    assert exchange.num_in_flight == 0 and exchange.refused == {}


def test_a_delta_is_exact_so_that_the_local_weights_come_back_to_the_bit(toy):
    # 3 - 1e-4 is no float32: the delta would be rounded where it is not taken in float64.
    start = {"head.bias": np.full(1, 1e-4, np.float32), "head.weight": np.full(toy.DIM, 1e-4, np.float32)}
    rule = toy.PullRule(lr=1.0, steps=1)
    (arrival,) = toy.exchange(4, rule).run([Task(3, start, number=0)], Wait(), 0)
    for key, delta in arrival.update.delta.items():
        assert delta.dtype == np.float64
        assert np.array_equal(delta, np.float64(3.0) - start[key].astype(np.float64))


def test_an_expired_task_does_not_count_towards_the_wait(toy):
    exchange = toy.exchange(2, toy.PullRule(flops={0: 1e12, 1: 5e10}))
    weights = toy.PullRule().fresh(np.random.default_rng(0))
    tasks = [Task(0, weights, expires_s=1.0, number=0), Task(1, weights, number=1)]
    arrivals = exchange.run(tasks, Wait(count=1), 0)
    assert [(a.task.client_id, a.code) for a in arrivals] == [(0, "expired"), (1, "ok")]


def test_a_wait_until_a_time_ends_there_with_work_still_in_flight(toy):
    rounds = toy.rounds(2, toy.PullRule(flops={0: 1e9, 1: 1e12}), toy.ToyAvg(tick_s=5.0))
    outcome = rounds.advance()
    assert [a.task.client_id for a in outcome.arrivals] == [0]
    assert outcome.clock_s == 5.0 and rounds.exchange.num_in_flight == 1
    assert list(rounds.exchange.idle()) == [0]


def test_patience_ends_a_task_that_has_no_expiry_of_its_own(toy):
    rounds = toy.rounds(2, toy.PullRule(flops={0: 1e9, 1: 1e15}), patience_s=9.0)
    assert [a.code for a in rounds.advance().arrivals] == ["ok", "expired"]


# ------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize(
    "fault,code", [("nan", "non_finite"), ("shape", "shape"), ("raise", "client_failed")]
)
def test_a_bad_client_is_an_arrival_with_a_code_and_the_model_stays_finite(toy, fault, code):
    rounds = toy.rounds(3, toy.PullRule(faults={1: fault}))
    outcome = rounds.advance()
    assert [a.code for a in outcome.arrivals] == ["ok", code, "ok"]
    assert all(np.isfinite(array).all() for array in rounds.state.values())
    assert outcome.arrivals[1].detail


def test_the_reason_of_a_failed_client_is_its_own_exception(toy):
    arrival = toy.rounds(2, toy.PullRule(faults={1: "raise"})).advance().arrivals[1]
    assert arrival.detail.strip().endswith("RuntimeError: the dog ate it")


def test_a_round_that_nobody_survives_is_an_error_that_names_the_first_failure(toy):
    rounds = toy.rounds(2, toy.PullRule(faults={0: "raise", 1: "nan"}))
    with pytest.raises(
        FederationError, match=r"round 1: no client answered.*client 0: client_failed.*the dog"
    ):
        rounds.advance()


def test_more_failed_rounds_may_be_allowed(toy):
    rounds = toy.rounds(2, toy.PullRule(faults={0: "nan", 1: "nan"}), max_failed_rounds=2)
    assert not rounds.advance().fold.updated
    with pytest.raises(FederationError, match="round 2"):
        rounds.advance()


def test_a_client_that_fails_again_and_again_does_not_end_the_work_of_others(toy):
    # Client 0 fails every tenth of a second, the others need about ten seconds for their answer.
    rule = toy.PullRule(faults={0: "raise"}, flops={1: 1e11, 2: 1e11})
    rounds = toy.rounds(3, rule, toy.ToyAvg(count=1))
    codes = []
    while "ok" not in codes:
        codes += [a.code for a in rounds.advance().arrivals]
    assert codes.count("client_failed") > 50


@pytest.mark.parametrize("is_resumed", [False, True])
def test_an_asynchronous_run_ends_when_every_client_has_failed(toy, is_resumed):
    # Client 0 fails at 2 s, 1 at 3.1 s, 2 at 3.9 s, before client 0 could fail again.
    rule = toy.PullRule(faults=dict.fromkeys(range(3), "nan"), flops={0: 2e10, 1: 3.1e10, 2: 3.9e10})
    rounds = toy.rounds(3, rule, toy.ToyAvg(count=1))
    run(rounds, 1)
    if is_resumed:
        state, (tree, arrays) = rounds.state, rounds.snapshot()
        rounds = toy.rounds(3, rule, toy.ToyAvg(count=1))
        rounds.restore(state, tree, arrays)
    with pytest.raises(FederationError, match=r"no client answered.*client 2: non_finite"):
        run(rounds, 10)
    assert rounds.exchange.clock_s == pytest.approx(4.0, abs=0.01)  # with latency, both ways


def test_failures_without_end_end_the_run_although_others_are_at_work(toy, monkeypatch):
    monkeypatch.setattr("fedpref.flower.rounds._MOST_FAILURES_PER_CLIENT", 20)

    fleet = Timed(0.0, math.inf)
    rounds = toy.rounds(2, toy.PullRule(faults={0: "raise"}), toy.ToyAvg(count=1), fleet=fleet)
    with pytest.raises(FederationError, match="no client answered"):
        run(rounds, 41)
    assert rounds.step == 39  # the fortieth failure of two clients is one too many


@pytest.mark.parametrize("options", [{"tick_s": 0.0}, {"tick_s": -1.0}, {"count": 0}])
def test_a_wait_that_is_over_before_it_begins_is_an_error_not_an_endless_loop(toy, options):
    rounds = toy.rounds(2, strategy=toy.ToyAvg(**options))
    with pytest.raises(FederationError, match="time stands still at t=0 s"):
        run(rounds, 3)


def test_a_strategy_that_never_changes_its_models_is_an_error_not_an_endless_loop(toy):
    @dataclass(frozen=True)
    class Forgetful(type(toy.ToyAvg())):
        def fold(self, state, arrivals, clock_s, rng):
            return super().fold(state, arrivals, clock_s, rng)._replace(updated=False)

    with pytest.raises(FederationError, match="Forgetful: its fold never says updated=True"):
        run(toy.rounds(2, strategy=Forgetful()), 200)


@pytest.mark.parametrize("flops", [math.nan, math.inf, -1e30])
def test_a_client_that_lies_about_its_work_delays_and_loses_nobody(toy, flops):
    rounds = toy.rounds(3, toy.PullRule(flops={1: flops}))
    outcome = rounds.advance()
    codes = [a.code for a in outcome.arrivals]
    assert codes == ["ok", "ok" if math.isfinite(flops) else "non_finite", "ok"]
    assert all(a.arrived_s >= a.sent_s + 0.1 for a in outcome.arrivals)  # latency, both ways
    assert outcome.clock_s == toy.rounds(3).advance().clock_s


def test_a_client_that_exits_is_a_failed_client_and_not_the_end_of_the_run(toy):
    @dataclass(frozen=True)
    class Leaving(type(toy.PullRule())):
        def answer(self, task, shard, state, rng):
            if shard.client_id == 1:
                raise SystemExit(0)
            return super().answer(task, shard, state, rng)

    assert [a.code for a in toy.rounds(3, Leaving()).advance().arrivals] == ["ok", "client_failed", "ok"]


def test_a_plan_without_tasks_and_nothing_in_flight_is_an_error(toy):
    with pytest.raises(FederationError, match="nobody works: 2 of 2 clients"):
        toy.rounds(2, strategy=toy.ToyAvg(cohort_size=0)).advance()


def test_two_tasks_for_one_client_are_refused(toy):
    exchange = toy.exchange(2)
    weights = toy.PullRule().fresh(np.random.default_rng(0))
    with pytest.raises(ConfigurationError, match="two tasks are planned for client 1"):
        exchange.run([Task(1, weights, number=0), Task(1, weights, number=1)], Wait(), 0)


def test_weights_that_are_not_float32_are_refused_before_anything_is_sent(toy):
    exchange = toy.exchange(1)
    with pytest.raises(ConfigurationError, match="'w' are float64, but only float32 travels"):
        exchange.run([Task(0, {"w": np.zeros(2)}, number=0)], Wait(), 0)


def test_a_claim_beyond_the_servers_knowledge_is_rejected(toy):
    rounds = toy.rounds(3, shard_pairs=[1, 1, 3])
    arrivals = rounds.advance().arrivals
    assert [a.code for a in arrivals] == ["ok", "weight_claim", "ok"]
    assert arrivals[1].detail == "claims 2 examples, partition has 1"


class Tampering:
    """A grid that repeats, forges and withholds replies."""

    def __init__(self, grid, tamper):
        self._grid, self._tamper = grid, tamper

    def __getattr__(self, name):
        return getattr(self._grid, name)

    def next_arrivals(self, message_ids, until_s):
        return self._tamper(list(self._grid.next_arrivals(message_ids, until_s)))


def test_a_duplicate_reply_counts_once(toy):
    rounds = toy.rounds(2, grid=Tampering(toy.grid(2), lambda replies: replies + replies))
    assert [a.code for a in rounds.advance().arrivals] == ["ok", "ok"]
    assert rounds.exchange.refused == {"duplicate": 2}


def test_a_reply_of_an_earlier_round_is_refused(toy):
    kept = []

    def replay(replies):
        kept.extend(replies)
        return replies + kept[:1] if len(kept) > 2 else replies

    rounds = toy.rounds(2, grid=Tampering(toy.grid(2), replay))
    outcomes = run(rounds, 2)
    assert all(a.is_ok for o in outcomes for a in o.arrivals)
    assert rounds.exchange.refused == {"duplicate": 1}


def test_a_reply_to_a_message_that_was_never_sent_is_refused(toy):
    def forge(replies):
        twin = Message(Error(2), reply_to=replies[0]) if replies else None
        return [*replies, twin] if twin else replies

    rounds = toy.rounds(2, grid=Tampering(toy.grid(2), forge))
    rounds.advance()
    assert rounds.exchange.refused == {"unknown_message": 1}


def test_a_grid_that_swallows_a_reply_makes_it_lost_and_nothing_hangs(toy):
    rounds = toy.rounds(3, grid=Tampering(toy.grid(3), lambda replies: replies[:-1]))
    assert [a.code for a in rounds.advance().arrivals] == ["ok", "ok", "lost"]


# -------------------------------------------------------------------------------- client state


def seen(arrivals):
    return [int(a.update.metrics["seen"]) for a in arrivals if a.is_ok]


def test_client_state_advances_once_for_each_accepted_answer(toy):
    rounds = toy.rounds(2)
    assert [seen(outcome.arrivals) for outcome in run(rounds, 3)] == [[1, 1], [2, 2], [3, 3]]


@pytest.mark.parametrize("num_rejections,expected", [(1, 3), (2, 1), (3, 1)])
def test_the_state_of_a_rejected_answer_is_dropped_and_two_in_a_row_reset_it(toy, num_rejections, expected):
    rounds = toy.rounds(2, shard_pairs=[1, 2])
    run(rounds, 2)
    rounds.exchange.shard_pairs = [1, 1]  # the server now refuses what client 1 claims
    run(rounds, num_rejections)
    rounds.exchange.shard_pairs = [1, 2]
    # Client 1 goes on from its second state after one rejection, and from nothing after two.
    assert seen(run(rounds, 1)[0].arrivals) == [3 + num_rejections, expected]
    assert seen(run(rounds, 1)[0].arrivals) == [4 + num_rejections, expected + 1]


def test_two_rejections_with_an_accepted_answer_between_them_reset_nothing(toy):
    rounds = toy.rounds(2, shard_pairs=[1, 2])
    for claim in (2, 1, 2, 1):
        rounds.exchange.shard_pairs = [1, claim]
        run(rounds, 1)
    rounds.exchange.shard_pairs = [1, 2]
    assert seen(run(rounds, 1)[0].arrivals) == [5, 3]


def test_a_rejection_before_a_checkpoint_counts_after_it(toy):
    def after(num_rounds, rounds):
        rounds.exchange.shard_pairs = [1, 1]
        run(rounds, num_rounds)
        return rounds

    first = toy.rounds(2, shard_pairs=[1, 2])
    run(first, 1)
    after(1, first)
    resumed = toy.rounds(2)
    resumed.restore(first.state, *first.snapshot())
    after(1, resumed)  # the second in a row
    resumed.exchange.shard_pairs = [1, 2]
    assert seen(run(resumed, 1)[0].arrivals) == [4, 1]


def test_a_client_that_raised_keeps_its_last_accepted_state(toy):
    @dataclass(frozen=True)
    class Moody(type(toy.PullRule())):
        def answer(self, task, shard, state, rng):
            reply, after = super().answer(task, shard, state, rng)
            if task.number in (3, 5, 7):
                raise RuntimeError("not today")
            return reply, after

    outcomes = run(toy.rounds(2, Moody()), 5)
    assert [seen(o.arrivals) for o in outcomes] == [[1, 1], [2], [3], [4], [5, 2]]


def test_the_state_of_an_expired_answer_is_dropped(toy):
    exchange = toy.exchange(1, toy.PullRule(flops={0: 5e10}))
    weights = toy.PullRule().fresh(np.random.default_rng(0))
    late = exchange.run([Task(0, weights, number=0, expires_s=1.0)], Wait(), 0)
    good = exchange.run([Task(0, weights, number=1)], Wait(), 0)
    assert [a.code for a in late + good] == ["expired", "ok"] and seen(good) == [1]


# ---------------------------------------------------------------------------------- checkpoint


@pytest.mark.parametrize(
    "strategy", [dict(), dict(count=1), dict(cohort_size=2, expires_s=2.0), dict(tick_s=1.0)]
)
def test_a_restored_run_equals_the_undisturbed_one_with_work_in_flight(toy, strategy):
    rule = toy.PullRule(noise=0.1, flops={0: 1e9, 1: 7e9, 2: 2.3e10, 3: 5e9})
    undisturbed = toy.rounds(4, rule, toy.ToyAvg(**strategy))
    expected = run(undisturbed, 9)

    first = toy.rounds(4, rule, toy.ToyAvg(**strategy))
    run(first, 4)
    tree, arrays = first.snapshot()
    tree = json.loads(json.dumps(tree, allow_nan=False))
    arrays = {key: array.copy() for key, array in arrays.items()}
    resumed = toy.rounds(4, rule, toy.ToyAvg(**strategy))
    resumed.restore(first.state, tree, arrays)
    actual = run(resumed, 5)

    assert toy.same(resumed.state, undisturbed.state)
    assert resumed.exchange.traffic == undisturbed.exchange.traffic
    for before, after in zip(expected[4:], actual, strict=True):
        assert before.clock_s == after.clock_s
        for one, other in zip(before.arrivals, after.arrivals, strict=True):
            assert (one.task.number, one.code, one.staleness, one.sent_s, one.arrived_s) == (
                other.task.number,
                other.code,
                other.staleness,
                other.sent_s,
                other.arrived_s,
            )
            assert one.update is None or one.update.metrics == other.update.metrics


def test_settings_in_flight_are_kept_as_the_numbers_they_are(toy):
    rule = toy.PullRule(flops={0: 1e12})
    weights = rule.fresh(np.random.default_rng(0))
    settings = {"local_steps": np.int64(3), "rate": np.float32(0.1), "name": "x", "is_last": np.bool_(True)}
    exchange = toy.exchange(1, rule)
    exchange.run([Task(0, weights, settings=settings, number=0)], Wait(until_s=1.0), 0)
    tree, arrays = exchange.snapshot()
    resumed = toy.exchange(1, rule)
    resumed.restore(json.loads(json.dumps(tree, allow_nan=False, sort_keys=True)), arrays)
    (arrival,) = resumed.run([], Wait(), 0)
    assert arrival.is_ok and arrival.task.settings == settings


def test_what_is_kept_between_rounds_does_not_grow_with_their_number(toy):
    rounds = toy.rounds(3, toy.PullRule(flops={1: 1e15}, faults={2: "nan"}), toy.ToyAvg(expires_s=2.0))
    sizes = []
    for _ in range(3):
        run(rounds, 10)
        tree, arrays = rounds.snapshot()
        sizes.append((len(tree["exchange"]["closed"]), sorted(arrays)))
    assert sizes[1] == sizes[2] and sizes[2][0] == 12


def test_an_infinite_duration_never_arrives_and_its_client_is_lost(toy):
    fleet = Timed(1.0, math.inf, is_online=lambda client_id, clock_s: client_id != 2)
    arrivals = toy.rounds(3, fleet=fleet).advance().arrivals
    assert [(a.task.client_id, a.code, a.arrived_s) for a in arrivals] == [(0, "ok", 1.0), (1, "lost", 1.0)]


def test_over_selection_makes_up_for_tasks_that_are_lost(toy):
    fleet = Mix({"one": DeviceClass(dropout_rate=0.5)})
    weights = toy.PullRule().fresh(np.random.default_rng(0))
    exchange = toy.exchange(12, fleet=fleet)
    tasks = [Task(client, weights, number=client) for client in range(12)]
    codes = [a.code for a in exchange.run(tasks, Wait(count=4, drop_late=True), 0)]
    assert codes.count("lost") >= 1 and codes.count("ok") >= 4
    assert len(codes) == 12 and exchange.num_in_flight == 0  # whoever is late is free again
