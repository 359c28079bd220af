"""What an arrival costs where the clients train nothing: the federation's own work for two messages.

100 clients are busy at all times and each answer is replaced by a new task. "grid": messages are made,
pass through the virtual-time grid and the client app, and the answers are taken out. "loop": with plan,
validation, byte counts, the log of what left the clients, and fold.

    python -m fedpref.benchmarks.events [arrivals] [registered clients …]
"""

from __future__ import annotations

import math
import multiprocessing
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedpref.flower import wire
from fedpref.flower.app import client_app
from fedpref.flower.exchange import Exchange
from fedpref.flower.fence import streams_kept
from fedpref.flower.idle import idle_of
from fedpref.flower.pace import foresight
from fedpref.flower.rounds import Rounds, fresh_from
from fedpref.seeds import generator
from fedpref.simulation.device_classes import DeviceClass, Mix
from fedpref.simulation.grid import VirtualGrid
from fedpref.simulation.inline import Inline
from fedpref.strategies.cohort import refill
from fedpref.types import (
    Arrival,
    ClientId,
    ClientState,
    Fold,
    Fresh,
    Pairs,
    Plan,
    Reply,
    Shard,
    Task,
    Wait,
    Weights,
    Workload,
)

BUSY, PARAMETERS = 100, 384
ONE_PAIR = Pairs(("",), ("a",), ("b",), ("pair",), ("",))
FLEET = Mix({"device": DeviceClass(flops_per_s=1e6, speed_sigma=0.7)})


@dataclass(frozen=True)
class Empty:
    """Sends back what it got, after a million operations of virtual time."""

    def fresh(self, rng: np.random.Generator) -> Weights:
        """A linear head."""
        return {"score.weight": np.zeros((1, PARAMETERS), np.float32)}

    def workload(self, task: Task, shard: Shard) -> Workload:
        """Known before."""
        return Workload(1e6, 0.0)

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        """Nothing learned."""
        return Reply(task.weights, 1, {"flops": 1e6}), state

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        """No opinion."""
        return np.zeros(len(pairs))


@dataclass(frozen=True, eq=False)
class Sent:
    """State: the model, and tasks in flight."""

    model: Weights
    in_flight: int


@dataclass(frozen=True)
class Refill:
    """Keeps clients busy and never changes the model, though it says so."""

    def init(self, fresh: Fresh, clients: Sequence[ClientId], horizon: int, rng: np.random.Generator) -> Sent:
        """Nobody works."""
        return Sent(fresh("global"), 0)

    def plan(
        self, state: Sent, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[Sent, Plan]:
        """As many tasks as ended."""
        chosen = refill(idle, BUSY, state.in_flight, rng)
        tasks = [Task(client, state.model) for client in chosen]
        return replace(state, in_flight=state.in_flight + len(tasks)), Plan(tasks, Wait(count=1))

    def fold(
        self, state: Sent, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator
    ) -> Fold:
        """Count."""
        return Fold(replace(state, in_flight=state.in_flight - len(arrivals)), updated=len(arrivals))

    def models(self, state: Sent) -> Mapping[str, Weights]:
        """The model."""
        return {"global": state.model}

    def serve(self, state: Sent, client_id: ClientId | None) -> Sequence[Weights]:
        """The model."""
        return [state.model]


def through_the_grid(grid: VirtualGrid, num_clients: int, num_arrivals: int) -> None:
    """Messages in, answers out."""
    model = Empty().fresh(generator(0, "fresh"))
    packed, busy, number = wire.pack(model), dict[str, ClientId](), 0
    working: set[ClientId] = set()
    arrived = 0
    while arrived < num_arrivals:
        idle = idle_of(grid.online(grid.nodes), working)
        chosen = refill(idle, BUSY, len(busy), generator(0, "plan", number))
        tasks = [Task(client, model, number=number + index) for index, client in enumerate(chosen)]
        number += len(tasks)
        messages = [wire.send(task, packed, grid.nodes[task.client_id], 0, -1) for task in tasks]
        for task, message_id in zip(tasks, grid.push_messages(messages), strict=True):
            busy[message_id] = task.client_id
            working.add(task.client_id)
        for reply in grid.next_arrivals(busy.keys(), math.inf):
            working.discard(busy.pop(reply.metadata.reply_to_message_id))
            arrived += 1


def through_the_loop(grid: VirtualGrid, num_clients: int, num_arrivals: int) -> None:
    """Plan, wait and fold."""
    exchange = Exchange(grid, grid.nodes, seed=0)
    rounds = Rounds(Refill(), exchange, range(num_clients), fresh_from(Empty(), 0), 0, num_arrivals)
    arrived = 0
    while arrived < num_arrivals:
        arrived += len(rounds.advance().arrivals)


def measure(num_clients: int, num_arrivals: int) -> None:
    """Print seconds, events per second and memory of one population, both ways."""
    rule = Empty()

    def shard_of(client_id: ClientId) -> Shard:
        return Shard(client_id, str(client_id), ONE_PAIR)

    for name, way in (("grid", through_the_grid), ("loop", through_the_loop)):
        app, known = client_app(rule, shard_of), foresight(rule, shard_of)
        with VirtualGrid(app, num_clients, Inline(), FLEET, 0, known) as grid, streams_kept():
            begun = time.perf_counter()
            way(grid, num_clients, num_arrivals)
            spent_s = time.perf_counter() - begun
        memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{num_clients:>7} clients, {name}: {num_arrivals} arrivals in {spent_s:.1f} s, "
            f"{num_arrivals / spent_s:,.0f} a second; {grid.clock_s:.0f} virtual s; peak {memory_mb:.0f} MB",
            flush=True,
        )


def main(num_arrivals: int = 100_000, populations: Sequence[int] = (1_000, 10_000, 100_000)) -> None:
    """Measure each population in a process of its own, so that peaks of memory do not mix."""
    for num_clients in populations:
        process = multiprocessing.get_context("spawn").Process(
            target=measure, args=(num_clients, num_arrivals)
        )
        process.start()
        process.join()


if __name__ == "__main__":
    match [int(word) for word in sys.argv[1:]]:
        case []:
            main()
        case [num_arrivals]:
            main(num_arrivals)
        case [num_arrivals, *populations]:
            main(num_arrivals, populations)
