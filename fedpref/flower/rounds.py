"""One round, for every algorithm and every grid: plan, wait, fold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedpref.errors import FederationError
from fedpref.flower.exchange import Exchange
from fedpref.flower.timed import Snapshot
from fedpref.seeds import generator
from fedpref.types import Arrival, ClientId, ClientRule, Fold, Fresh, Strategy, Weights

__all__ = ["FailedRoundError", "RoundOutcome", "Rounds", "fresh_from"]

# Backstops against runs that would never end.
_MOST_FAILURES_PER_CLIENT = 1000
_MOST_ROUNDS_PER_UPDATE = 100


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
    """

    step: int
    arrivals: Sequence[Arrival]
    fold: Fold
    clock_s: float


class Rounds:
    """A federation between two rounds; :meth:`advance` does one.

    Attributes:
        strategy: the server algorithm.
        exchange: the way to the clients.
        clients: the population.
        seed: the run's seed.
        max_failed_rounds: rounds in a row without one accepted answer that end the federation.
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
    ) -> None:
        self.strategy = strategy
        self.exchange = exchange
        self.clients = tuple(clients)
        self.seed = seed
        self.max_failed_rounds = max_failed_rounds
        self.state = strategy.init(fresh, self.clients, horizon, generator(seed, "init"))
        self.version = 0
        self.step = 0
        self.next_task = 0
        self._failed_rounds = 0
        self._failures = 0
        self._failed_clients: set[ClientId] = set()
        self._rounds_since_update = 0

    def advance(self) -> RoundOutcome:
        """Plan, wait and fold once.

        Raises:
            FederationError: nothing to do and nothing in flight, no client answers any more, or the
                strategy waits for a moment that is past or never changes its models.
        """
        exchange, step, started_s = self.exchange, self.step, self.exchange.clock_s
        idle = exchange.idle(self.clients)
        rng = generator(self.seed, "plan", step)
        planned, plan = self.strategy.plan(self.state, idle, exchange.clock_s, rng)
        if not plan.tasks and not exchange.num_in_flight:
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
        fold = self.strategy.fold(planned, arrivals, exchange.clock_s, generator(self.seed, "fold", step))
        self._count_still_rounds(arrivals, fold)
        self.state, self.version, self.step = fold.state, self.version + fold.updated, step + 1
        return RoundOutcome(step, arrivals, fold, exchange.clock_s)

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
        if self._failed_rounds >= self.max_failed_rounds:
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
        self.state = state
