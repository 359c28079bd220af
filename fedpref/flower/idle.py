"""Who is idle, without a list of everybody: a million clients of whom a hundred work cost a hundred."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np

from fedpref.types import ClientId

__all__ = ["AllBut", "Listed", "idle_of"]


def idle_of(online: range | np.ndarray, busy: Iterable[ClientId]) -> Sequence[ClientId]:
    """Those of ``online`` that are not ``busy``, ascending.

    Args:
        online: ascending; a range from 0 where everybody is.
        busy: in any order.
    """
    if isinstance(online, range):
        return AllBut(len(online), busy)
    working = np.fromiter(busy, dtype=np.int64)
    return Listed(np.setdiff1d(online, working, assume_unique=True))


class AllBut(Sequence[ClientId]):
    """0 … num_clients - 1 without a few: constant time to make, logarithmic to ask."""

    def __init__(self, num_clients: int, without: Iterable[ClientId]) -> None:
        self._num_clients = num_clients
        self._without = sorted(without)
        # How many are left below each one that is missing.
        self._below = [client - index for index, client in enumerate(self._without)]

    def __len__(self) -> int:
        return self._num_clients - len(self._without)

    @overload
    def __getitem__(self, index: int) -> ClientId: ...
    @overload
    def __getitem__(self, index: slice) -> list[ClientId]: ...
    def __getitem__(self, index: int | slice) -> ClientId | list[ClientId]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = int(index) + len(self) if index < 0 else int(index)
        if not 0 <= position < len(self):
            raise IndexError(index)
        return position + bisect_right(self._below, position)

    def __contains__(self, client: object) -> bool:
        if not isinstance(client, (int, np.integer)) or not 0 <= client < self._num_clients:
            return False
        index = bisect_left(self._without, int(client))
        return index == len(self._without) or self._without[index] != client

    def __iter__(self) -> Iterator[ClientId]:
        start = 0
        for client in (*self._without, self._num_clients):
            yield from range(start, client)
            start = client + 1


class Listed(Sequence[ClientId]):
    """An ascending array of clients, read as Python's integers."""

    def __init__(self, clients: np.ndarray) -> None:
        self._clients = clients

    def __len__(self) -> int:
        return len(self._clients)

    @overload
    def __getitem__(self, index: int) -> ClientId: ...
    @overload
    def __getitem__(self, index: slice) -> list[ClientId]: ...
    def __getitem__(self, index: int | slice) -> ClientId | list[ClientId]:
        if isinstance(index, slice):
            return [int(client) for client in self._clients[index]]
        return int(self._clients[index])

    def __contains__(self, client: object) -> bool:
        if not isinstance(client, (int, np.integer)):
            return False
        index = int(np.searchsorted(self._clients, client))
        return index < len(self._clients) and bool(self._clients[index] == client)

    def __iter__(self) -> Iterator[ClientId]:
        return iter(self._clients.tolist())
