"""One round, for every algorithm and every grid: plan, wait, fold."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedpref.errors import FederationError
from fedpref.flower.exchange import EXPIRED, LATE, LOST, Exchange
from fedpref.flower.timed import Snapshot
from fedpref.seeds import generator
from fedpref.types import Arrival, ClientId, ClientRule, Fold, Fresh, Strategy, Task, Weights

__all__ = ["FailedRoundError", "RoundOutcome", "Rounds", "fresh_from"]

# Backstops against runs that would never end.
_MOST_FAILURES_PER_CLIENT = 1000
_MOST_ROUNDS_PER_UPDATE = 100
# Rounds in a row that devices and links may spoil: clients that fail are a fault, devices that go are not.
_MOST_LOST_ROUNDS = 100
_DEVICE_CODES = frozenset({EXPIRED, LATE, LOST})


def fresh_from(rule: ClientRule, seed: int) -> Fresh:
    """Initial weights by address: ``fresh(*address)`` is ``rule.fresh`` at ``(seed, "fresh", *address)``."""

    def fresh(*address: int | str) -> Weights:
        return rule.fresh(generator(seed, "fresh", *address))

    return fresh


class FailedRoundError(FederationError):
    """A round in which nobody answered; ``arrivals`` says why, client by client."""

    def __init__(self, message: str, arrivals: Sequence[Arrival]) -> None:
        super().__init__(message)
        self.arrivals = tuple(arrivals)


class RoundOutcome(NamedTuple):
    """What one round did.

    Attributes:
        step: index of the round, from 0.
        arrivals: ends of tasks, failures included, in task-number order.
        fold: what the strategy made of them.
        clock_s: time at the end of the round.
        waited_s: time for which nobody was there to work.
        waited_until_s: when that was over.
    """

    step: int
    arrivals: Sequence[Arrival]
    fold: Fold
    clock_s: float
    waited_s: float = 0.0
    waited_until_s: float = 0.0


class Rounds:
    """A federation between two rounds; :meth:`advance` does one.

    Attributes:
        strategy: the server algorithm.
        exchange: the way to the clients.
        clients: the population.
        seed: the run's seed.
        max_failed_rounds: rounds in a row without one accepted answer that end the federation.
        max_wait_s: longest time for which nobody may be there to work.
        state: the strategy's whole memory.
        version: server updates so far.
        step: rounds so far.
        next_task: number of the next task.
    """

    def __init__(
        self,
        strategy: Strategy[Any],
        exchange: Exchange,
        clients: Sequence[ClientId],
        fresh: Fresh,
        seed: int,
        horizon: int,
        max_failed_rounds: int = 1,
        max_wait_s: float = math.inf,
    ) -> None:
        self.strategy = strategy
        self.exchange = exchange
        self.clients = clients
        self.seed = seed
        self.max_failed_rounds = max_failed_rounds
        self.max_wait_s = max_wait_s
        self.state = strategy.init(fresh, self.clients, horizon, generator(seed, "init"))
        self.version = 0
        self.step = 0
        self.next_task = 0
        self._failed_rounds = 0
        self._failures = 0
        self._failed_clients: set[ClientId] = set()
        self._rounds_since_update = 0
        self._nobody_since_s = math.inf  # when the last work ended, while there is none

    def advance(self) -> RoundOutcome:
        """Plan, wait and fold once.

        Raises:
            FederationError: nothing to do and nothing in flight, nobody comes online or answers any more,
                or the strategy waits for a moment that is past or never changes its models.
        """
        exchange, step = self.exchange, self.step
        waited_s = self._await_clients()
        started_s, idle = exchange.clock_s, exchange.idle()
        rng = generator(self.seed, "plan", step)
        planned, plan = self.strategy.plan(self.state, idle, exchange.clock_s, rng)
        is_appointment = started_s < plan.wait.until_s < math.inf
        if not plan.tasks and not exchange.num_in_flight and not is_appointment:
            raise FederationError(
                f"round {step + 1}: nobody works: {len(idle)} of {len(self.clients)} clients are online and "
                f"idle at t={exchange.clock_s:g} s, and the strategy planned no task"
            )
        tasks = [
            dataclasses.replace(task, number=self.next_task + index, version=self.version)
            for index, task in enumerate(plan.tasks)
        ]
        arrivals = exchange.run(tasks, plan.wait, self.version)
        self.next_task += len(tasks)
        if not tasks and not arrivals and exchange.clock_s == started_s:
            raise FederationError(
                f"round {step + 1}: time stands still at t={started_s:g} s: the strategy planned no task and "
                f"its wait (count={plan.wait.count:g}, until_s={plan.wait.until_s:g}) is over before it "
                "begins; until_s is a moment on the clock, not a duration"
            )
        self._count_failures(arrivals)
        stood_still_s = self._count_wait(tasks, arrivals, started_s)
        fold = self.strategy.fold(planned, arrivals, exchange.clock_s, generator(self.seed, "fold", step))
        self._count_still_rounds(arrivals, fold)
        self.state, self.version, self.step = fold.state, self.version + fold.updated, step + 1
        until_s = exchange.clock_s if stood_still_s else started_s
        return RoundOutcome(step, arrivals, fold, exchange.clock_s, waited_s + stood_still_s, until_s)

    def _await_clients(self) -> float:
        """Let time pass until there is somebody who works or can work; the seconds that passed."""
        exchange, started_s = self.exchange, self.exchange.clock_s
        if exchange.num_in_flight or len(exchange.idle()):
            return 0.0
        since_s = min(self._nobody_since_s, started_s)
        if not exchange.grid.await_online(since_s + self.max_wait_s):
            raise self._nobody(since_s)
        return exchange.clock_s - started_s

    def _count_wait(self, tasks: Sequence[Task], arrivals: Sequence[Arrival], started_s: float) -> float:
        """Seconds of a round in which nobody worked: a strategy may wait for better times, not for ever."""
        if tasks or arrivals or self.exchange.num_in_flight:
            self._nobody_since_s = math.inf
            return 0.0
        self._nobody_since_s = min(self._nobody_since_s, started_s)
        if self.exchange.clock_s - self._nobody_since_s > self.max_wait_s:
            raise self._nobody(self._nobody_since_s)
        return self.exchange.clock_s - started_s

    def _nobody(self, since_s: float) -> FederationError:
        return FederationError(
            f"round {self.step + 1}: from t={since_s:g} s on nobody works within max_wait_s="
            f"{self.max_wait_s:g}; raise it, or let the fleet's devices be online more often"
        )

    def _count_failures(self, arrivals: Sequence[Arrival]) -> None:
        """Stop when nobody answers; as long as a client is at work that has not failed, there is hope."""
        failed = [arrival for arrival in arrivals if not arrival.is_ok]
        if len(failed) < len(arrivals):
            self._failed_rounds = self._failures = 0
            self._failed_clients = set()
            return
        self._failures += len(failed)
        self._failed_clients |= {arrival.task.client_id for arrival in failed}
        is_hopeful = self.exchange.working - self._failed_clients
        if not failed or (is_hopeful and self._failures < _MOST_FAILURES_PER_CLIENT * len(self.clients)):
            return
        self._failed_rounds, self._failures, self._failed_clients = self._failed_rounds + 1, 0, set()
        is_device = all(arrival.code in _DEVICE_CODES for arrival in failed)
        if self._failed_rounds >= (_MOST_LOST_ROUNDS if is_device else self.max_failed_rounds):
            first = failed[0]
            reason = first.detail.strip().splitlines()[-1:]  # of a traceback, the exception itself
            raise FailedRoundError(
                f"round {self.step + 1}: no client answered; the first of {len(failed)} failures was "
                f"client {first.task.client_id}: {first.code}: {''.join(reason)}",
                arrivals,
            )

    def _count_still_rounds(self, arrivals: Sequence[Arrival], fold: Fold) -> None:
        """Stop when answers come round after round and no fold changes the models."""
        if fold.updated:
            self._rounds_since_update = 0
            return
        self._rounds_since_update += any(arrival.is_ok for arrival in arrivals)
        if self._rounds_since_update > _MOST_ROUNDS_PER_UPDATE + 2 * len(self.clients):
            raise FederationError(
                f"round {self.step + 1}: {self._rounds_since_update} rounds with accepted answers have not "
                f"changed the models of {type(self.strategy).__name__}: its fold never says updated=True"
            )

    def snapshot(self) -> Snapshot:
        """Counters and exchange; the strategy's ``state`` is plain data and the caller's to store."""
        tree, arrays = self.exchange.snapshot()
        counters = {
            "version": self.version,
            "step": self.step,
            "next_task": self.next_task,
            "failed_rounds": self._failed_rounds,
            "failures": self._failures,
            "failed_clients": sorted(self._failed_clients),
            "rounds_since_update": self._rounds_since_update,
            "nobody_since_s": self._nobody_since_s if math.isfinite(self._nobody_since_s) else None,
        }
        return {"rounds": counters, "exchange": tree}, arrays

    def restore(self, state: Any, tree: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Take up where :meth:`snapshot` was made, with the strategy's ``state`` of that moment."""
        self.exchange.restore(tree["exchange"], arrays)
        counters = tree["rounds"]
        self.version, self.step = counters["version"], counters["step"]
        self.next_task = counters["next_task"]
        self._failed_rounds, self._failures = counters["failed_rounds"], counters["failures"]
        self._failed_clients = set(counters["failed_clients"])
        self._rounds_since_update = counters["rounds_since_update"]
        since_s = counters["nobody_since_s"]
        self._nobody_since_s = math.inf if since_s is None else since_s
        self.state = state
