"""What a large population costs: round time and memory by clients.

Rounds of 100 clients among up to a million, whose shards are made when they are needed. The federations take
turns, a round each, in processes of their own; memory is the growth of a process from before its population
was made. The first round is not measured.
Where a population is no larger than the shards that are kept, its rounds make none: that is a gain of small
populations, and no cost of large ones, so rounds that make all their shards are told too.

    python -m fedpref.benchmarks.scale [clients=1000,1000000] [rounds=10] [json=FILE] [table=BENCHMARKS.md]
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

from fedpref.benchmarks.sections import conditions, put_section, this_command
from fedpref.clients.linear_reward import LinearReward
from fedpref.federation.federation import Federation
from fedpref.flower.fence import streams_kept
from fedpref.lazy import LazySequence
from fedpref.models.given import Given
from fedpref.seeds import generator
from fedpref.simulation.cohort import Cohort
from fedpref.strategies.fedavg import FedAvg
from fedpref.types import HeldOut, Pairs, Population, Shard

COHORT, DIM, PAIRS = 100, 384, 64
KEPT = (COHORT, 1024)
"""Shards kept. A cohort: all are made anew in every round. As by default: of a thousand clients, all are."""


def shard(client: int) -> Shard:
    """A client's pairs, drawn at its address."""
    sides = generator(0, "shard", client).standard_normal((2, PAIRS, DIM), np.float32)
    ids, empty = tuple(map(str, range(PAIRS))), ("",) * PAIRS
    return Shard(client, f"client-{client}", Pairs(empty, sides[0], sides[1], ids, empty))


def members(num_clients: int, rounds: int, keep: int, connection: Connection) -> None:
    """Run a federation, a round whenever told; send its seconds, and at the end the growth of memory, MB."""
    process = psutil.Process()
    before = process.memory_info().rss
    shards = LazySequence(num_clients, shard, keep)
    people = Population(shards, [HeldOut("somebody", None, shard(num_clients).pairs)])
    whole = Federation(
        people, LinearReward(Given(DIM)), FedAvg(cohort_size=COHORT), rounds, executor=Cohort()
    )
    peak = before
    with streams_kept(), whole.grid() as grid:
        turns = whole.start(grid)
        connection.send(None)
        for _ in range(rounds):
            connection.recv()
            begun = time.perf_counter()
            turns.advance()
            connection.send(time.perf_counter() - begun)
            peak = max(peak, process.memory_info().rss)
    connection.send((peak - before) / 1e6)


def populations(clients: Sequence[int], rounds: int, keep: int) -> list[dict[str, float]]:
    """Milliseconds a round and megabytes of each population, and how much longer than in the first."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for num_clients in clients:
        here, there = multiprocessing.Pipe()
        process = context.Process(target=members, args=(num_clients, 1 + rounds, keep, there), daemon=True)
        process.start()
        here.recv()  # one after the other: starting is not measured
        pipes.append(here)
        processes.append(process)
    round_s: list[list[float]] = [[] for _ in clients]
    for number in range(1 + rounds):
        for pipe, seconds in zip(pipes, round_s, strict=True):
            pipe.send(None)
            spent_s = pipe.recv()
            if number > 0:
                seconds.append(spent_s)
    grown = [float(pipe.recv()) for pipe in pipes]
    for process in processes:
        process.join()
    return [
        {
            "clients": num_clients,
            "shards_kept": keep,
            "ms_per_round": 1e3 * median(seconds),
            "times_the_first": median(a / b for a, b in zip(seconds, round_s[0], strict=True)),
            "memory_growth_mb": memory_mb,
        }
        for num_clients, seconds, memory_mb in zip(clients, round_s, grown, strict=True)
    ]


def as_text(grown: Sequence[Mapping[str, Any]]) -> str:
    """The table, as Markdown."""
    lines = ["| clients | shards kept | ms a round | times the first | memory, MB |"]
    lines += ["| ---: | ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {row['clients']:,} | {row['shards_kept']:,} | {row['ms_per_round']:.1f} "
        f"| {row['times_the_first']:.2f} | {row['memory_growth_mb']:.0f} |"
        for row in grown
    ]
    return "\n".join(lines)


def main(options: Mapping[str, str]) -> None:
    """Measure, print, and write."""
    clients = [int(number) for number in options.get("clients", "1000,10000,100000,1000000").split(",")]
    rounds = int(options.get("rounds", "10"))
    grown = [row for keep in KEPT for row in populations(clients, rounds, keep)]
    text = f"{conditions()}\n\n{as_text(grown)}"
    print(text)
    if "json" in options:
        found = {"conditions": conditions(), "populations": grown}
        Path(options["json"]).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if "table" in options:
        put_section(Path(options["table"]), "Scale", this_command("fedpref.benchmarks.scale"), text)


if __name__ == "__main__":
    main(dict(word.split("=", 1) for word in sys.argv[1:]))
