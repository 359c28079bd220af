"""When devices are online: always, daily, as a two-state Markov chain, or in given windows.

Times are half-open: a device that is online from 10 s to 20 s can be given a task at 10 s, and not at 20 s.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.seeds import generator
from fedpref.simulation.per_client import per_client

__all__ = ["Always", "Availability", "Daily", "Markov", "Timeline", "Windows"]

_SOJOURNS = 16
"""Drawn at a time for one client of a Markov chain."""


class Timeline(Protocol):
    """Who of some clients is online when. Row i stands for the i-th of them.

    Every answer follows from the seed and the clock, which never goes back from question to question.
    """

    def at(self, rows: np.ndarray, clock_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Whether the clients in ``rows`` are online, and when that changes next, later than now.

        Args:
            rows: distinct, shape (num_rows,).
            clock_s: now.

        Returns:
            Booleans and virtual seconds (infinity: never), each of shape (num_rows,).
        """
        ...


@runtime_checkable
class Availability(Protocol):
    """When the devices of a class are online; a frozen dataclass."""

    def check(self, key: str) -> None:
        """Refuse options that make no sense.

        Raises:
            ConfigurationError: naming the option below the configuration key ``key``.
        """
        ...

    def timeline(self, clients: np.ndarray, seed: int) -> Timeline | None:
        """Who of ``clients`` (ascending, at least one) is online when; None if all are for ever."""
        ...


@dataclass(frozen=True)
class Always:
    """Never offline."""

    def check(self, key: str) -> None:
        """Nothing can be wrong."""

    def timeline(self, clients: np.ndarray, seed: int) -> None:
        """All are online for ever."""


@dataclass(frozen=True)
class Daily:
    """Online once in every period, each client at an hour of its own.

    Attributes:
        online_s: how long, in every period; eight hours on the charger.
        period_s: a day.
        spread_s: a client's hour is drawn uniformly from the first ``spread_s`` seconds of the period. A
            whole period leaves the same share online at all times; 0 brings all online together.
    """

    online_s: float = 28800.0
    period_s: float = 86400.0
    spread_s: float = 86400.0

    def check(self, key: str) -> None:
        """Raise ConfigurationError unless 0 < online_s <= period_s < inf and 0 <= spread_s <= period_s."""
        _refuse_unless(0 < self.period_s < math.inf, key, "period_s", self.period_s, "finite and above 0")
        within = f"and at most {key}.period_s={self.period_s!r}"
        _refuse_unless(
            0 < self.online_s <= self.period_s, key, "online_s", self.online_s, f"above 0 {within}"
        )
        _refuse_unless(
            0 <= self.spread_s <= self.period_s, key, "spread_s", self.spread_s, f"0 or more {within}"
        )

    def timeline(self, clients: np.ndarray, seed: int) -> Timeline | None:
        """See ``Availability``; a client's hour is drawn at its address."""
        if self.online_s == self.period_s:
            return None
        hours = per_client(seed, "hour", int(clients[-1]) + 1, lambda rng, size: rng.random(size))
        return _Periodic(self.spread_s * hours[clients], self.online_s, self.period_s)


@dataclass(frozen=True)
class Markov:
    """Online and offline for exponential times by turns: a two-state Markov chain in continuous time.

    At the start a client is online with its stationary probability, mean_online_s / (mean_online_s +
    mean_offline_s).

    Attributes:
        mean_online_s: mean time online.
        mean_offline_s: mean time offline.
    """

    mean_online_s: float = 7200.0
    mean_offline_s: float = 3600.0

    def check(self, key: str) -> None:
        """Raise ConfigurationError unless both means are finite and above 0."""
        for name in ("mean_online_s", "mean_offline_s"):
            mean_s = getattr(self, name)
            _refuse_unless(0 < mean_s < math.inf, key, name, mean_s, "finite and above 0")

    def timeline(self, clients: np.ndarray, seed: int) -> Timeline:
        """See ``Availability``; a client's sojourns are drawn at its address."""
        return _Chain(clients, self.mean_online_s, self.mean_offline_s, seed)


def _refuse_unless(is_right: bool, key: str, name: str, value: float, words: str) -> None:
    if not is_right:
        raise ConfigurationError(f"{key}.{name}={value!r} must be {words}")


class _Periodic:
    """Online from ``starts_s + n * period_s`` on for ``online_s``, for every integer n."""

    def __init__(self, starts_s: np.ndarray, online_s: float, period_s: float) -> None:
        self._starts_s, self._online_s, self._period_s = starts_s, online_s, period_s

    def at(self, rows: np.ndarray, clock_s: float) -> tuple[np.ndarray, np.ndarray]:
        """See ``Timeline``."""
        starts_s = self._starts_s[rows]
        cycle = np.floor((clock_s - starts_s) / self._period_s)
        # The division may round across a border; starts_s + cycle * period_s is what counts.
        cycle -= starts_s + cycle * self._period_s > clock_s
        cycle += starts_s + (cycle + 1) * self._period_s <= clock_s
        ends_s = starts_s + cycle * self._period_s + self._online_s
        is_online = clock_s < ends_s
        return is_online, np.where(is_online, ends_s, starts_s + (cycle + 1) * self._period_s)


class _Chain:
    """Sojourns of a two-state chain, added up from time 0 on."""

    def __init__(self, clients: np.ndarray, mean_online_s: float, mean_offline_s: float, seed: int) -> None:
        self._clients, self._seed = clients, seed
        self._means_s = np.array([mean_offline_s, mean_online_s])
        num_clients = int(clients[-1]) + 1
        chance = per_client(seed, "online at first", num_clients, lambda rng, size: rng.random(size))[clients]
        first = per_client(
            seed, "first sojourn", num_clients, lambda rng, size: rng.standard_exponential(size)
        )
        self._is_online = chance < mean_online_s / (mean_online_s + mean_offline_s)
        # What is left of an exponential sojourn has its distribution.
        self._change_s = first[clients] * self._means_s[self._is_online.astype(int)]
        self._num_drawn = np.zeros(len(clients), dtype=int)
        self._ahead = np.empty((len(clients), _SOJOURNS))

    def at(self, rows: np.ndarray, clock_s: float) -> tuple[np.ndarray, np.ndarray]:
        """See ``Timeline``."""
        passed = rows[self._change_s[rows] <= clock_s]
        while passed.size:
            self._is_online[passed] ^= True
            means_s = self._means_s[self._is_online[passed].astype(int)]
            self._change_s[passed] += means_s * self._sojourns(passed)
            passed = passed[self._change_s[passed] <= clock_s]
        return self._is_online[rows], self._change_s[rows]

    def _sojourns(self, rows: np.ndarray) -> np.ndarray:
        """The next sojourn of each of ``rows`` in units of its mean."""
        chunk, place = np.divmod(self._num_drawn[rows], _SOJOURNS)
        for row, number in zip(rows[place == 0], chunk[place == 0], strict=True):
            rng = generator(self._seed, "availability", int(self._clients[row]), int(number))
            self._ahead[row] = rng.standard_exponential(_SOJOURNS)
        self._num_drawn[rows] += 1
        sojourns: np.ndarray = self._ahead[rows, place]
        return sojourns


class Windows:
    """Online in given windows, which may repeat; a ``Timeline``.

    Args:
        windows: for each client its windows (online_s, offline_s), ascending and disjoint; an offline_s of
            infinity is allowed where nothing repeats.
        period_s: the windows, all within [0, period_s], repeat with that period; None: they do not.
    """

    def __init__(self, windows: Sequence[Sequence[tuple[float, float]]], period_s: float | None) -> None:
        self._windows = [_joined(own, period_s) for own in windows]
        self._period_s = period_s

    def at(self, rows: np.ndarray, clock_s: float) -> tuple[np.ndarray, np.ndarray]:
        """See ``Timeline``."""
        answers = [self._of(self._windows[row], clock_s) for row in rows.tolist()]
        is_online, change_s = zip(*answers, strict=True) if answers else ((), ())
        return np.array(is_online, dtype=bool), np.array(change_s, dtype=float)

    def _of(self, windows: Sequence[tuple[float, float]], clock_s: float) -> tuple[bool, float]:
        if windows == [(0.0, self._period_s)]:
            return True, math.inf
        period_s, cycle = 0.0, 0
        if self._period_s is not None:
            period_s, cycle = self._period_s, math.floor(clock_s / self._period_s)
        for number in (cycle - 1, cycle, cycle + 1) if period_s else (0,):
            shift_s = number * period_s
            # One window more than need be, because the difference may round.
            first = max(bisect_right(windows, clock_s - shift_s, key=lambda window: window[1]) - 1, 0)
            for place in range(first, len(windows)):
                online_s, offline_s = (shift_s + edge_s for edge_s in windows[place])
                if clock_s < online_s:
                    return False, online_s
                if clock_s < offline_s:
                    return True, offline_s
        return False, math.inf


def _joined(windows: Sequence[tuple[float, float]], period_s: float | None) -> list[tuple[float, float]]:
    """``windows`` with those made one that touch, also across the end of the period."""
    joined: list[tuple[float, float]] = []
    for online_s, offline_s in windows:
        if joined and joined[-1][1] == online_s:
            joined[-1] = (joined[-1][0], offline_s)
        else:
            joined.append((online_s, offline_s))
    if period_s is not None and len(joined) > 1 and joined[0][0] == 0 and joined[-1][1] == period_s:
        joined = [*joined[1:-1], (joined[-1][0], period_s + joined[0][1])]
    return joined
