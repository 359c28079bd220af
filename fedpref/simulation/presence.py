"""Who of all clients is online, kept as arrays: a question costs what has changed since the last one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fedpref.simulation.availability import Timeline
from fedpref.types import ClientId

__all__ = ["Presence"]


class Presence:
    """The time-lines of a population, one for each group of clients that share an availability.

    Args:
        num_clients: of the population.
        timelines: clients (ascending) and their time-line; who is in none is online for ever.
    """

    def __init__(self, num_clients: int, timelines: Sequence[tuple[np.ndarray, Timeline]]) -> None:
        self._everybody = range(num_clients)
        self._online: range | np.ndarray = self._everybody
        self._clock_s = self._next_change_s = math.inf
        self._timelines = [timeline for _, timeline in timelines]
        if not timelines:
            return
        self._group = np.full(num_clients, -1)
        self._row = np.zeros(num_clients, dtype=int)
        self._is_online = np.ones(num_clients, dtype=bool)
        self._change_s = np.full(num_clients, math.inf)
        for group, (clients, _) in enumerate(timelines):
            self._group[clients] = group
            self._row[clients] = np.arange(len(clients))
            self._change_s[clients] = 0.0
        self._clock_s = self._next_change_s = 0.0

    def online(self, clock_s: float) -> range | np.ndarray:
        """Clients that are online, ascending; the very range of all where none is offline."""
        self._go(clock_s)
        return self._online

    def online_until_s(self, client_id: ClientId, clock_s: float) -> float:
        """When a client that is online goes offline; infinity if never; now if it is offline."""
        self._go(clock_s)
        if not self._timelines:
            return math.inf
        return float(self._change_s[client_id]) if self._is_online[client_id] else clock_s

    def next_online_s(self, clock_s: float) -> float:
        """Now if somebody is online, else the moment in which somebody comes; infinity if there is none."""
        self._go(clock_s)
        return clock_s if len(self._online) else self._next_change_s

    def _go(self, clock_s: float) -> None:
        if clock_s < self._next_change_s:
            assert not self._timelines or clock_s >= self._clock_s, "the clock went back"
            self._clock_s = clock_s
            return
        changing = np.flatnonzero(self._change_s <= clock_s)
        for group, timeline in enumerate(self._timelines):
            clients = changing[self._group[changing] == group]
            is_online, change_s = timeline.at(self._row[clients], clock_s)
            self._is_online[clients], self._change_s[clients] = is_online, change_s
        self._clock_s, self._next_change_s = clock_s, float(self._change_s.min())
        online = np.flatnonzero(self._is_online)
        online.flags.writeable = False
        self._online = self._everybody if len(online) == len(self._everybody) else online
