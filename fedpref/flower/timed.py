"""A Flower ``Grid`` with a clock: what the exchange needs, and how any stock grid gives it in wall time."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedpref.errors import CheckpointError, FederationError

__all__ = ["Snapshot", "TimedGrid", "WallGrid", "await_nodes", "below"]

Snapshot = tuple[dict[str, Any], dict[str, np.ndarray]]
"""A tree for JSON, and arrays under names that the tree knows."""

_POLL_S = 0.05


def below(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays whose name begins with ``prefix``, without it: those of one part of a snapshot."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


@runtime_checkable
class TimedGrid(Protocol):
    """A Flower grid that has a clock and can wait for the next arrivals."""

    @property
    def clock_s(self) -> float:
        """Now, in seconds since the start: virtual or wall time."""
        ...

    @property
    def nodes(self) -> Sequence[int]:
        """Flower's address of client i, for all clients that are known."""
        ...

    def get_node_ids(self) -> Iterable[int]:
        """Flower's addresses of the nodes that are online now."""
        ...

    def send(self, messages: Sequence[Message]) -> Sequence[str | None]:
        """Send; one id a message, None for a message that could not be sent."""
        ...

    def online(self, nodes: Sequence[int]) -> range | np.ndarray:
        """Positions of those of ``nodes`` that are online now, ascending; a range where all are.

        Args:
            nodes: the first of the grid's ``nodes``, or all.
        """
        ...

    def await_online(self, until_s: float) -> bool:
        """Let time pass until somebody is online, or until ``until_s``; True if somebody is."""
        ...

    def next_arrivals(self, message_ids: Collection[str], until_s: float) -> Sequence[Message]:
        """Let time pass until a reply to one of ``message_ids`` arrives, or until ``until_s``.

        Returns:
            All replies of that one instant; none if the time came first. A reply at ``until_s`` counts.
        """
        ...

    def forget(self, message_ids: Iterable[str]) -> None:
        """No longer wait for these replies: they are discarded, not kept unread."""
        ...

    def client_records(self, client_id: int) -> RecordDict:
        """What client ``client_id`` keeps in its context.

        Raises:
            FederationError: the clients are elsewhere, and what they keep stays there.
        """
        ...

    def snapshot(self) -> Snapshot:
        """Everything that a resumed run needs, work in flight included."""
        ...

    def restore(self, tree: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Inverse of :meth:`snapshot`."""
        ...


class WallGrid:
    """Any Flower grid in wall time: replies are polled, late ones read and thrown away.

    Attributes:
        grid: Flower's grid.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._started = time.monotonic()
        self._unwanted: set[str] = set()

    @property
    def clock_s(self) -> float:
        """Wall seconds since this object was made."""
        return time.monotonic() - self._started

    @property
    def nodes(self) -> list[int]:
        """The nodes that Flower has at the moment, in ascending order."""
        return sorted(self.grid.get_node_ids())

    def get_node_ids(self) -> list[int]:
        """The nodes that Flower has at the moment."""
        return self.nodes

    def send(self, messages: Sequence[Message]) -> list[str | None]:
        """Push one by one, since Flower's grids leave out of one answer what they could not send."""
        return [next(iter(self.grid.push_messages([message])), None) for message in messages]

    def online(self, nodes: Sequence[int]) -> np.ndarray:
        """Positions of those of ``nodes`` that Flower has at the moment."""
        there = set(self.grid.get_node_ids())
        return np.array([i for i, node in enumerate(nodes) if node in there], dtype=np.int64)

    def await_online(self, until_s: float) -> bool:
        """Poll until a node is there or the clock reaches ``until_s``."""
        while not self.nodes:
            left_s = until_s - self.clock_s
            if left_s <= 0:
                return False
            time.sleep(min(_POLL_S, left_s))
        return True

    def next_arrivals(self, message_ids: Collection[str], until_s: float) -> list[Message]:
        """Poll until something comes or the clock reaches ``until_s``."""
        while True:
            self._drain()
            replies = list(self.grid.pull_messages(message_ids))
            left_s = until_s - self.clock_s
            if replies or left_s <= 0 or not message_ids:
                return replies
            time.sleep(min(_POLL_S, left_s))

    def forget(self, message_ids: Iterable[str]) -> None:
        """Read these replies when they come, to free Flower's memory, and throw them away."""
        self._unwanted.update(message_ids)

    def _drain(self) -> None:
        if self._unwanted:
            late = self.grid.pull_messages(sorted(self._unwanted))
            self._unwanted.difference_update(reply.metadata.reply_to_message_id for reply in late)

    def client_records(self, client_id: int) -> RecordDict:
        """Refused: what clients of a live wire keep stays with them."""
        raise FederationError("what clients of a live Flower grid keep cannot be read from the server")

    def snapshot(self) -> Snapshot:
        """Refused: a live wire cannot be stopped and taken up again."""
        raise CheckpointError("a run over a live Flower grid has no checkpoint: its clients keep running")

    def restore(self, tree: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Refused, as :meth:`snapshot` is."""
        raise CheckpointError("a run over a live Flower grid has no checkpoint: its clients keep running")


def await_nodes(grid: TimedGrid, num_clients: int | None, patience_s: float) -> list[int]:
    """Node ids of the population, client by client.

    Nodes of a live grid register one after the other, so the first round would miss some of them; a
    simulated population is complete from the start, and nothing is gained by waiting for it.

    Args:
        grid: where the nodes are.
        num_clients: how many to wait for; None takes those that are there, at least one.
        patience_s: how long to wait.

    Raises:
        FederationError: too few came in time.
    """
    wanted = num_clients or 1
    deadline_s = grid.clock_s + (patience_s if isinstance(grid, WallGrid) else 0.0)
    while len(nodes := list(grid.nodes)) < wanted:
        if grid.clock_s >= deadline_s:
            raise FederationError(f"{len(nodes)} of {wanted} clients came online within {patience_s:g} s")
        time.sleep(_POLL_S)
    return nodes[:num_clients]
