"""What a hundred thousand personal heads cost: memory to hold them, and time for a round among them.

Every client keeps a head of 384 numbers and a factor of 64. Memory: twice as many numbers a client (those of
its last accepted task, and of one that awaits acceptance) are put into a store on disk, made durable a
thousand clients at a time, and a thousand are read back; what is told is the growth of a fresh process's
resident memory, at its peak. Rounds: a thousand clients answer in each, in an order drawn anew for every
pass over the population; everybody has answered twice before the first timed round, so that states and the
server's books are as large as they get. Every round ends with a checkpoint. The federations run side by side,
each in a process of its own, and do one round in turn, so that a slow minute of the machine is everybody's.
One person is evaluated in the last round, outside of the timed ones: an evaluation asks all people by nature.

    python -m fedpref.benchmarks.client_store [timed rounds] [registered clients …]
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import RecordDict

from fedpref.federation.federation import Federation
from fedpref.flower._shim import records_from_bytes, records_to_bytes
from fedpref.flower.client_state import propose, settle
from fedpref.report.rundir import RunDirectory
from fedpref.seeds import generator
from fedpref.simulation.client_store import ClientStore
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.global_model import GlobalModel
from fedpref.types import (
    Arrival,
    ClientId,
    ClientState,
    Fold,
    Fresh,
    HeldOut,
    Pairs,
    Plan,
    Population,
    Reply,
    Shard,
    Task,
    Weights,
)

DIM, FACTOR, COHORT, PASSES = 384, (8, 8), 1_000, 2
ONE_PAIR = Pairs(("",), ("a",), ("b",), ("pair",), ("",))


@dataclass(frozen=True)
class KeepsHead:
    """Sends back what it got; keeps a head and a factor, and changes them with every task."""

    def fresh(self, rng: np.random.Generator) -> Weights:
        """A linear head."""
        return {"score.weight": np.zeros((1, DIM), np.float32)}

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        """Nothing learned, but something to keep."""
        return Reply(task.weights, 1, {}), moved(state, rng)

    def personalise(self, weights: Weights, shard: Shard | None, state: ClientState) -> Weights:
        """The client's own head."""
        return {"score.weight": state.arrays.get("own.head", weights["score.weight"])}

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        """No opinion."""
        return np.zeros(len(pairs))


def moved(state: ClientState, rng: np.random.Generator) -> ClientState:
    """A state with other numbers."""
    kept = state.arrays or {"own.head": np.zeros((1, DIM), np.float32), "own.A": np.zeros(FACTOR, np.float32)}
    return ClientState({key: array + rng.random(dtype=np.float32) for key, array in kept.items()})


@dataclass(frozen=True, eq=False)
class Turn:
    """State: the model, and how many were asked so far."""

    model: GlobalModel
    num_asked: int


@dataclass(frozen=True)
class InTurn:
    """FedAvg over ``COHORT`` clients a round, such that everybody is asked equally often."""

    num_clients: int
    inner: FedAvg = field(default_factory=lambda: FedAvg(share="clients"))

    def init(self, fresh: Fresh, clients: Sequence[ClientId], horizon: int, rng: np.random.Generator) -> Turn:
        """Nobody was asked."""
        return Turn(self.inner.init(fresh, clients, horizon, rng), 0)

    def plan(
        self, state: Turn, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[Turn, Plan]:
        """The next ones; each pass over the population has an order of its own."""
        pass_, first = divmod(state.num_asked, self.num_clients)
        order = generator(0, "order", pass_).permutation(self.num_clients)
        cohort = sorted(int(client) for client in order[first : first + COHORT])
        _, plan = self.inner.plan(state.model, cohort, clock_s, rng)
        return Turn(state.model, state.num_asked + len(cohort)), plan

    def fold(
        self, state: Turn, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator
    ) -> Fold:
        """The mean."""
        fold = self.inner.fold(state.model, arrivals, clock_s, rng)
        return fold._replace(state=Turn(fold.state, state.num_asked))

    def models(self, state: Turn) -> Mapping[str, Weights]:
        """The model."""
        return self.inner.models(state.model)

    def serve(self, state: Turn, client_id: ClientId | None) -> Sequence[Weights]:
        """The model."""
        return self.inner.serve(state.model, client_id)


def hold(num_clients: int, answer: Connection) -> None:
    """Send the growth of resident memory while a store takes all heads, bytes of them on disk, seconds."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clients.db"
        begun, before_bytes = time.perf_counter(), resident_bytes()
        store = ClientStore(path)
        for client in range(num_clients):
            records = RecordDict()
            propose(records, moved(ClientState(), rng), 0)
            propose(records, moved(settle(records, 0), rng), 1)
            store.put(client, records_to_bytes(records))
            if client % COHORT == COHORT - 1:
                store.mark()
        for client in rng.choice(num_clients, size=min(COHORT, num_clients), replace=False):
            kept = store.get(int(client))
            assert kept is not None and settle(records_from_bytes(kept), 1).arrays["own.head"].size == DIM
        assert store.num_clients == num_clients
        store.close()
        peak_bytes = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        spent_s = time.perf_counter() - begun
        answer.send((peak_bytes - before_bytes, path.stat().st_size, spent_s))


def federate(num_clients: int, num_timed: int, turns: Connection) -> None:
    """Run a federation; send seconds and processor seconds of each round, one whenever told to go on."""
    shards = tuple(Shard(client, str(client), ONE_PAIR) for client in range(num_clients))
    population = Population(shards, (HeldOut("0", 0, ONE_PAIR),))
    fill = PASSES * -(-num_clients // COHORT)
    rounds = fill + num_timed + 1
    begun = np.zeros(2)

    def wait_for_turn(record: Mapping[str, Any]) -> None:
        nonlocal begun
        if fill < record["round"] < rounds:
            turns.send(clocks() - begun)
        if fill <= record["round"] < rounds - 1:
            turns.recv()
        begun = clocks()

    federation = Federation(
        population,
        KeepsHead(),
        InTurn(num_clients),
        rounds,
        evaluate_every=rounds,
        checkpoint_every=1,
    )
    with tempfile.TemporaryDirectory() as folder:
        named: dict[str, Any] = {"config": "", "overrides": "[]", "config_hash": "0" * 64, "command": ()}
        with RunDirectory.create(Path(folder), "store", seed=0, **named) as directory:
            result = federation.run(directory, wait_for_turn)
        assert result.summary["replies_ok"] == rounds * min(COHORT, num_clients)
    turns.send(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def clocks() -> np.ndarray:
    """Now on the wall, and seconds of the processor that this process has had."""
    return np.array([time.perf_counter(), time.process_time()])


def resident_bytes() -> int:
    """Memory of this process that is in RAM now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def compare_memory(populations: Sequence[int]) -> None:
    """Print what it takes to hold the heads of each population."""
    spawn = multiprocessing.get_context("spawn")
    for num_clients in populations:
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=hold, args=(num_clients, theirs))
        process.start()
        growth_bytes, disk_bytes, spent_s = ours.recv()
        process.join()
        print(
            f"{num_clients:>7} heads: resident memory grows by {growth_bytes / 1e6:.0f} MB for "
            f"{disk_bytes / 1e6:.0f} MB on disk, written and read in {spent_s:.1f} s",
            flush=True,
        )


def compare_rounds(populations: Sequence[int], num_timed: int) -> None:
    """Print seconds of a round in each federation, and their ratio to those in the first."""
    spawn = multiprocessing.get_context("spawn")
    pipes = [spawn.Pipe() for _ in populations]
    processes = [
        spawn.Process(target=federate, args=(num_clients, num_timed, theirs))
        for num_clients, (_, theirs) in zip(populations, pipes, strict=True)
    ]
    for process in processes:
        process.start()
    seconds = np.empty((len(populations), num_timed, 2))
    for turn in range(num_timed):
        for place, (ours, _) in enumerate(pipes):
            ours.send("go")
            seconds[place, turn] = ours.recv()
    peaks = [ours.recv() for ours, _ in pipes]
    for process in processes:
        process.join()
    medians = np.median(seconds, axis=1)
    for num_clients, (wall_s, cpu_s), (wall_ratio, cpu_ratio), peak in zip(
        populations, medians, medians / medians[0], peaks, strict=True
    ):
        print(
            f"{num_clients:>7} clients: a round of {min(COHORT, num_clients)} in {wall_s:.2f} s, "
            f"{wall_ratio:.2f} times that of {populations[0]}; {cpu_s:.2f} s of the processor, "
            f"{cpu_ratio:.2f} times; peak memory {peak / 1e6:.0f} MB"
        )


def main(num_timed: int = 15, populations: Sequence[int] = (1_000, 100_000)) -> None:
    """Memory first, then time."""
    compare_memory(populations)
    compare_rounds(populations, num_timed)


if __name__ == "__main__":
    match [int(word) for word in sys.argv[1:]]:
        case []:
            main()
        case [num_timed]:
            main(num_timed)
        case [num_timed, *populations]:
            main(num_timed, populations)
