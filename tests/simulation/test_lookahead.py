"""Computing ahead changes nothing: the grid does what one does that knows every end at dispatch.

``Eager`` is the definition. It answers a message in the moment in which it is sent, so that the end of every
task is known from the start and there is nothing to look ahead for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedpref.seeds import generator
from fedpref.simulation.availability import Daily, Markov
from fedpref.simulation.device_classes import DeviceClass, Mix
from fedpref.simulation.executor import attempt
from fedpref.simulation.fleet import Devices, lost_at, node_config, timing
from fedpref.simulation.grid import VirtualGrid
from fedpref.simulation.inline import Inline
from fedpref.types import Workload

NUM_CLIENTS, SEED = 6, 3
SLOW = DeviceClass(flops_per_s=1.0, speed_sigma=0.5, down_bytes_per_s=10.0, up_bytes_per_s=5.0)
WILD = replace(SLOW, jitter=0.6, dropout_rate=0.3)
FLEETS = {
    "equal": Mix({"a": replace(SLOW, speed_sigma=0.0)}),
    "steady": Mix({"a": SLOW}),
    "jitter and drop-outs": Mix({"a": WILD}),
    "come and go": Mix(
        {
            "a": replace(WILD, share=0.5, availability=Markov(9.0, 6.0)),
            "b": replace(SLOW, share=0.3, availability=Daily(20.0, 30.0, 30.0)),
            "c": replace(SLOW, share=0.2, jitter=1.0),
        }
    ),
}


def flops_of(key: int) -> float:
    return float(generator(0, "work", key).integers(0, 12))


def foresight(message: Message, context: Context) -> Workload:
    """Of a task that takes x: nothing, a part, all, and more than x."""
    key = int(message.content["config"]["key"])
    return Workload(flops_of(key) * (0.0, 0.5, 1.0, 1.5)[key % 4], 0.0)


def app() -> ClientApp:
    """Each answer tells how many came before it, and the last task; some fail after they have changed it."""

    def train(message: Message, context: Context) -> Message:
        key = int(message.content["config"]["key"])
        before = dict(context.state["own"]) if "own" in context.state else {"count": 0, "last": -1}
        context.state["own"] = ConfigRecord({"count": before["count"] + 1, "last": key})
        if key % 7 == 3:
            raise RuntimeError(f"task {key}")
        arrays = ArrayRecord({"w": Array(np.zeros(key % 5, np.float32))})
        told = MetricRecord({"flops": flops_of(key), **{name: int(n) for name, n in before.items()}})
        return Message(RecordDict({"arrays": arrays, "metrics": told}), reply_to=message)

    made = ClientApp()
    made.train()(train)
    return made


def message_to(client: int, key: int, numbered: bool) -> Message:
    config = {"key": key, **({"task": 1000 + key} if numbered else {})}
    arrays = ArrayRecord({"w": Array(np.zeros(key % 3, np.float32))})
    return Message(RecordDict({"arrays": arrays, "config": ConfigRecord(config)}), client + 1, "train")


@dataclass
class End:
    """The end of a task, known when it is sent."""

    order: int
    client: int
    at_s: float
    outcome: Any
    state: RecordDict | None


class Eager:
    """A grid that answers at once and hands out the answers when it is time."""

    def __init__(self, fleet: Mix) -> None:
        self.devices: Devices = fleet.deploy(NUM_CLIENTS, SEED)
        self.app, self.clock_s, self.num_sent = app(), 0.0, 0
        self.ends: dict[str, End] = {}
        self.states: dict[int, RecordDict] = {}

    def push(self, messages: Sequence[Message]) -> list[str]:
        ids = []
        for message in messages:
            ids.append(f"m{self.num_sent}")
            self.ends[ids[-1]] = self._end(message, self.num_sent)
            self.num_sent += 1
        return ids

    def _end(self, message: Message, order: int) -> End:
        client = message.metadata.dst_node_id - 1
        if client not in list(self.devices.online(self.clock_s)):
            return End(order, client, self.clock_s, "its device is offline", None)
        start_s, state = self.clock_s, self.states.get(client, RecordDict())
        for earlier in self.ends.values():  # in order of sending
            if earlier.client == client and earlier.outcome != "its device is offline":
                start_s = max(start_s, earlier.at_s)
                state = state if earlier.state is None else earlier.state
        device = self.devices.device(client)
        context = Context(1, client + 1, node_config(device), state, {})
        reply, after = attempt(self.app, message, context)
        config = message.content["config"]
        number = int(config.get("task", order))
        down = 4 * len(message.content["arrays"]["w"].numpy())
        up, flops = 0, 0.0
        if reply.has_content():
            up, flops = 4 * len(reply.content["arrays"]["w"].numpy()), flops_of(int(config["key"]))
        seconds = timing(device, SEED, number, flops, down, up).total_s
        least_s = timing(device, SEED, number, foresight(message, context).flops, down, 0).total_s
        part, offline_s = lost_at(device, SEED, number), self.devices.online_until_s(client, self.clock_s)
        at_s = start_s + (1.0 if part is None else part) * max(seconds, least_s)
        if at_s >= offline_s:
            return End(order, client, offline_s, "its device went offline", None)
        if part is not None:
            return End(order, client, at_s, "its device dropped out", None)
        return End(order, client, at_s, outcome(reply), after.state)

    def next_arrivals(self, ids: Sequence[str], until_s: float) -> list[Any]:
        wanted = [(self.ends[i].at_s, self.ends[i].client, self.ends[i].order, i) for i in ids]
        if not wanted or min(wanted)[0] > until_s:
            self.clock_s = max(self.clock_s, until_s) if until_s < math.inf else self.clock_s
            return []
        self.clock_s = max(self.clock_s, min(wanted)[0])
        there = [self.ends.pop(entry[-1]) for entry in sorted(wanted) if entry[0] <= self.clock_s]
        for end in there:
            if end.state is not None:
                self.states[end.client] = end.state
                for other in self.ends.values():
                    if other.client == end.client and other.order < end.order:
                        other.state = None
        return [(end.client, end.outcome) for end in there]

    def forget(self, ids: Sequence[str]) -> None:
        for message_id in ids:
            del self.ends[message_id]


def outcome(reply: Message) -> Any:
    if reply.has_error():
        return reply.error.reason.strip().splitlines()[-1]
    return {**reply.content["metrics"], "size": len(reply.content["arrays"]["w"].numpy())}


def new_grid(fleet: Mix) -> VirtualGrid:
    return VirtualGrid(app(), NUM_CLIENTS, Inline(), fleet, SEED, foresight)


def states_of(states: Mapping[int, RecordDict]) -> dict[int, dict[str, Any]]:
    return {client: dict(state["own"]) for client, state in states.items() if state}


@pytest.mark.parametrize("name", FLEETS)
@pytest.mark.parametrize("restores", [False, True])
@pytest.mark.parametrize("draws", range(3))
def test_every_answer_comes_when_and_as_if_it_had_been_computed_at_dispatch(
    name: str, restores: bool, draws: int
) -> None:
    """Whatever is sent to whom, waited for, given up and stopped in between."""
    rng = np.random.default_rng(draws)
    fleet = FLEETS[name]
    eager, grid, key = Eager(fleet), new_grid(fleet), 0
    seen: list[Any] = []
    for _ in range(60):
        # Some messages go to clients that are offline or still at work, several to one of them.
        messages = []
        for client in rng.integers(NUM_CLIENTS, size=rng.integers(0, 4)).tolist():
            messages.append((client, key, bool(rng.random() < 0.7)))
            key += 1
        sent = [message_to(*each) for each in messages]
        assert eager.push([message_to(*each) for each in messages]) == grid.push_messages(sent)
        if restores and rng.random() < 0.4:
            tree, arrays = grid.snapshot()
            if rng.random() < 0.7:  # else it was only looked at
                grid = new_grid(fleet)
                grid.restore(tree, arrays)
        wanted = [i for i in eager.ends if rng.random() < 0.8]
        until_s = eager.clock_s + float(rng.choice([0.0, 2.0, 6.0, math.inf]))
        expected = eager.next_arrivals(wanted, until_s)
        found = grid.next_arrivals(wanted, until_s)
        assert [(reply.metadata.src_node_id - 1, outcome(reply)) for reply in found] == expected
        assert grid.clock_s == eager.clock_s
        unwanted = [i for i in eager.ends if rng.random() < 0.1]
        eager.forget(unwanted)
        grid.forget(unwanted)
        seen += expected
    assert len(seen) > 20
    numbers = range(len(grid.nodes))
    kept = {k.removeprefix("state/"): a for k, a in grid.snapshot()[1].items() if k.startswith("state/")}
    fresh = new_grid(fleet)
    fresh.restore(*grid.snapshot())
    assert kept.keys() == {str(client) for client in states_of(eager.states)}
    assert states_of({client: fresh.client_records(client) for client in numbers}) == states_of(eager.states)
