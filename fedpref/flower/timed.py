"""A Flower ``Grid`` with a clock: what the exchange needs, and how any stock grid gives it in wall time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from fedpref.errors import CheckpointError, FederationError

__all__ = ["Snapshot", "TimedGrid", "WallGrid", "await_nodes"]

Snapshot = tuple[dict[str, Any], dict[str, np.ndarray]]
"""A tree for JSON, and arrays under names that the tree knows."""

_POLL_S = 0.05


@runtime_checkable
class TimedGrid(Protocol):
    """A Flower grid that has a clock and can wait for the next arrivals."""

    @property
    def clock_s(self) -> float:
        """Now, in seconds since the start: virtual or wall time."""
        ...

    def get_node_ids(self) -> Iterable[int]:
        """Flower's addresses of the nodes that are online now."""
        ...

    def send(self, messages: Sequence[Message]) -> Sequence[str | None]:
        """Send; one id a message, None for a message that could not be sent."""
        ...

    def next_arrivals(self, message_ids: Sequence[str], until_s: float) -> Sequence[Message]:
        """Let time pass until a reply to one of ``message_ids`` arrives, or until ``until_s``.

        Returns:
            All replies of that one instant; none if the time came first. A reply at ``until_s`` counts.
        """
        ...

    def forget(self, message_ids: Iterable[str]) -> None:
        """No longer wait for these replies: they are discarded, not kept unread."""
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

    def get_node_ids(self) -> list[int]:
        """The nodes that Flower has at the moment."""
        return sorted(self.grid.get_node_ids())

    def send(self, messages: Sequence[Message]) -> list[str | None]:
        """Push one by one, since Flower's grids leave out of one answer what they could not send."""
        return [next(iter(self.grid.push_messages([message])), None) for message in messages]

    def next_arrivals(self, message_ids: Sequence[str], until_s: float) -> list[Message]:
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

    def snapshot(self) -> Snapshot:
        """Refused: a live wire cannot be stopped and taken up again."""
        raise CheckpointError("a run over a live Flower grid has no checkpoint: its clients keep running")

    def restore(self, tree: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Refused, as :meth:`snapshot` is."""
        raise CheckpointError("a run over a live Flower grid has no checkpoint: its clients keep running")


def await_nodes(grid: TimedGrid, num_clients: int | None, patience_s: float = math.inf) -> list[int]:
    """Node ids of the population, in ascending order: client i is the i-th of them.

    Args:
        grid: where the nodes register.
        num_clients: how many to wait for; None takes those that are there, at least one.
        patience_s: how long to wait, in seconds of the grid's clock.

    Raises:
        FederationError: too few came in time.
    """
    deadline_s = grid.clock_s + patience_s
    wanted = num_clients or 1
    while len(nodes := sorted(grid.get_node_ids())) < wanted:
        if grid.clock_s >= deadline_s:
            raise FederationError(f"{len(nodes)} of {wanted} clients came online within {patience_s:.0f} s")
        time.sleep(_POLL_S)
    return nodes[:num_clients]
