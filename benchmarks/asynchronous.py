"""Virtual time to 95 % of FedAvg's gain on devices of which the fastest is ten times as fast as the slowest.

Every method keeps the same number of clients busy at all times, 12 and 100 of 120, has the same client
rule, initial weights and devices, and stops when the mean accuracy over people (expected under the known
truth) has risen by 95 % of what FedAvg gains in 200 rounds; the local step is so small that FedAvg needs
at least 50 rounds. Ratios to FedAvg are paired by population; intervals are 95 %, of Student's t.

A server step is the mean of one batch of answers in every method but FedAsync, FedASMU and AFA-CS, which
step at every answer. "as many as busy" gives a method as many answers a step as FedAvg has, so that only
throughput and staleness differ; without it a method has its own default.

    python -m fedpref.benchmarks.asynchronous [number of populations] [jobs]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from fedpref.clients.linear_reward import LinearReward
from fedpref.data.synthetic import Synthetic
from fedpref.federation.federation import Federation
from fedpref.maths.expected_weights import ExpectedWeights
from fedpref.maths.fedau import FedAU
from fedpref.maths.staleness import Constant
from fedpref.models.given import Given
from fedpref.simulation.device_classes import DeviceClass, Mix
from fedpref.strategies.afa_cd import AfaCd
from fedpref.strategies.afa_cs import AfaCs
from fedpref.strategies.fedasmu import FedASMU
from fedpref.strategies.fedasync import FedAsync
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.fedbuff import FedBuff
from fedpref.strategies.fedcompass import FedCompass
from fedpref.strategies.fedfix import FedFix
from fedpref.strategies.fedprox import FedProx
from fedpref.types import Strategy

DIM, STEPS, BATCH, ROUNDS, GAIN = 12, 10, 20, 200, 0.95
# Speeds from one to ten, evenly on a logarithmic scale; links take no time, so that speed is all.
SPEEDS = np.geomspace(1.0, 10.0, 11)
FLEET = Mix(
    {
        f"x{speed:.2f}": DeviceClass(
            share=1 / len(SPEEDS),
            flops_per_s=1e3 * speed,
            down_bytes_per_s=1e12,
            up_bytes_per_s=1e12,
            latency_s=0.0,
        )
        for speed in SPEEDS
    }
)
RULE = LinearReward(Given(DIM), local_steps=STEPS, batch_pairs=BATCH, lr=0.012, init_std=1.0)
# The slowest device's time for a task of the mean shard: the steps, and two losses over 60 pairs.
SLOWEST_S = 4 * DIM * (STEPS * BATCH + 60) / 1e3


def methods(busy: int) -> Mapping[str, Strategy[Any]]:
    """What is compared, FedAvg first."""
    buffered = FedBuff(concurrency=busy)
    return {
        "fedavg": FedAvg(cohort_size=busy, share="clients"),
        "fedavg, 1.2 times as many asked": FedAvg(
            cohort_size=round(busy / 1.2), over_selection=0.2, share="clients"
        ),
        "fedprox, deadline half the slowest": FedProx(
            mu=0.0, cohort_size=busy, share="clients", deadline_s=SLOWEST_S / 2
        ),
        "fedbuff": buffered,
        "fedbuff, as many as busy": replace(buffered, buffer_size=busy),
        "fedbuff, as many as busy, no discount": replace(buffered, buffer_size=busy, staleness=Constant()),
        "fedbuff, expected weights": replace(buffered, combine=ExpectedWeights()),
        "fedbuff, fedau": replace(buffered, combine=FedAU()),
        "fedasync": FedAsync(concurrency=busy),
        "fedfix, half the slowest": FedFix(window_s=SLOWEST_S / 2, concurrency=busy, share="clients"),
        "fedcompass": FedCompass(min_steps=STEPS // 5, max_steps=STEPS, concurrency=busy),
        "fedasmu": FedASMU(local_steps=STEPS, concurrency=busy),
        "afa_cd": AfaCd(concurrency=busy),
        "afa_cd, as many as busy": AfaCd(concurrency=busy, buffer_size=busy),
        "afa_cs": AfaCs(concurrency=busy, buffer_size=busy),
    }


class _Reached(Exception):
    """Stops a run; carries the moment, or None for one that is too late."""


def curve(federation: Federation, until: Any) -> list[tuple[float, float]]:
    """Moments in virtual seconds and mean accuracy over people, until ``until(moment, accuracy)``."""
    seen: list[tuple[float, float]] = []

    def watch(record: Mapping[str, Any]) -> None:
        if "evaluation" in record:
            seen.append((record["clock_s"], record["evaluation"]["user_accuracy"]))
            if until(*seen[-1]):
                raise _Reached

    try:
        federation.run(on_round=watch)
    except _Reached:
        pass
    return seen


def reached_s(seen: list[tuple[float, float]], target: float) -> float:
    """The first moment with the target's accuracy; infinity if there was none."""
    return next((clock_s for clock_s, accuracy in seen if accuracy >= target), np.inf)


def times(job: tuple[int, int]) -> tuple[int, int, dict[str, float]]:
    """Seconds to the target of every method on one population, and FedAvg's rounds."""
    seed, busy = job
    population = Synthetic(preset="clusters", form="attributes").population(seed)
    names = methods(busy)
    first, *others = names
    base = Federation(population, RULE, names[first], ROUNDS, seed, fleet=FLEET)
    seen = curve(base, lambda clock_s, accuracy: False)
    start, end = seen[0][1], float(np.mean([accuracy for _, accuracy in seen[-10:]]))
    target, end_s = start + GAIN * (end - start), seen[-1][0]
    found = {first: reached_s(seen, target)}
    found["rounds"] = float(next(i for i, (_, accuracy) in enumerate(seen) if accuracy >= target))
    for name in others:
        federation = replace(base, strategy=names[name], rounds=10**9, evaluate_every_s=end_s / 400)
        curve_ = curve(federation, lambda clock_s, accuracy: accuracy >= target or clock_s > 1.5 * end_s)
        found[name] = reached_s(curve_, target)
    return seed, busy, found


def main(num_populations: int = 10, jobs: int = 2) -> None:
    """Print the table of both concurrencies."""
    from scipy.stats import t

    work = [(seed, busy) for busy in (12, 100) for seed in range(num_populations)]
    with ProcessPoolExecutor(jobs) as pool:
        results = list(pool.map(times, work))
    for busy in (12, 100):
        found = [times_ for _, one, times_ in results if one == busy]
        rounds = [times_["rounds"] for times_ in found]
        print(f"\n{busy} of 120 clients busy; FedAvg needs {min(rounds):.0f} to {max(rounds):.0f} rounds")
        for name in methods(busy):
            ratios = np.array([times_[name] / times_["fedavg"] for times_ in found])
            missed = int(np.sum(~np.isfinite(ratios)))
            if missed:
                print(
                    f"  {name:42} missed in {missed} of {len(ratios)} (within 1.5 times FedAvg's 200 rounds)"
                )
                continue
            half = t.ppf(0.975, len(ratios) - 1) * ratios.std(ddof=1) / np.sqrt(len(ratios))
            print(f"  {name:42} {ratios.mean():.3f} [{ratios.mean() - half:.3f}, {ratios.mean() + half:.3f}]")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:3]))
