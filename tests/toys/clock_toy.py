"""A federation of scalars in virtual time: strategies alone, without wire, grid and learning rule.

Client i holds the minimum c_i of ``(w - c_i)^2 / 2`` and takes ``seconds[i]`` for each local gradient step.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedpref.seeds import generator
from fedpref.types import Arrival, Strategy, Task, Update

__all__ = ["Clock"]


@dataclass
class Clock:
    """Plan, wait and fold by the rules of the engine.

    Attributes:
        strategy: under test.
        minima: of each client.
        seconds: of one local step of each client.
        steps: local steps where the task's settings name none.
        lr: of a local step.
        initial: the model's first value.
        lost: numbers of tasks that end without an answer.
        num_pairs: of each client; all 1 if empty.
    """

    strategy: Strategy[Any]
    minima: Sequence[float]
    seconds: Sequence[float]
    steps: int = 3
    lr: float = 0.1
    initial: float = 0.25
    horizon: int = 1000
    lost: frozenset[int] = frozenset()
    num_pairs: Sequence[int] = ()
    clock_s: float = 0.0
    version: int = 0
    round: int = 0
    num_tasks: int = 0
    tasks: list[Task] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    state: Any = None
    _flights: list[tuple[float, int, Task, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        clients = range(len(self.minima))

        def fresh(*address: int | str) -> dict[str, np.ndarray]:
            return {"w": np.full(1, self.initial, np.float32)}

        self.state = self.strategy.init(fresh, clients, self.horizon, generator(0, "init"))

    @property
    def value(self) -> float:
        """The global model."""
        return float(self.strategy.models(self.state)["global"]["w"][0])

    @property
    def busy(self) -> set[int]:
        """Clients with a task in flight."""
        return {task.client_id for _, _, task, _ in self._flights}

    def run(self, versions: int) -> Clock:
        """Advance until the model has changed ``versions`` times in all."""
        while self.version < versions:
            self.advance()
        return self

    def advance(self) -> list[Arrival]:
        """One plan, wait and fold; the arrivals that were folded."""
        idle = [client for client in range(len(self.minima)) if client not in self.busy]
        rng = generator(0, "plan", self.round)
        planned, plan = self.strategy.plan(self.state, idle, self.clock_s, rng)
        assert plan.tasks or self._flights or plan.wait.until_s < math.inf, "nobody works"
        for task in plan.tasks:
            task = dataclasses.replace(task, number=self.num_tasks, version=self.version)
            assert task.client_id not in self.busy
            self.num_tasks += 1
            self.tasks.append(task)
            duration_s = self._steps(task) * self.seconds[task.client_id]
            entry = (self.clock_s + duration_s, task.number, task, self.clock_s)
            heapq.heappush(self._flights, entry)
        arrivals = self._wait(plan.wait.count, plan.wait.until_s)
        fold = self.strategy.fold(planned, arrivals, self.clock_s, generator(0, "fold", self.round))
        self.state, self.version, self.round = fold.state, self.version + fold.updated, self.round + 1
        self.arrivals += arrivals
        if fold.updated:
            self.values.append(self.value)
        return arrivals

    def _wait(self, count: float, until_s: float) -> list[Arrival]:
        arrivals: list[Arrival] = []
        while self._flights and len(arrivals) < count and self._flights[0][0] <= until_s:
            self.clock_s = instant_s = self._flights[0][0]
            while self._flights and self._flights[0][0] == instant_s:
                _, _, task, sent_s = heapq.heappop(self._flights)
                arrivals.append(self._arrival(task, sent_s))
        is_met = len(arrivals) >= count
        if until_s < math.inf and not is_met and (self._flights or count == math.inf):
            self.clock_s = until_s
        return sorted(arrivals, key=lambda arrival: arrival.task.number)

    def _steps(self, task: Task) -> int:
        return int(task.settings.get("local_steps", self.steps))

    def _arrival(self, task: Task, sent_s: float) -> Arrival:
        staleness = self.version - task.version
        if task.number in self.lost:
            return Arrival(task, None, "lost", staleness, sent_s, self.clock_s)
        client = task.client_id
        local = task.weights["w"].astype(np.float64)
        for _ in range(self._steps(task)):
            local = local - self.lr * (local - self.minima[client])
        weights = {"w": local.astype(np.float32)}
        num_pairs = self.num_pairs[client] if self.num_pairs else 1
        metrics = {"steps_done": float(self._steps(task))}
        update = Update(weights, task.weights, num_pairs, metrics, client)
        return Arrival(task, update, "ok", staleness, sent_s, self.clock_s)
