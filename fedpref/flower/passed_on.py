"""Answers that the server passes on as they came: one client's tensors, sent to others without an average.

A strategy that starts a model from one answer, or averages over a single one, shows it to everybody who gets
the model next. That is found by comparing bits: the tensors of answers with those of later tasks.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedpref.flower.timed import Snapshot
from fedpref.types import ClientId, Task, Update

__all__ = ["PassedOn"]

_MOST_REMEMBERED = 2**16
_SEVERAL = -1
"""In place of a client: several have sent the very same bits, which tell them apart no more."""


@dataclass
class _Count:
    """How often tensors of one name were passed on, from whom, and to whom."""

    messages: int = 0
    sources: set[ClientId] = field(default_factory=set)
    receivers: set[ClientId] = field(default_factory=set)


class PassedOn:
    """Counters by tensor, and the digests of the tensors that came last, by the thousands."""

    def __init__(self) -> None:
        self._counts: dict[str, _Count] = {}
        self._seen: OrderedDict[int, tuple[ClientId, str]] = OrderedDict()  # the oldest first

    def answered(self, task: Task, update: Update) -> None:
        """Remember what a client has sent; a tensor that it sends back as it got it tells nothing of it."""
        for name, array in update.weights.items():
            data, received = _bytes(array), task.weights.get(name)
            if received is not None and _bytes(received) == data:
                continue
            digest = _digest(data)
            client, _ = self._seen.pop(digest, (update.client_id, name))
            self._seen[digest] = (client if client == update.client_id else _SEVERAL, name)
        while len(self._seen) > _MOST_REMEMBERED:
            self._seen.popitem(last=False)

    def sent(self, tasks: Sequence[Task]) -> None:
        """Look for tensors of others in tasks."""
        digests: dict[int, int] = {}  # by identity: most tasks share their weights
        for task in tasks if self._seen else ():
            for array in task.weights.values():
                if id(array) not in digests:
                    digests[id(array)] = _digest(_bytes(array))
                source, name = self._seen.get(digests[id(array)], (_SEVERAL, ""))
                if source not in (_SEVERAL, task.client_id):
                    count = self._counts.setdefault(name, _Count())
                    count.messages += 1
                    count.sources.add(source)
                    count.receivers.add(task.client_id)

    def card(self) -> list[dict[str, Any]]:
        """By tensor: messages that carried it, ``sources`` whose it was, ``receivers`` who were others."""
        return [
            {
                "name": name,
                "messages": count.messages,
                "sources": len(count.sources),
                "receivers": len(count.receivers),
            }
            for name, count in sorted(self._counts.items())
        ]

    def snapshot(self) -> Snapshot:
        """All of it: the counters, which JSON can hold, and arrays of what is remembered."""
        counts = {
            name: [count.messages, sorted(count.sources), sorted(count.receivers)]
            for name, count in self._counts.items()
        }
        names = sorted({name for _, name in self._seen.values()})
        rows = [(digest, client, names.index(name)) for digest, (client, name) in self._seen.items()]
        table = np.array(rows, dtype=np.int64).reshape(-1, 3)
        return {"counts": counts, "names": names}, {"seen": table}

    @classmethod
    def restored(cls, tree: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> PassedOn:
        """Inverse of :meth:`snapshot`."""
        passed_on = cls()
        for name, (messages, sources, receivers) in tree["counts"].items():
            passed_on._counts[name] = _Count(messages, set(sources), set(receivers))
        for digest, client, number in arrays["seen"].tolist():
            passed_on._seen[digest] = (client, tree["names"][number])
        return passed_on


def _bytes(array: np.ndarray) -> bytes:
    """The values, float32 as they travel; shapes do not matter."""
    return np.asarray(array, dtype=np.float32).tobytes()


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "little", signed=True)
