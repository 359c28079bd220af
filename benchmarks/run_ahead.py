"""What computing ahead of the clock saves: wall seconds of one asynchronous run with 1, 2 and 4 workers.

Virtual time is serial, the work is not: a client's answer depends only on what it was sent. Here every
task sleeps, so that workers share no processor and the ratio shows what the simulation itself leaves to
do in parallel. FedBuff keeps 12 of 16 clients busy on devices of which some are far faster than others.
The start of Ray is not counted; all runs must give the same weights.

    python -m fedpref.benchmarks.run_ahead [milliseconds a task] [versions]
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, replace

import numpy as np

from fedpref.clients.linear_reward import LinearReward
from fedpref.data.synthetic import Synthetic
from fedpref.federation.federation import Federation
from fedpref.models.given import Given
from fedpref.simulation.device_classes import DeviceClass, Mix
from fedpref.simulation.ray import RayPool
from fedpref.strategies.fedbuff import FedBuff
from fedpref.types import ClientState, Pairs, Reply, Shard, Task, Weights, Workload

DIM, BUSY, BUFFER = 12, 12, 4
# Seconds a task, so that devices decide the order of arrivals and links do not.
FLEET = Mix({"device": DeviceClass(flops_per_s=1e3, speed_sigma=0.7, jitter=0.3)})


@dataclass(frozen=True)
class Slow:
    """Takes wall time for a task without using a processor.

    Attributes:
        inner: trains.
        sleep_s: wall seconds on top.
        is_foreseen: the work of a task is told beforehand; else the simulation knows only the links.
    """

    inner: LinearReward
    sleep_s: float
    is_foreseen: bool = True

    def fresh(self, rng: np.random.Generator) -> Weights:
        """Initial weights of the inner rule."""
        return self.inner.fresh(rng)

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        """Margins of the inner rule."""
        return self.inner.margins(weights, pairs)

    def workload(self, task: Task, shard: Shard) -> Workload:
        """Work of the inner rule, or nothing, which is always a lower bound."""
        return self.inner.workload(task, shard) if self.is_foreseen else Workload(0.0, 0.0)

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        """Sleep, and answer as the inner rule."""
        time.sleep(self.sleep_s)
        return self.inner.answer(task, shard, state, rng)


def main(task_ms: float = 20.0, versions: int = 100) -> None:
    """Print wall seconds for each number of workers, with the work of a task told beforehand and without."""
    rule = Slow(LinearReward(Given(DIM), local_steps=10, init_std=1.0), task_ms / 1e3)
    population = Synthetic(preset="tiny", form="attributes", num_attributes=DIM).population(seed=0)
    strategy = FedBuff(buffer_size=BUFFER, concurrency=BUSY)
    base = Federation(population, rule, strategy, versions, fleet=FLEET, evaluate_every=versions)
    awake = replace(base, rule=replace(rule, sleep_s=0.0)).run().summary
    print(f"{awake['replies_ok']:.0f} arrivals, {BUSY} in flight, {task_ms:g} ms a task")
    print(f"  inline, no task sleeps: {awake['wall_s']:.2f} s")
    digests = {awake["weights_sha256"]}
    for is_foreseen, title in ((True, "work told beforehand"), (False, "work unknown until it is done")):
        print(f"  ray, {title}:")
        one_worker_s = math.nan
        for num_workers in (1, 2, 4):
            slow = replace(rule, is_foreseen=is_foreseen)
            summary = replace(base, rule=slow, executor=RayPool(num_workers=num_workers)).run().summary
            digests.add(summary["weights_sha256"])
            wall_s = summary["wall_s"]  # begins when the workers are there
            one_worker_s = wall_s if num_workers == 1 else one_worker_s
            print(
                f"    {num_workers} workers {wall_s:6.2f} s, {one_worker_s / wall_s:.2f} times as fast as 1"
            )
    print("weights: " + ("all equal" if len(digests) == 1 else f"NOT EQUAL: {sorted(digests)}"))


if __name__ == "__main__":
    main(
        float(sys.argv[1]) if len(sys.argv) > 1 else 20.0,
        int(sys.argv[2]) if len(sys.argv) > 2 else 100,
    )
