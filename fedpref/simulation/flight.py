"""One task on its way: when it began, what will happen to it, when it is over."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flwr.app import Error, Message, RecordDict

from fedpref.flower.records import Contents, read
from fedpref.types import ClientId

__all__ = ["Flight", "number_of", "unavailable", "work_of"]

_NODE_UNAVAILABLE = 5  # Flower's error code


@dataclass(eq=False)
class Flight:
    """A task on its way; ``arrival_s`` is a lower bound as long as there is no ``reply``.

    Attributes:
        message_id: of the task.
        order: of sending.
        client_id: who works; -1 for a node that is not there.
        start_s: when it began.
        number: address of what happens to it.
        bytes_down: tensor data of the task.
        offline_s: when its device goes offline.
        part: after which part of its time the task is lost; None if it is not.
        arrival_s: when the answer is there.
        message: the task, while there is no reply.
        ticket: of the executor, while there is no reply.
        reply: the answer.
        state: of the client after it; None if the task was lost.
    """

    message_id: str
    order: int
    client_id: ClientId
    start_s: float
    number: int = -1
    bytes_down: int = 0
    offline_s: float = math.inf
    part: float | None = None
    arrival_s: float = 0.0
    message: Message | None = None
    ticket: int | None = None
    reply: Message | None = None
    state: RecordDict | None = None

    @property
    def entry(self) -> tuple[float, ClientId, int, str]:
        """Its place in the heap: by time, then by client."""
        return self.arrival_s, self.client_id, self.order, self.message_id

    def end_s(self, total_s: float) -> float:
        """When a task that takes ``total_s`` is over, one way or another."""
        part = 1.0 if self.part is None else self.part
        return min(self.start_s + part * total_s, self.offline_s)


def unavailable(message: Message, reason: str) -> Message:
    """The error reply of a node that is not there, or no longer."""
    return Message(Error(_NODE_UNAVAILABLE, reason), reply_to=message)


def number_of(contents: Contents, order: int) -> int:
    """The task's number, the address of what happens to it; the order of sending where it has none."""
    for record in contents.config.values():
        if "task" in record:
            return int(record["task"])
    return order


def work_of(reply: Message) -> tuple[float, int]:
    """What a client says that it computed, in FLOPs, and the tensor data that it sends.

    What is no count takes no time, and validation names it.
    """
    if not reply.has_content():
        return 0.0, 0
    contents = read(reply.content)
    counts = [record["flops"] for record in contents.metrics.values() if "flops" in record]
    flops = sum(float(n) for n in counts if isinstance(n, (int, float)) and 0 <= n < math.inf)
    return flops, contents.array_bytes
