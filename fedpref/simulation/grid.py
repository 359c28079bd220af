"""A Flower ``Grid`` in virtual time: the clock jumps from arrival to arrival, and nobody sleeps.

An answer is computed when its task is sent and becomes visible when the clock reaches its arrival. Every
Flower strategy runs on it unmodified; time-outs are deadlines in virtual seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedpref.flower import _shim
from fedpref.flower.timed import Snapshot
from fedpref.flower.wire import raw_bytes
from fedpref.simulation.executor import Executor
from fedpref.simulation.fleet import Fleet
from fedpref.types import ClientId

__all__ = ["VirtualGrid"]

_RUN_ID = 1
_NODE_UNAVAILABLE = 5  # Flower's error code


@dataclass(frozen=True, eq=False)
class _Flight:
    """An answer on its way."""

    arrival_s: float
    client_id: ClientId
    reply: Message


class VirtualGrid(Grid):  # type: ignore[misc]  # Flower is untyped here
    """Runs a ``ClientApp`` for a population of simulated clients; a context manager.

    Attributes:
        nodes: Flower's address of client i; equal in every run.
    """

    def __init__(self, client_app: ClientApp, num_clients: int, executor: Executor, fleet: Fleet) -> None:
        _shim.adopt_process()
        self.nodes = tuple(range(1, num_clients + 1))
        self._run = _shim.empty_run()
        self._fleet = fleet
        self._clock_s = 0.0
        self._num_sent = 0
        self._flights: dict[str, _Flight] = {}
        self._busy_until_s: dict[ClientId, float] = {}
        self._states: dict[ClientId, RecordDict] = {}
        self._workers = executor.start(client_app)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the executor's workers."""
        self._workers.close()

    # ---------------------------------------------------------------- the grid of Flower

    def set_run(self, run: _shim.Run) -> None:
        """Set the run record, which nothing here reads."""
        self._run = run

    @property
    def run(self) -> _shim.Run:
        """The run record."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message; Flower's older way to build one."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Addresses of the clients that are online now, in client order."""
        return [node for i, node in enumerate(self.nodes) if self._fleet.is_online(i, self._clock_s)]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send; answers are computed at once and arrive later.

        A client that is still at work starts when it is free.
        """
        stamped = []
        for message in messages:
            stamped.append(_shim.stamp(message, f"m{self._num_sent}"))
            self._num_sent += 1
        for batch in _one_a_node(stamped):
            self._answer(batch)
        return [message.metadata.message_id for message in stamped]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Replies that have arrived; if there are none, the clock jumps to the next one."""
        return self.next_arrivals(list(message_ids), math.inf)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send, and let up to ``timeout`` virtual seconds pass; later answers are discarded.

        Returns:
            Replies in order of arrival, ties by client.
        """
        missing = self.push_messages(messages)
        deadline_s = math.inf if timeout is None else self._clock_s + timeout
        replies: list[Message] = []
        while missing and (arrived := self.next_arrivals(missing, deadline_s)):
            replies += arrived
            missing = [message_id for message_id in missing if message_id in self._flights]
        self.forget(missing)
        return replies

    # ------------------------------------------------------------------ the grid with a clock

    @property
    def clock_s(self) -> float:
        """Virtual seconds since the start."""
        return self._clock_s

    def send(self, messages: Sequence[Message]) -> list[str | None]:
        """As :meth:`push_messages`; everything can be sent."""
        return list(self.push_messages(messages))

    def next_arrivals(self, message_ids: Sequence[str], until_s: float) -> list[Message]:
        """Jump to the next arrival, or to ``until_s`` if that comes first.

        Returns:
            All replies of that instant, by client; none if the time came first or, with an infinite
            ``until_s``, if nothing will ever arrive.
        """
        flights = {key: self._flights[key] for key in message_ids if key in self._flights}
        next_s = min((flight.arrival_s for flight in flights.values()), default=math.inf)
        if next_s > until_s or next_s == math.inf:
            if until_s < math.inf:
                self._clock_s = max(self._clock_s, until_s)
            return []
        self._clock_s = max(self._clock_s, next_s)
        arrived = [key for key, flight in flights.items() if flight.arrival_s <= self._clock_s]
        arrived.sort(key=lambda key: (flights[key].arrival_s, flights[key].client_id))
        return [self._flights.pop(key).reply for key in arrived]

    def forget(self, message_ids: Iterable[str]) -> None:
        """Discard these answers; their clients stop working and are free."""
        for message_id in message_ids:
            flight = self._flights.pop(message_id, None)
            if flight is not None:
                self._busy_until_s[flight.client_id] = self._clock_s

    def _answer(self, messages: Sequence[Message]) -> None:
        known: list[Message] = []
        unknown: list[Message] = []
        for message in messages:
            exists = 1 <= message.metadata.dst_node_id <= len(self.nodes)
            (known if exists else unknown).append(message)
        results = self._workers.run([(m, self._context(m.metadata.dst_node_id - 1)) for m in known])
        for message, (reply, context) in zip(known, results, strict=True):
            client_id = message.metadata.dst_node_id - 1
            self._states[client_id] = context.state
            start_s = max(self._clock_s, self._busy_until_s.get(client_id, 0.0))
            arrival_s = start_s + self._duration_s(client_id, message, reply)
            self._busy_until_s[client_id] = arrival_s
            self._flights[message.metadata.message_id] = _Flight(arrival_s, client_id, reply)
        for message in unknown:
            error = Message(Error(_NODE_UNAVAILABLE, "there is no such node"), reply_to=message)
            self._flights[message.metadata.message_id] = _Flight(self._clock_s, -1, error)

    def _duration_s(self, client_id: ClientId, message: Message, reply: Message) -> float:
        number = next(
            (int(r["task"]) for r in message.content.config_records.values() if "task" in r), self._num_sent
        )
        flops, bytes_up = 0.0, 0
        if reply.has_content():
            bytes_up = raw_bytes(reply.content)
            flops = sum(_work(r.get("flops")) for r in reply.content.metric_records.values())
        return self._fleet.duration_s(client_id, number, flops, raw_bytes(message.content), bytes_up)

    def _context(self, client_id: ClientId) -> Context:
        config = {"partition-id": client_id, "num-partitions": len(self.nodes)}
        state = self._states.get(client_id, RecordDict())
        return Context(_RUN_ID, self.nodes[client_id], config, state, {})

    # -------------------------------------------------------------------------- checkpoint

    def snapshot(self) -> Snapshot:
        """Clock, answers in flight and the clients' states; messages and states as serialised bytes."""
        arrays: dict[str, np.ndarray] = {}
        for client_id, state in self._states.items():
            if state:
                arrays[f"state/{client_id}"] = _as_array(_shim.records_to_bytes(state))
        flights = []
        for message_id, flight in self._flights.items():
            arrays[f"reply/{message_id}"] = _as_array(_shim.message_to_bytes(flight.reply))
            flights.append([message_id, flight.client_id, _finite_or_none(flight.arrival_s)])
        tree = {
            "clock_s": self._clock_s,
            "num_sent": self._num_sent,
            "flights": flights,
            "busy_until_s": {str(c): _finite_or_none(until) for c, until in self._busy_until_s.items()},
        }
        return tree, arrays

    def restore(self, tree: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Inverse of :meth:`snapshot`."""
        self._clock_s, self._num_sent = tree["clock_s"], tree["num_sent"]
        self._busy_until_s = {int(c): _or_infinity(until) for c, until in tree["busy_until_s"].items()}
        self._flights = {
            message_id: _Flight(
                _or_infinity(arrival_s),
                client_id,
                _shim.message_from_bytes(arrays[f"reply/{message_id}"].tobytes()),
            )
            for message_id, client_id, arrival_s in tree["flights"]
        }
        self._states = {
            int(key.removeprefix("state/")): _shim.records_from_bytes(array.tobytes())
            for key, array in arrays.items()
            if key.startswith("state/")
        }


def _one_a_node(messages: Sequence[Message]) -> list[list[Message]]:
    """Batches in which no node occurs twice, so that a client's state passes from task to task."""
    batches: list[list[Message]] = []
    seen: dict[int, int] = {}
    for message in messages:
        nth = seen.get(message.metadata.dst_node_id, 0)
        seen[message.metadata.dst_node_id] = nth + 1
        if nth == len(batches):
            batches.append([])
        batches[nth].append(message)
    return batches


def _work(flops: object) -> float:
    """A client's own count of its work; what is no count takes no time, and validation names it."""
    is_count = isinstance(flops, (int, float)) and 0 <= flops < math.inf
    return float(flops) if is_count else 0.0  # type: ignore[arg-type]


def _as_array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype=np.uint8)


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _or_infinity(value: float | None) -> float:
    return math.inf if value is None else value
