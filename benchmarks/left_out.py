"""Slow devices hold the minority's taste: whom does an asynchronous federation leave out?

Two groups of about 60 people want opposite things on part of the attributes (preset ``conflict``, shares
0.5/0.5). One group's devices are ten times as slow. 100 of 120 clients are busy at all times; FedBuff
steps at every tenth answer, with its published discount of stale answers, for 600 versions of which the
last quarter is averaged. Worst group: the lower of the two groups' accuracies, expected under the known
truth. Pooled: the maximum-likelihood head on all pairs together, which gives every pair the same weight.

    python -m fedpref.benchmarks.left_out [number of populations] [jobs]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedpref.benchmarks.synthetic_reference import pooled
from fedpref.clients.linear_reward import LinearReward
from fedpref.data.synthetic import Synthetic
from fedpref.federation.federation import Federation
from fedpref.maths.expected_weights import ExpectedWeights
from fedpref.maths.fedau import FedAU
from fedpref.maths.staleness import Constant
from fedpref.models.given import Given
from fedpref.simulation.deployed import Deployed
from fedpref.simulation.device_classes import DeviceClass
from fedpref.simulation.presence import Presence
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.fedbuff import FedBuff
from fedpref.strategies.tail_average import TailAverage
from fedpref.types import Strategy

DIM, BUSY, VERSIONS = 12, 100, 600
RULE = LinearReward(Given(DIM), local_steps=10, batch_pairs=None, lr=0.03)


@dataclass(frozen=True)
class SlowGroup:
    """Everybody in group 1 has a device of a tenth of the speed; links take no time."""

    groups: tuple[int, ...]

    def deploy(self, num_clients: int, seed: int) -> Deployed:
        """Devices by group."""
        fast = DeviceClass(
            flops_per_s=1e4, down_bytes_per_s=1e12, up_bytes_per_s=1e12, latency_s=0.0, jitter=0.1
        )
        devices = fast.device("fast", 0.0), replace(fast, flops_per_s=1e3).device("slow", 0.0)
        presence = Presence(num_clients, [])
        return Deployed(seed, ("fast", "slow"), lambda client: devices[self.groups[client] == 1], presence)


def methods() -> Mapping[str, Strategy[Any]]:
    """What is compared."""
    buffered = FedBuff(concurrency=BUSY)
    return {
        "fedavg, 100 a round": FedAvg(cohort_size=BUSY, share="clients"),
        "fedbuff": buffered,
        "fedbuff, expected weights": replace(buffered, combine=ExpectedWeights()),
        "fedbuff, fedau": replace(buffered, combine=FedAU()),
        "fedbuff, no discount": replace(buffered, staleness=Constant()),
        "fedbuff, no discount, expected weights": replace(
            buffered, staleness=Constant(), combine=ExpectedWeights()
        ),
    }


def figures(seed: int) -> dict[str, tuple[float, float]]:
    """Worst group and mean over people, by method."""
    population = Synthetic(preset="conflict", shares=(0.5, 0.5), form="attributes").population(seed)
    assert population.truth is not None
    fleet = SlowGroup(tuple(population.truth.groups[: len(population)]))
    found = {}
    for name, strategy in methods().items():
        versions = 100 if isinstance(strategy, FedAvg) else VERSIONS
        tail = TailAverage(strategy, fraction=0.25)
        run = Federation(population, RULE, tail, versions, seed, fleet=fleet, evaluate_every=versions).run()
        found[name] = run.summary["worst_group"], run.summary["user_accuracy"]
    central = pooled(population, seed)
    return found | {"pooled": (central["worst_group"], central["user_accuracy"])}


def main(num_populations: int = 10, jobs: int = 2) -> None:
    """Print means over populations and the share of FedBuff's gap to pooled that each method closes."""
    with ProcessPoolExecutor(jobs) as pool:
        results = list(pool.map(figures, range(num_populations)))
    worst = {name: np.array([result[name][0] for result in results]) for name in results[0]}
    mean = {name: np.array([result[name][1] for result in results]) for name in results[0]}
    gap = worst["pooled"] - worst["fedbuff"]
    for name in worst:
        difference = worst[name] - worst["fedbuff"]
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        print(
            f"{name:40} worst group {worst[name].mean():.4f}, minus fedbuff {difference.mean():+.4f} "
            f"± {error:.4f}  mean {mean[name].mean():.4f}  gap closed {difference.mean() / gap.mean():.2f}"
        )


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:3]))
