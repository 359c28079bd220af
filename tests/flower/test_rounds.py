"""One round, plan, wait and fold, over the virtual grid."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from flwr.app import Error, Message

from fedpref.errors import ConfigurationError, FederationError
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
    assert rounds.exchange.idle(range(2)) == [0]


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
        FederationError, match=r"round 0: no client answered.*client 0: client_failed.*the dog"
    ):
        rounds.advance()


def test_more_failed_rounds_may_be_allowed(toy):
    rounds = toy.rounds(2, toy.PullRule(faults={0: "nan", 1: "nan"}), max_failed_rounds=2)
    assert not rounds.advance().fold.updated
    with pytest.raises(FederationError, match="round 1"):
        rounds.advance()


def test_a_lone_failure_does_not_end_an_asynchronous_run_but_endless_failures_do(toy):
    flops = {0: 1e9, 1: 1e13, 2: 1e13}
    rounds = toy.rounds(3, toy.PullRule(faults={0: "raise"}, flops=flops), toy.ToyAvg(count=1))
    assert [a.code for a in rounds.advance().arrivals] == ["client_failed"]
    with pytest.raises(FederationError, match="no client answered"):
        run(rounds, 10)


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


def test_the_state_of_a_rejected_answer_is_dropped(toy):
    rounds = toy.rounds(2, shard_pairs=[1, 2])
    run(rounds, 1)
    rounds.exchange.shard_pairs = [1, 1]  # the server now refuses what client 1 claims
    run(rounds, 2)
    rounds.exchange.shard_pairs = [1, 2]
    assert seen(run(rounds, 1)[0].arrivals) == [4, 2]


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


def test_an_infinite_duration_never_arrives_and_its_client_is_lost(toy):
    class Gone:
        def duration_s(self, client_id, task_number, flops, bytes_down, bytes_up):
            return math.inf if client_id == 1 else 1.0

        def is_online(self, client_id, clock_s):
            return client_id != 2

    arrivals = toy.rounds(3, fleet=Gone()).advance().arrivals
    assert [(a.task.client_id, a.code, a.arrived_s) for a in arrivals] == [(0, "ok", 1.0), (1, "lost", 1.0)]
