"""A Flower ``Grid`` in virtual time: the clock jumps from arrival to arrival, and nobody sleeps.

Every Flower strategy runs on it unmodified; time-outs are deadlines in virtual seconds.

The clock is serial, the work is not. A client's answer depends only on what it was sent, so it may be
computed at any wall time before its arrival. When it arrives is known exactly once it is computed, and
bounded from below when it is sent; the grid waits for an answer only when no other can come before it.
Source of this rule: conservative simulation, Chandy and Misra 1979.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import TracebackType
from typing import Any, Self

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedpref.flower import _shim
from fedpref.flower.records import read
from fedpref.flower.timed import Snapshot
from fedpref.simulation.client_store import ClientStore
from fedpref.simulation.executor import Executor, Job
from fedpref.simulation.fleet import Device, Fleet, lost_at, node_config, timing
from fedpref.simulation.flight import Flight, number_of, unavailable, work_of
from fedpref.types import ClientId, Workload

__all__ = ["Foresight", "VirtualGrid"]

_RUN_ID = 1

Foresight = Callable[[Message, Context], Workload]
"""What the answer to a message will take at least."""


def _no_foresight(message: Message, context: Context) -> Workload:
    return Workload(0.0, 0.0)


class VirtualGrid(Grid):  # type: ignore[misc]  # Flower is untyped here
    """Runs a ``ClientApp`` for a population of simulated clients; a context manager.

    Attributes:
        nodes: Flower's address of client i; equal in every run.
        devices: of the clients.
    """

    def __init__(
        self,
        client_app: ClientApp,
        num_clients: int,
        executor: Executor,
        fleet: Fleet,
        seed: int = 0,
        foresight: Foresight = _no_foresight,
        store: ClientStore | None = None,
    ) -> None:
        _shim.adopt_process()
        self.nodes = range(1, num_clients + 1)
        self.devices = fleet.deploy(num_clients, seed)
        self._run = _shim.empty_run()
        self._foresight = foresight
        self._clock_s = 0.0
        self._num_sent = 0
        self._flights: dict[str, Flight] = {}
        self._heap: list[tuple[float, ClientId, int, str]] = []
        self._queues: dict[ClientId, list[Flight]] = {}  # of those with flights, in order of sending
        self._store = store or ClientStore()
        self._workers = executor.start(client_app)

    @property
    def retries(self) -> int:
        """Tasks that were begun again because a worker died."""
        return self._workers.retries

    @property
    def store(self) -> ClientStore:
        """What the clients keep, those not yet accepted included."""
        return self._store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the executor's workers, and make durable what clients keep."""
        self._workers.close()
        self._store.close()

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

    def get_node_ids(self) -> Sequence[int]:
        """Addresses of the clients that are online now, in client order; ``nodes`` itself if all are."""
        online = self.devices.online(self._clock_s)
        if isinstance(online, range) and len(online) == len(self.nodes):
            return self.nodes
        return [self.nodes[client] for client in online]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send; a client that is still at work starts when it is free."""
        first = self._num_sent
        stamped = [_shim.stamp(message, f"m{order}") for order, message in enumerate(messages, first)]
        self._num_sent += len(stamped)
        for batch in _one_a_node(stamped, first):
            self._dispatch(batch)
        return [f"m{order}" for order in range(first, self._num_sent)]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Replies that have arrived; if there are none, the clock jumps to the next one."""
        return self.next_arrivals(set(message_ids), math.inf)

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

    def online(self, nodes: Sequence[int]) -> range | np.ndarray:
        """Clients that are online now, ascending, as far as ``nodes`` reaches."""
        online = self.devices.online(self._clock_s)
        if isinstance(online, range):
            return range(len(nodes))
        return online[: int(np.searchsorted(online, len(nodes)))]

    def send(self, messages: Sequence[Message]) -> list[str | None]:
        """As :meth:`push_messages`; everything can be sent."""
        return list(self.push_messages(messages))

    def next_arrivals(self, message_ids: Collection[str], until_s: float) -> list[Message]:
        """Jump to the next arrival, or to ``until_s`` if that comes first.

        Returns:
            All replies of that instant, by client; none if the time came first or, with an infinite
            ``until_s``, if nothing will ever arrive.
        """
        wanted = message_ids if isinstance(message_ids, (AbstractSet, Mapping)) else set(message_ids)
        others, arrived, limit_s = [], list[Message](), until_s
        while self._heap and self._heap[0][0] <= limit_s and self._heap[0][0] < math.inf:
            entry = heapq.heappop(self._heap)
            flight = self._flights.get(entry[-1])
            if flight is None:  # forgotten
                continue
            if flight.message_id not in wanted:
                others.append(entry)
            elif flight.reply is None or entry[0] < flight.arrival_s:
                self._collect(flight)
                heapq.heappush(self._heap, flight.entry)
            else:
                self._clock_s = limit_s = max(self._clock_s, flight.arrival_s)
                arrived.append(flight.reply)
                self._keep_state(flight)
                self._remove(flight)
        for entry in others:
            heapq.heappush(self._heap, entry)
        if not arrived and until_s < math.inf:
            self._clock_s = max(self._clock_s, until_s)
        return arrived

    def forget(self, message_ids: Iterable[str]) -> None:
        """Discard these answers; their clients stop working, are free, and keep the state from before."""
        for message_id in message_ids:
            flight = self._flights.get(message_id)
            if flight is not None:
                self._remove(flight)
                if flight.ticket is not None:
                    self._workers.discard(flight.ticket)

    def await_online(self, until_s: float) -> bool:
        """Jump to the moment in which somebody is online, or to ``until_s``; True if somebody is.

        With an infinite ``until_s`` the clock stays where it is if nobody will ever be online.
        """
        online_s = self.devices.next_online_s(self._clock_s)
        then_s = min(online_s, until_s)
        if then_s == math.inf:
            return False
        self._clock_s = max(self._clock_s, then_s)
        return online_s <= until_s

    # -------------------------------------------------------------------------- one flight

    def _dispatch(self, messages: Sequence[tuple[int, Message]]) -> None:
        """Send to distinct nodes; the order of sending numbers messages that bring no task number."""
        jobs, flights = [], []
        online = self.devices.online(self._clock_s)
        for order, message in messages:
            metadata = _shim.fields_of(message.metadata)
            client_id = metadata["_dst_node_id"] - 1
            reason = None
            if not 0 <= client_id < len(self.nodes):
                client_id, reason = -1, "there is no such node"
            elif not _contains(online, client_id):
                reason = "its device is offline"
            flight = Flight(metadata["_message_id"], order, client_id, self._clock_s)
            if reason is None:
                state = self.client_records(client_id)
                for earlier in self._queues.get(client_id, ()):  # its state passes from task to task
                    self._collect(earlier)
                    flight.start_s = max(flight.start_s, earlier.arrival_s)
                    state = state if earlier.state is None else earlier.state
                device = self.devices.device(client_id)
                context = self._context(client_id, device, state)
                self._foresee(flight, device, message, context)
                jobs.append(Job(message, context, device.name))
                flights.append(flight)
            else:
                flight.arrival_s, flight.reply = self._clock_s, unavailable(message, reason)
            self._add(flight)
            heapq.heappush(self._heap, flight.entry)
        for flight, ticket in zip(flights, self._workers.submit(jobs), strict=True):
            flight.ticket = ticket

    def _foresee(self, flight: Flight, device: Device, message: Message, context: Context) -> None:
        """When the answer is there at the earliest."""
        contents = read(message.content)
        flight.number, flight.bytes_down = number_of(contents, flight.order), contents.array_bytes
        flops = self._foresight(message, context).flops
        least = timing(device, self.devices.seed, flight.number, flops, flight.bytes_down, 0)
        flight.message = message
        flight.offline_s = self.devices.online_until_s(flight.client_id, self._clock_s)
        flight.part = lost_at(device, self.devices.seed, flight.number)
        flight.arrival_s = flight.end_s(least.total_s)

    def _collect(self, flight: Flight) -> None:
        """Fetch the answer, and with it the moment of its arrival."""
        if flight.ticket is None or flight.message is None:
            return
        message, done = flight.message, self._workers.collect(flight.ticket)
        flight.message = flight.ticket = None
        flops, bytes_up = work_of(done.reply)
        device = self.devices.device(flight.client_id)
        spent = timing(device, self.devices.seed, flight.number, flops, flight.bytes_down, bytes_up)
        # No client is faster than its known work, not even one that fails or answers less.
        flight.arrival_s = max(flight.arrival_s, flight.end_s(spent.total_s))
        if flight.arrival_s >= flight.offline_s:
            flight.reply = unavailable(message, "its device went offline")
        elif flight.part is not None:
            flight.reply = unavailable(message, "its device dropped out")
        else:
            flight.reply, flight.state = done.reply, done.context.state

    def _keep_state(self, flight: Flight) -> None:
        """The client's state is that after this task; those of earlier ones, unread as yet, are past."""
        if flight.state is None:
            return
        self._put(flight.client_id, flight.state)
        for earlier in itertools.takewhile(lambda other: other is not flight, self._queues[flight.client_id]):
            earlier.state = None

    def client_records(self, client_id: ClientId) -> RecordDict:
        """What a client keeps in its context; a copy."""
        kept = self._store.get(client_id)
        return RecordDict() if kept is None else _shim.records_from_bytes(kept)

    def _put(self, client_id: ClientId, records: RecordDict) -> None:
        if records or self._store.get(client_id) is not None:
            self._store.put(client_id, _shim.records_to_bytes(records))

    def _add(self, flight: Flight) -> None:
        self._flights[flight.message_id] = flight
        self._queues.setdefault(flight.client_id, []).append(flight)

    def _remove(self, flight: Flight) -> None:
        del self._flights[flight.message_id]
        queue = self._queues[flight.client_id]
        queue.remove(flight)
        if not queue:
            del self._queues[flight.client_id]

    def _context(self, client_id: ClientId, device: Device, state: RecordDict) -> Context:
        config = {"partition-id": client_id, "num-partitions": len(self.nodes), **node_config(device)}
        return Context(_RUN_ID, self.nodes[client_id], config, state, {})

    # -------------------------------------------------------------------------- checkpoint

    def snapshot(self) -> Snapshot:
        """Clock, answers in flight and the clients' states; messages and states as serialised bytes.

        Answers that are still being computed are waited for.
        """
        arrays: dict[str, np.ndarray] = {}
        flights = []
        for flight in self._flights.values():
            self._collect(flight)
            assert flight.reply is not None, "a flight is at work or has its reply"
            arrays[f"reply/{flight.message_id}"] = _as_array(_shim.message_to_bytes(flight.reply))
            if flight.state is not None:
                arrays[f"after/{flight.message_id}"] = _as_array(_shim.records_to_bytes(flight.state))
            flights.append([flight.message_id, flight.order, flight.client_id, _or_none(flight.arrival_s)])
        if self._store.path is None:
            arrays |= {f"state/{client}": _as_array(state) for client, state in self._store.clients()}
        self._heap = sorted(flight.entry for flight in self._flights.values())
        tree = {"clock_s": self._clock_s, "num_sent": self._num_sent, "flights": flights}
        return tree | {"kept": self._store.mark()}, arrays

    def restore(self, tree: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Inverse of :meth:`snapshot`."""
        self._clock_s, self._num_sent = tree["clock_s"], tree["num_sent"]
        self._flights, self._queues = {}, {}
        for message_id, order, client_id, arrival_s in tree["flights"]:
            reply = _shim.message_from_bytes(arrays[f"reply/{message_id}"].tobytes())
            flight = Flight(message_id, order, client_id, 0.0, arrival_s=_or_infinity(arrival_s), reply=reply)
            if (after := arrays.get(f"after/{message_id}")) is not None:
                flight.state = _shim.records_from_bytes(after.tobytes())
            self._add(flight)
        self._heap = sorted(flight.entry for flight in self._flights.values())
        # A store of its own file has what the snapshot counts on; a temporary one starts afresh.
        self._store.rewind(0 if self._store.path is None else tree["kept"])
        for key, array in arrays.items():
            if key.startswith("state/"):
                self._store.put(int(key.removeprefix("state/")), array.tobytes())

    def forget_states_before(self, tree: Mapping[str, Any]) -> None:
        """Drop what clients kept before a snapshot that is the oldest which will be restored."""
        self._store.forget_before(tree["kept"])


def _one_a_node(messages: Sequence[Message], first: int) -> list[list[tuple[int, Message]]]:
    """Batches in which no node occurs twice, so that a client's state passes from task to task.

    Every message comes with its number in the order of sending, which begins with ``first``.
    """
    batches: list[list[tuple[int, Message]]] = []
    seen: dict[int, int] = {}
    for order, message in enumerate(messages, first):
        node_id = message.metadata.dst_node_id
        nth = seen.get(node_id, 0)
        seen[node_id] = nth + 1
        if nth == len(batches):
            batches.append([])
        batches[nth].append((order, message))
    return batches


def _as_array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype=np.uint8)


def _contains(online: range | np.ndarray, client_id: ClientId) -> bool:
    if isinstance(online, range):
        return client_id in online
    index = int(np.searchsorted(online, client_id))
    return index < len(online) and int(online[index]) == client_id


def _or_none(arrival_s: float) -> float | None:
    """For JSON, which knows no infinity: that of a custom fleet from which no answer comes."""
    return arrival_s if math.isfinite(arrival_s) else None


def _or_infinity(arrival_s: float | None) -> float:
    return math.inf if arrival_s is None else arrival_s
