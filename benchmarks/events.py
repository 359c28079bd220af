"""What an arrival costs: an empty client rule through plan, wire, virtual time, validation and fold.

100 clients are busy at all times and each answer is replaced by a new task. The clients train nothing,
so what is measured is the federation's own work for a message down and a message up.

    python -m fedpref.benchmarks.events [arrivals] [registered clients …]
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedpref.flower.app import client_app
from fedpref.flower.exchange import Exchange
from fedpref.flower.fence import streams_kept
from fedpref.flower.pace import foresight
from fedpref.flower.rounds import Rounds, fresh_from
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


def measure(num_clients: int, num_arrivals: int) -> None:
    """Print seconds, events per second and memory of one federation."""
    rule, begun = Empty(), time.perf_counter()

    def shard_of(client_id: ClientId) -> Shard:
        return Shard(client_id, str(client_id), ONE_PAIR)

    with VirtualGrid(
        client_app(rule, shard_of), num_clients, Inline(), FLEET, 0, foresight(rule, shard_of)
    ) as grid:
        exchange = Exchange(grid, grid.nodes, seed=0)
        clients = range(num_clients)
        rounds = Rounds(Refill(), exchange, clients, fresh_from(rule, 0), 0, num_arrivals)
        made_s = time.perf_counter() - begun
        with streams_kept():
            begun, arrived = time.perf_counter(), 0
            while arrived < num_arrivals:
                arrived += len(rounds.advance().arrivals)
            spent_s = time.perf_counter() - begun
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{num_clients:>7} clients  made in {made_s:.2f} s  {arrived} arrivals in {spent_s:.1f} s, "
        f"{arrived / spent_s:,.0f} a second  virtual {grid.clock_s:.0f} s  peak memory {memory_mb:.0f} MB",
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
