"""How much work a task is: foreseen for any message, and cut to fit a deadline."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from fedpref.flower import _shim, wire
from fedpref.flower.pace import foresight, paced
from fedpref.simulation.device_classes import DeviceClass, Mix
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.fedprox import FedProx
from fedpref.types import Pairs, Reply, Shard, Task, Workload

MODEL = {"w": np.ones((5, 50), np.float32)}  # 1,000 bytes
NODE = {"partition-id": 1, "flops-per-s": 50.0, "down-bytes-per-s": 500.0, "up-bytes-per-s": 250.0}
NODE = {**NODE, "latency-s": 0.5}
PROMPTS = ("a", "b")
SHARD = Shard(1, "client-1", Pairs(PROMPTS, PROMPTS, PROMPTS, PROMPTS, PROMPTS))


def seconds_for(steps, up_bytes=1000):
    """Down, computing, up."""
    return (0.5 + 1000 / 500) + (30 + 10 * steps) / 50 + (0.5 + up_bytes / 250)


@dataclass(frozen=True)
class Worker:
    """Ten operations a step and thirty a task, and 100 bytes for each pair."""

    local_steps: int = 20
    seen: list = field(default_factory=list)

    def fresh(self, rng):
        return MODEL

    def answer(self, task, shard, state, rng):
        steps = int(task.settings.get("local_steps", self.local_steps))
        flops = self.workload(task, shard).flops
        return Reply(dict(task.weights), len(shard.pairs), {"steps_done": steps, "flops": flops}), state

    def margins(self, weights, pairs):
        return np.zeros(len(pairs))

    def workload(self, task, shard):
        self.seen.append(task)
        steps = int(task.settings.get("local_steps", self.local_steps))
        return Workload(30.0 + 10.0 * steps, 100.0 * len(shard.pairs))


class Silent:
    """A rule that cannot tell its work."""

    local_steps = 20


def within(seconds, **settings):
    return Task(1, MODEL, settings={"within_s": seconds, **settings})


def steps_of(task):
    return task.settings.get("local_steps")


# ---------------------------------------------------------------------------- pace


@pytest.mark.parametrize("steps", range(1, 20))
def test_a_deadline_that_is_met_exactly_gives_these_steps_and_no_more(steps):
    needed_s = seconds_for(steps)
    assert steps_of(paced(within(needed_s), Worker(), SHARD, NODE)) == steps
    assert steps_of(paced(within(needed_s - 1e-9), Worker(), SHARD, NODE)) == max(1, steps - 1)


def test_a_device_that_manages_all_steps_gets_the_task_as_it_is():
    task = within(seconds_for(20))
    assert paced(task, Worker(), SHARD, NODE) is task


def test_one_step_is_done_even_where_nothing_fits():
    assert steps_of(paced(within(0.001), Worker(), SHARD, NODE)) == 1


def test_the_tasks_own_steps_are_the_most():
    needed_s = seconds_for(12)
    assert steps_of(paced(within(needed_s, local_steps=9), Worker(), SHARD, NODE)) == 9
    assert steps_of(paced(within(needed_s, local_steps=15), Worker(), SHARD, NODE)) == 12


def test_an_answer_without_weights_needs_no_upload():
    needed_s = seconds_for(6, up_bytes=0)
    task = Task(1, MODEL, settings={"within_s": needed_s}, reply={})
    assert steps_of(paced(task, Worker(), SHARD, NODE)) == 6


def test_a_device_whose_times_vary_leaves_room_for_it():
    # 19 of 20 log-normal factors of standard deviation 0.2 are below exp(1.645 * 0.2).
    needed_s = seconds_for(8)
    node = {**NODE, "jitter": 0.2}
    assert steps_of(paced(within(1.001 * np.exp(0.329) * needed_s), Worker(), SHARD, node)) == 8
    assert steps_of(paced(within(0.999 * np.exp(0.329) * needed_s), Worker(), SHARD, node)) == 7


@pytest.mark.parametrize(
    "node",
    [
        {"partition-id": 1},
        {**NODE, "flops-per-s": 0.0},
        {**NODE, "up-bytes-per-s": "fast"},
        {key: value for key, value in NODE.items() if key != "latency-s"},
    ],
)
def test_a_node_that_does_not_know_its_speed_does_all_steps(node):
    task = within(0.001)
    assert paced(task, Worker(), SHARD, node) is task


def test_a_rule_that_cannot_tell_its_work_does_all_steps():
    task = within(0.001)
    assert paced(task, Silent(), SHARD, NODE) is task


def test_a_task_without_a_deadline_is_not_looked_at():
    rule, task = Worker(), Task(1, MODEL)
    assert paced(task, rule, SHARD, NODE) is task
    assert rule.seen == []


# ---------------------------------------------------------------- on a fleet in virtual time

DEADLINE_S = 12.0
SLOW = {"flops_per_s": 20.0, "down_bytes_per_s": 500.0, "up_bytes_per_s": 500.0, "latency_s": 0.25}
FLEET = Mix({"device": DeviceClass(**SLOW, speed_sigma=0.6)})


def last_round(toy, strategy):
    rounds = toy.rounds(12, Worker(), strategy, fleet=FLEET)
    for _ in range(3):
        outcome = rounds.advance()
    return rounds, outcome.arrivals


def test_fedprox_gets_from_every_device_what_it_manages_before_the_deadline(toy):
    rounds, arrivals = last_round(toy, FedProx(deadline_s=DEADLINE_S))
    done = {arrival.task.client_id: int(arrival.update.metrics["steps_done"]) for arrival in arrivals}
    assert len(done) == 12 and min(done.values()) < 10 and max(done.values()) == 20
    for arrival in arrivals:
        took_s = arrival.arrived_s - arrival.sent_s
        speed = rounds.exchange.grid.devices.device(arrival.task.client_id).flops_per_s
        steps = done[arrival.task.client_id]
        assert took_s <= DEADLINE_S or steps == 1
        assert steps == 20 or 0.25 * 2 + 4 + (30 + 10 * (steps + 1)) / speed > DEADLINE_S


def test_fedavg_with_the_same_deadline_loses_those_who_cannot_do_all(toy):
    _, avg = last_round(toy, FedAvg(deadline_s=DEADLINE_S))
    _, prox = last_round(toy, FedProx(deadline_s=DEADLINE_S))
    full = {a.task.client_id for a in prox if a.update.metrics["steps_done"] == 20}
    assert {a.task.client_id for a in avg if a.is_ok} == full
    assert {a.code for a in avg if not a.is_ok} == {"expired"}


# ------------------------------------------------------------------------- foresight


def node(**more):
    _shim.adopt_process()
    return Context(1, 1, {**NODE, **more}, RecordDict(), {})


def sent(task):
    return wire.send(task, wire.pack(task.weights), 2, 7, -1)


@pytest.mark.parametrize(
    ("task", "steps"),
    [
        (Task(1, MODEL), 20),
        (Task(1, MODEL, settings={"local_steps": 3}), 3),
        (within(seconds_for(7)), 7),
        (Task(1, MODEL, settings={"split_at": 0.25}, reply={}), 5),
        (Task(1, MODEL, "resume", {"split_at": 0.25, "mix": 0.5}), 15),
    ],
    ids=["all", "some", "in time", "first segment", "second segment"],
)
def test_what_is_foreseen_is_what_the_client_does(toy, task, steps):
    rule, shards = Worker(), toy.shards(3)
    work = foresight(rule, shards)(sent(task), node())
    assert work == Workload(30 + 10 * steps, 200)
    if task.kind == "train":
        from fedpref.flower.app import client_app

        metrics = client_app(rule, shards)(sent(task), node()).content["metrics"]
        assert (metrics["steps_done"], metrics["flops"]) == (steps, work.flops)


def test_foresight_sees_the_shapes_of_weights_and_no_values(toy):
    rule = Worker()
    foresight(rule, toy.shards(3))(sent(Task(1, MODEL)), node())
    (seen,) = rule.seen
    assert wire.schema_of(seen.weights) == wire.schema_of(MODEL)
    assert not seen.weights["w"].flags.writeable and not seen.weights["w"].any()


def stock(**config):
    content = {"arrays": wire.named_arrays(MODEL), "config": ConfigRecord({"server-round": 1, **config})}
    return Message(RecordDict(content), 2, "train")


def test_stock_messages_evaluations_and_silent_rules_are_not_foreseen(toy):
    shards = toy.shards(3)
    nothing = Workload(0, 0)
    assert foresight(Worker(), shards)(stock(), node()) == nothing
    assert foresight(Worker(), shards)(sent(Task(1, MODEL, "evaluate")), node()) == nothing
    assert foresight(Silent(), shards)(sent(Task(1, MODEL)), node()) == nothing


def broken(**config):
    records = {"arrays": ArrayRecord({}), "config": ConfigRecord(config)}
    return Message(RecordDict(records), 2, "train")


@pytest.mark.parametrize(
    "message",
    [
        lambda: broken(manifest="no JSON"),
        lambda: broken(manifest=3),
        lambda: broken(manifest="[]"),
        lambda: Message(RecordDict({}), 2, "train"),
        lambda: sent(Task(1, MODEL, settings={"local_steps": "many"})),
        lambda: sent(Task(1, MODEL, settings={"split_at": 7.0})),
        lambda: sent(Task(1, MODEL, settings={"within_s": "soon"})),
    ],
)
def test_a_message_that_the_client_will_refuse_is_no_work_and_no_error(toy, message):
    assert foresight(Worker(), toy.shards(3))(message(), node()) == Workload(0, 0)


def test_a_node_without_a_shard_is_no_error(toy):
    assert foresight(Worker(), toy.shards(1))(sent(Task(1, MODEL)), node()) == Workload(0, 0)


def test_an_outline_is_the_task_but_for_the_values(toy):
    task = Task(1, MODEL, "score", {"a": 1.5, "b": "x"}, {"w": (2,)}, 9.5, number=4, version=3)
    seen = wire.outline(sent(task), 1)
    received = wire.receive(sent(task), 1, 0, {}).task
    for name in ("client_id", "kind", "settings", "reply", "expires_s", "number", "version"):
        assert getattr(seen, name) == getattr(received, name) == getattr(task, name)
    assert wire.outline(stock(), 1) is None
