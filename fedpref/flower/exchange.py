"""The exchange: tasks go out as messages, answers come back validated, failures come back with a code.

It keeps what lies between two rounds: the tasks in flight (at most one a client), the number of each
client's last accepted task, and the byte counts. Time passes in :meth:`Exchange.run` and nowhere else.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from flwr.app import Message

from fedpref.errors import ConfigurationError
from fedpref.flower import _shim, wire
from fedpref.flower.client_state import settle
from fedpref.flower.disclosure import Disclosure
from fedpref.flower.framing import framed_bytes
from fedpref.flower.idle import idle_of
from fedpref.flower.passed_on import PassedOn
from fedpref.flower.records import NOTHING, Contents, read
from fedpref.flower.timed import Snapshot, TimedGrid, below
from fedpref.flower.validation import Rejection, ReplyLimits, validate_reply
from fedpref.types import OK, Arrival, ClientId, ClientState, Task, Update, Wait

__all__ = ["EXPIRED", "FAILED", "LATE", "LOST", "Exchange", "Traffic", "acknowledged_in"]

EXPIRED = "expired"
FAILED = "client_failed"
LATE = "late"
LOST = "lost"

_REJECTIONS_BEFORE_RESET = 2
_MOST_CLOSED_REMEMBERED = 10_000

# Flower's error codes for a message or reply that went astray; all others are failures of the client.
_LOST_CODES = frozenset({3, 4, 5})


@dataclass
class Traffic:
    """Bytes so far: ``raw`` is tensor data, ``framed`` the serialised messages that carry it."""

    raw_down_bytes: int = 0
    raw_up_bytes: int = 0
    framed_down_bytes: int = 0
    framed_up_bytes: int = 0


class _Open(NamedTuple):
    """A task in flight."""

    task: Task
    sent_s: float
    bytes_down: int


@dataclass
class _Books:
    """What the exchange remembers, all of it plain data."""

    open: dict[str, _Open] = field(default_factory=dict)
    working: set[ClientId] = field(default_factory=set)
    expiries: list[tuple[float, str]] = field(default_factory=list)  # a heap of those that are finite
    closed: OrderedDict[str, str] = field(default_factory=OrderedDict)  # the oldest first
    acknowledged: dict[ClientId, int] = field(default_factory=dict)
    rejections: Counter[ClientId] = field(default_factory=Counter)  # in a row
    traffic: Traffic = field(default_factory=Traffic)
    refused: Counter[str] = field(default_factory=Counter)
    disclosed: Disclosure = field(default_factory=Disclosure)
    passed_on: PassedOn = field(default_factory=PassedOn)


class Exchange:
    """Runs tasks over a grid.

    Attributes:
        grid: where the messages go.
        nodes: Flower's address of client i.
        seed: the run's seed, sent with every task.
        limits: what no honest reply exceeds.
        shard_pairs: the server's own knowledge of each client's shard size; None where it has none.
        patience_s: the longest that any task may take, on the grid's clock.
    """

    def __init__(
        self,
        grid: TimedGrid,
        nodes: Sequence[int],
        seed: int,
        limits: ReplyLimits | None = None,
        shard_pairs: Sequence[int] | None = None,
        patience_s: float = math.inf,
    ) -> None:
        if not isinstance(nodes, range) and len(set(nodes)) != len(nodes):
            raise ConfigurationError("two clients share one node id")
        self.grid = grid
        self.nodes = nodes
        self.seed = seed
        self.limits = limits or ReplyLimits()
        self.shard_pairs = shard_pairs
        self.patience_s = patience_s
        self._books = _Books()
        _shim.adopt_process()

    # ------------------------------------------------------------------------------ what is

    @property
    def clock_s(self) -> float:
        """Now, on the grid's clock."""
        return self.grid.clock_s

    @property
    def working(self) -> AbstractSet[ClientId]:
        """Clients with a task in flight."""
        return self._books.working

    @property
    def num_in_flight(self) -> int:
        """Tasks without an end yet."""
        return len(self._books.open)

    @property
    def traffic(self) -> Traffic:
        """Bytes sent and received so far."""
        return dataclasses.replace(self._books.traffic)

    @property
    def refused(self) -> Mapping[str, int]:
        """Replies that belonged to no open task, counted by code, such as duplicate or unknown_message."""
        return dict(self._books.refused)

    @property
    def disclosed(self) -> Mapping[str, Any]:
        """Every tensor and number that has left a client so far, counted; plain data."""
        return self._books.disclosed.card()

    @property
    def passed_on(self) -> Sequence[Mapping[str, Any]]:
        """Tensors of one client that were sent to others as they came, by name; plain data."""
        return self._books.passed_on.card()

    def idle(self) -> Sequence[ClientId]:
        """Clients that are online and without a task, in ascending order."""
        return idle_of(self.grid.online(self.nodes), self.working)

    def kept(self, client_id: ClientId) -> ClientState:
        """What a client keeps, as its next task will find it."""
        records = _shim.copied(self.grid.client_records(client_id))
        return settle(records, self._books.acknowledged.get(client_id, wire.NOT_ACKNOWLEDGED))

    # ------------------------------------------------------------------------------ a round

    def run(self, tasks: Sequence[Task], wait: Wait, version: int) -> list[Arrival]:
        """Send tasks, let time pass as ``wait`` says, and return the arrivals in task-number order.

        Args:
            tasks: numbered tasks, for idle clients only.
            wait: when to stop; expired tasks do not count towards ``wait.count``.
            version: server updates so far, from which staleness is counted.

        Raises:
            ConfigurationError: a task for a client that is unknown or still at work, or weights that
                cannot travel.
        """
        arrivals: list[Arrival] = []
        num_counted = 0

        def take(ended: Sequence[Arrival]) -> None:
            nonlocal num_counted
            arrivals.extend(ended)
            num_counted += sum(a.is_ok if wait.drop_late else a.code != EXPIRED for a in ended)

        take(self._send(tasks, version))
        while self._books.open and num_counted < wait.count:
            until_s = min(wait.until_s, self._next_expiry_s())
            replies = self.grid.next_arrivals(self._books.open.keys(), until_s)
            take([arrival for reply in replies for arrival in self._receive(reply, version)])
            take(self._expire(version))
            if not replies and self.clock_s < until_s:  # time stands still: nothing will ever come
                take(self._give_up(self._books.open, LOST, "no answer will come", version))
            if self.clock_s >= wait.until_s:
                break
        if wait.drop_late:
            take(self._give_up(self._books.open, LATE, "others came first", version))
        if wait.count == math.inf and self.clock_s < wait.until_s < math.inf:  # an appointment
            self.grid.next_arrivals((), wait.until_s)
        return sorted(arrivals, key=lambda arrival: arrival.task.number)

    def _send(self, tasks: Sequence[Task], version: int) -> list[Arrival]:
        books, now_s = self._books, self.clock_s
        busy = books.working
        planned: set[ClientId] = set()
        packed: dict[int, wire.Packed] = {}
        messages, entries = [], []
        for task in tasks:
            if not 0 <= task.client_id < len(self.nodes):
                raise ConfigurationError(
                    f"a task is planned for client {task.client_id} of {len(self.nodes)} clients"
                )
            if task.client_id in busy or task.client_id in planned:
                raise ConfigurationError(
                    f"two tasks are planned for client {task.client_id}: choose from `idle`"
                )
            planned.add(task.client_id)
            key = id(task.weights)
            packed[key] = packed[key] if key in packed else wire.pack(task.weights)
            message = wire.send(
                task,
                packed[key],
                self.nodes[task.client_id],
                self.seed,
                books.acknowledged.get(task.client_id, wire.NOT_ACKNOWLEDGED),
            )
            expires_s = min(task.expires_s, now_s + self.patience_s)
            contents = read(message.content)
            raw = contents.array_bytes
            books.traffic.raw_down_bytes += raw
            books.traffic.framed_down_bytes += framed_bytes(message, contents)
            messages.append(message)
            entries.append(_Open(_expiring(task, expires_s), now_s, raw))
        books.passed_on.sent(tasks)
        unsent = []
        for entry, message_id in zip(entries, self.grid.send(messages), strict=True):
            if message_id is None:
                unsent.append(self._arrival(entry, Rejection(LOST, "the message could not be sent"), version))
            else:
                self._open(message_id, entry)
        return unsent

    def _open(self, message_id: str, entry: _Open) -> None:
        books = self._books
        books.open[message_id] = entry
        books.working.add(entry.task.client_id)
        if entry.task.expires_s < math.inf:
            heapq.heappush(books.expiries, (entry.task.expires_s, message_id))

    def _next_expiry_s(self) -> float:
        """When the next open task expires; ended ones are dropped from the heap on the way."""
        books = self._books
        while books.expiries and books.expiries[0][1] not in books.open:
            heapq.heappop(books.expiries)
        return books.expiries[0][0] if books.expiries else math.inf

    def _receive(self, reply: Message, version: int) -> list[Arrival]:
        """The arrival of a reply; none for a reply that belongs to no open task."""
        books = self._books
        contents = read(reply.content) if reply.has_content() else NOTHING
        if not (reply.has_error() and reply.error.code in _LOST_CODES):  # those are the network's words
            books.disclosed.see(reply, contents)
        message_id = reply.metadata.reply_to_message_id
        entry = books.open.get(message_id)
        if entry is None:
            books.refused[books.closed.get(message_id, "unknown_message")] += 1
            return []
        if reply.metadata.src_node_id != self.nodes[entry.task.client_id]:
            books.refused["wrong_sender"] += 1
            return []
        self._close(message_id, "duplicate")
        bytes_up = contents.array_bytes
        books.traffic.raw_up_bytes += bytes_up
        books.traffic.framed_up_bytes += framed_bytes(reply, contents)
        outcome = self._judge(reply, contents, entry.task)
        if isinstance(outcome, Update):
            self._acknowledge(entry.task)
            books.passed_on.answered(entry.task, outcome)
        elif not reply.has_error():
            self._count_rejection(entry.task.client_id)
        return [self._arrival(entry, outcome, version, bytes_up)]

    def _acknowledge(self, task: Task) -> None:
        self._books.acknowledged[task.client_id] = task.number
        del self._books.rejections[task.client_id]

    def _count_rejection(self, client_id: ClientId) -> None:
        """Answers rejected one after the other may come from a spoilt state: let the client begin anew."""
        self._books.rejections[client_id] += 1
        if self._books.rejections[client_id] >= _REJECTIONS_BEFORE_RESET:
            self._books.acknowledged.pop(client_id, None)

    def _judge(self, reply: Message, contents: Contents, task: Task) -> Update | Rejection:
        if reply.has_error():
            code = LOST if reply.error.code in _LOST_CODES else FAILED
            return Rejection(code, reply.error.reason or f"Flower error {reply.error.code}")
        known = self.shard_pairs[task.client_id] if self.shard_pairs is not None else None
        return validate_reply(contents, task, self.limits, known)

    def _expire(self, version: int) -> list[Arrival]:
        """Give up the tasks whose time is over."""
        over = {}
        while self._next_expiry_s() <= self.clock_s:
            _, message_id = heapq.heappop(self._books.expiries)
            over[message_id] = self._books.open[message_id]
        return self._give_up(over, EXPIRED, "no answer before the task expired", version)

    def _give_up(self, entries: Mapping[str, _Open], code: str, reason: str, version: int) -> list[Arrival]:
        entries = dict(entries)
        self.grid.forget(entries)
        for message_id in entries:
            self._close(message_id, code)
        return [self._arrival(entry, Rejection(code, reason), version) for entry in entries.values()]

    def _close(self, message_id: str, code_of_another: str) -> None:
        """End a task; remember for a while what another reply to it would be."""
        self._books.working.discard(self._books.open.pop(message_id).task.client_id)
        self._books.closed[message_id] = code_of_another
        while len(self._books.closed) > min(4 * len(self.nodes), _MOST_CLOSED_REMEMBERED):
            self._books.closed.popitem(last=False)

    def _arrival(self, entry: _Open, outcome: Update | Rejection, version: int, bytes_up: int = 0) -> Arrival:
        update, code, detail = (
            (None, outcome.code, outcome.detail) if isinstance(outcome, Rejection) else (outcome, OK, "")
        )
        return Arrival(
            task=entry.task,
            update=update,
            code=code,
            staleness=version - entry.task.version,
            sent_s=entry.sent_s,
            arrived_s=self.clock_s,
            detail=detail,
            bytes_down=entry.bytes_down,
            bytes_up=bytes_up,
        )

    # --------------------------------------------------------------------------- checkpoint

    def snapshot(self) -> Snapshot:
        """Books and grid, work in flight included."""
        books = self._books
        grid_tree, grid_arrays = self.grid.snapshot()
        disclosed_tree, disclosed_arrays = books.disclosed.snapshot()
        passed_tree, passed_arrays = books.passed_on.snapshot()
        arrays = {f"grid/{name}": array for name, array in grid_arrays.items()}
        arrays |= {f"disclosed/{name}": array for name, array in disclosed_arrays.items()}
        arrays |= {f"passed_on/{name}": array for name, array in passed_arrays.items()}
        # No JSON for what grows with the number of clients: of 100,000 it takes a good part of a round.
        arrays |= {"acknowledged/clients": _column(books.acknowledged.keys())}
        arrays |= {"acknowledged/numbers": _column(books.acknowledged.values())}
        sent: dict[int, int] = {}
        entries = []
        for message_id, entry in books.open.items():
            task = entry.task
            index = sent.setdefault(id(task.weights), len(sent))
            arrays.update({f"sent/{index}/{key}": array for key, array in task.weights.items()})
            entries.append(
                {
                    "message": message_id,
                    "client": task.client_id,
                    "weights": {key: f"sent/{index}/{key}" for key in task.weights},
                    "kind": task.kind,
                    "settings": {name: wire.python_scalar(value) for name, value in task.settings.items()},
                    "reply": None if task.reply is None else wire.manifest_of(task.reply),
                    "expires_s": _finite_or_none(task.expires_s),
                    "number": task.number,
                    "version": task.version,
                    "sent_s": entry.sent_s,
                    "bytes_down": entry.bytes_down,
                }
            )
        tree = {
            "grid": grid_tree,
            "open": entries,
            "closed": list(books.closed.items()),  # in order: the oldest is forgotten first
            "rejections": {str(client): count for client, count in books.rejections.items()},
            "traffic": {name: getattr(books.traffic, name) for name in Traffic.__dataclass_fields__},
            "refused": dict(books.refused),
            "disclosed": disclosed_tree,
            "passed_on": passed_tree,
        }
        return tree, arrays

    def restore(self, tree: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Inverse of :meth:`snapshot`."""
        self.grid.restore(tree["grid"], below("grid/", arrays))
        shared: dict[str, dict[str, np.ndarray]] = {}
        open_tasks: dict[str, _Open] = {}
        for entry in tree["open"]:
            names = entry["weights"]
            weights = shared.setdefault(repr(names), {key: arrays[name] for key, name in names.items()})
            task = Task(
                client_id=entry["client"],
                weights=weights,
                kind=entry["kind"],
                settings=entry["settings"],
                reply=None if entry["reply"] is None else wire.schema_from(entry["reply"]),
                expires_s=math.inf if entry["expires_s"] is None else entry["expires_s"],
                number=entry["number"],
                version=entry["version"],
            )
            open_tasks[entry["message"]] = _Open(task, entry["sent_s"], entry["bytes_down"])
        self._books = _Books(
            closed=OrderedDict(tree["closed"]),
            acknowledged=acknowledged_in(arrays),
            rejections=Counter({int(client): count for client, count in tree["rejections"].items()}),
            traffic=Traffic(**tree["traffic"]),
            refused=Counter(tree["refused"]),
            disclosed=Disclosure.restored(tree["disclosed"], below("disclosed/", arrays)),
            passed_on=PassedOn.restored(tree["passed_on"], below("passed_on/", arrays)),
        )
        for message_id, opened in open_tasks.items():
            self._open(message_id, opened)


def acknowledged_in(arrays: Mapping[str, np.ndarray]) -> dict[ClientId, int]:
    """Number of the last accepted task of each client that has one, in the arrays of a snapshot."""
    clients, numbers = (arrays[f"acknowledged/{column}"].tolist() for column in ("clients", "numbers"))
    return dict(zip(clients, numbers, strict=True))


def _column(values: Collection[int]) -> np.ndarray:
    return np.fromiter(values, dtype=np.int64, count=len(values))


def _expiring(task: Task, expires_s: float) -> Task:
    return task if expires_s == task.expires_s else dataclasses.replace(task, expires_s=expires_s)


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
