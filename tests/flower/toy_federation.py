"""A toy federation in NumPy: client i pulls the weights towards its own minimum c_i = i."""

from __future__ import annotations

import importlib
import math
import os
import random
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

importlib.import_module("fedpref.flower")  # first: it imports Flower without its warnings

from flwr.app import Message  # noqa: E402

from fedpref.flower.app import client_app  # noqa: E402
from fedpref.flower.exchange import Exchange  # noqa: E402
from fedpref.flower.rounds import Rounds, fresh_from  # noqa: E402
from fedpref.flower.validation import ReplyLimits  # noqa: E402
from fedpref.maths.weights import add_delta, weighted_sum  # noqa: E402
from fedpref.simulation.device_classes import Mix  # noqa: E402
from fedpref.simulation.grid import VirtualGrid  # noqa: E402
from fedpref.simulation.inline import Inline  # noqa: E402
from fedpref.types import ClientState, Fold, Pairs, Plan, Reply, Shard, Task, Wait  # noqa: E402

DIM = 3


def make_shard(client_id, num_pairs=None):
    """Client i holds i + 1 pairs (or ``num_pairs``) whose chosen features are all c_i."""
    n = client_id + 1 if num_pairs is None else num_pairs
    text = tuple(f"{client_id}/{i}" for i in range(n))
    chosen = np.full((n, DIM), float(client_id), np.float32)
    return Shard(
        client_id, f"client-{client_id}", Pairs(text, chosen, np.zeros((n, DIM), np.float32), text, text)
    )


@dataclass(frozen=True)
class PullRule:
    """``w <- w - lr (w - c_i)``, ``steps`` times, plus noise from every stream that a rule may draw from."""

    lr: float = 0.25
    steps: int = 2
    noise: float = 0.0
    flops: Mapping[int, float] = field(default_factory=dict)
    faults: Mapping[int, str] = field(default_factory=dict)
    marker: str = ""

    def fresh(self, rng):
        return {
            "head.bias": rng.normal(size=1).astype(np.float32),
            "head.weight": rng.normal(size=(DIM,)).astype(np.float32),
        }

    def answer(self, task, shard, state, rng):
        minimum = np.float32(shard.pairs.chosen[0, 0])
        weights = {}
        for key in sorted(task.weights):
            w = task.weights[key].copy()
            for _ in range(int(task.settings.get("local_steps", self.steps))):
                w = w - np.float32(self.lr) * (w - minimum)
            noise = rng.normal(size=w.shape) + np.random.normal(size=w.shape) + random.random()
            weights[key] = (w + self.noise * noise).astype(np.float32)
        seen = int(state.numbers.get("seen", 0)) + 1
        self._fail(shard.client_id, weights)
        reply = Reply(
            weights, len(shard.pairs), {"flops": self.flops.get(shard.client_id, 1e9), "seen": seen}
        )
        return reply, ClientState({"last": weights["head.bias"].astype(np.float64)}, {"seen": seen})

    def _fail(self, client_id, weights):
        fault = self.faults.get(client_id)
        if fault == "raise":
            raise RuntimeError("the dog ate it")
        if fault == "nan":
            weights["head.bias"][:] = np.nan
        if fault == "shape":
            weights["head.bias"] = np.zeros(2, np.float32)
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "kill once" and not Path(self.marker).exists():
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def margins(self, weights, pairs):
        return (np.asarray(pairs.chosen) - np.asarray(pairs.rejected)).astype(np.float64) @ weights[
            "head.weight"
        ]


@dataclass(frozen=True)
class ToyAvg:
    """The weighted mean of a cohort; ``count`` and ``expires_s`` make it wait for less than all."""

    cohort_size: int | None = None
    count: float = math.inf
    expires_s: float = math.inf
    tick_s: float = math.inf
    kind: str = "train"

    def init(self, fresh, clients, horizon, rng):
        return fresh("global")

    def plan(self, state, idle, clock_s, rng):
        chosen = sorted(rng.permutation(list(idle))[: self.cohort_size].tolist())
        expires_s = clock_s + self.expires_s
        tasks = [Task(client, state, kind=self.kind, expires_s=expires_s) for client in chosen]
        return state, Plan(tasks, Wait(self.count, clock_s + self.tick_s))

    def fold(self, state, arrivals, clock_s, rng):
        updates = [arrival.update for arrival in arrivals if arrival.update is not None]
        if not updates:
            return Fold(state, False)
        total = sum(update.num_pairs for update in updates)
        mean = weighted_sum([u.delta for u in updates], [u.num_pairs / total for u in updates])
        return Fold(add_delta(state, mean), True, metrics={"answers": float(len(updates))})

    def models(self, state):
        return {"global": state}

    def serve(self, state, client_id):
        return [state]


class Toy:
    """Builds toy federations; all of them have ``num_clients`` clients."""

    DIM = DIM
    PullRule = PullRule
    ToyAvg = ToyAvg
    make_shard = staticmethod(make_shard)

    def __init__(self):
        self.grids = []

    def shards(self, num_clients):
        return [make_shard(i) for i in range(num_clients)]

    def app(self, num_clients=4, rule=None, seed=7):
        return client_app(rule or PullRule(), self.shards(num_clients), seed)

    def grid(self, num_clients=4, rule=None, executor=None, fleet=None):
        grid = VirtualGrid(self.app(num_clients, rule), num_clients, executor or Inline(), fleet or Mix())
        self.grids.append(grid)
        return grid

    def exchange(self, num_clients=4, rule=None, executor=None, fleet=None, grid=None, **options):
        grid = grid or self.grid(num_clients, rule, executor, fleet)
        return Exchange(grid, grid.nodes, options.pop("seed", 7), **options)

    def rounds(
        self, num_clients=4, rule=None, strategy=None, seed=7, executor=None, fleet=None, grid=None, **options
    ):
        rule = rule or PullRule()
        failed = options.pop("max_failed_rounds", 1)
        exchange = self.exchange(num_clients, rule, executor, fleet, grid, seed=seed, **options)
        return Rounds(
            strategy or ToyAvg(),
            exchange,
            range(num_clients),
            fresh_from(rule, seed),
            seed,
            10,
            max_failed_rounds=failed,
        )

    def close(self):
        for grid in self.grids:
            grid.close()


def same(first, second):
    """True if two sets of weights are equal to the bit."""
    return first.keys() == second.keys() and all(first[k].tobytes() == second[k].tobytes() for k in first)


Toy.same = staticmethod(same)
Toy.ReplyLimits = ReplyLimits
Toy.Message = Message
