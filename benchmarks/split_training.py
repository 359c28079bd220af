"""What kept activations save: seconds per client update of LoRA inside MiniLM, with and without them.

LoRA in the last two of six layers, rank 8, 30 steps of 16 pairs. Clients are real annotators where the
file is given, else synthetic people.

    python -m fedpref.benchmarks.split_training [FILE] [number of clients]
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path

import numpy as np

from fedpref.clients.lora_reward import LoraReward
from fedpref.data.assembly import population
from fedpref.data.partition import Natural
from fedpref.data.sources import PreferenceFile
from fedpref.data.split import PairSplit
from fedpref.data.synthetic import Synthetic
from fedpref.models.minilm import MiniLM
from fedpref.seeds import generator
from fedpref.types import ClientState, Shard, Task


def seconds(rule: LoraReward, shard: Shard) -> tuple[float, float]:
    """Wall seconds of one client update, and its final loss in nats."""
    weights = rule.fresh(generator(0, "fresh"))
    started = time.perf_counter()
    reply, _ = rule.answer(Task(0, weights, number=0), shard, ClientState(), generator(0, "task", 0))
    return time.perf_counter() - started, reply.metrics["loss_after"]


def main(file: Path | None = None, num_clients: int = 3) -> None:
    """Print medians over clients of median size."""
    if file is not None:
        people = population(PreferenceFile(str(file)).rows(), Natural(min_pairs=16), PairSplit(), seed=0)
    else:
        people = Synthetic(preset="tiny").population(seed=0)
    by_size = sorted(people.shards, key=lambda shard: (len(shard.pairs), shard.client_id))
    middle = len(by_size) // 2
    chosen = by_size[middle : middle + num_clients]
    cached = LoraReward(MiniLM(), last_layers=2)
    uncached = dataclasses.replace(cached, use_cache=False)
    started = time.perf_counter()
    cached.warm([shard.pairs for shard in chosen])
    warm_s = time.perf_counter() - started
    print(f"{num_clients} clients of {len(chosen[0].pairs)} pairs; activations kept in {warm_s:.1f} s")
    rows = [(seconds(cached, shard), seconds(uncached, shard)) for shard in chosen]
    with_s, without_s = (float(np.median([row[i][0] for row in rows])) for i in (0, 1))
    gap = max(abs(row[0][1] - row[1][1]) for row in rows)
    print(
        f"seconds per client update: {with_s:.2f} with kept activations, {without_s:.2f} without "
        f"({without_s / with_s:.2f} times as long)"
    )
    print(f"largest difference of the final losses: {gap:.1e} nats")


if __name__ == "__main__":
    main(
        Path(sys.argv[1]) if len(sys.argv) > 1 else None,
        int(sys.argv[2]) if len(sys.argv) > 2 else 3,
    )
