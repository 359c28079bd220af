"""What left the clients: every tensor and number of every reply, counted as it comes in.

Nothing here is a declaration: replies are counted before they are judged, those that are rejected, late or
sent twice included. A reply costs one look-up by its form, which is its manifest and the names of all that it
carries; forms are taken apart when the card is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
from flwr.app import Message

from fedpref.flower.records import Contents, payload_bytes
from fedpref.flower.timed import Snapshot
from fedpref.flower.wire import FLAT, schema_from

__all__ = ["Disclosure"]

_Tensor = tuple[str, str, tuple[int, ...], int]
_T = TypeVar("_T", bound=Hashable)
_FLOAT32_BYTES = 4

# Honest clients have few forms. What one invents beyond that is counted without its names.
_MOST_FORMS = 256
_MOST_CHARACTERS = 2**20


class _Form(NamedTuple):
    """What a reply consists of, apart from its values.

    Attributes:
        manifest: names and shapes in the flat array; empty for none.
        arrays: name, dtype, shape and bytes of each array, as it came.
        numbers: names of the metrics; one that is a list says how long it is.
        entries: names of all else.
    """

    manifest: str
    arrays: tuple[_Tensor, ...]
    numbers: tuple[str, ...]
    entries: tuple[str, ...]


_UNLISTED = _Form("", (), (), ())


@dataclass
class _Seen:
    """How often a form came, from which nodes, and between which values its numbers lay."""

    messages: int = 0
    nodes: set[int] = field(default_factory=set)
    lows: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)


class Disclosure:
    """Counters of all that clients have sent."""

    def __init__(self) -> None:
        self._forms: dict[_Form, _Seen] = {}
        self._bytes = 0
        self._failures = _Seen()
        self._longest_reason = 0

    def see(self, reply: Message, contents: Contents) -> None:
        """Count a reply, whatever its ``contents`` are. Never raises on their account."""
        node = reply.metadata.src_node_id
        if not reply.has_content():
            self._failures.messages += 1
            self._failures.nodes.add(node)
            reason = reply.error.reason if reply.has_error() else None
            self._longest_reason = max(self._longest_reason, len(reason or ""))
            return
        form, values = self._read(contents)
        seen = self._forms.get(form)
        if seen is None:
            form = form if self._has_room(form) else _UNLISTED
            count = len(form.numbers)
            seen = self._forms.setdefault(form, _Seen(0, set(), [math.inf] * count, [-math.inf] * count))
        seen.messages += 1
        seen.nodes.add(node)
        for index, (low, high, value) in enumerate(zip(seen.lows, seen.highs, values, strict=False)):
            if isinstance(value, list) or not low <= value <= high:  # mostly there is nothing to do
                self._widen(seen, index, value)

    @staticmethod
    def _widen(seen: _Seen, index: int, value: Any) -> None:
        for number in value if isinstance(value, list) else (value,):
            # False for a NaN; an infinity is no range.
            if -math.inf < number < math.inf:
                seen.lows[index] = min(seen.lows[index], number)
                seen.highs[index] = max(seen.highs[index], number)

    def _read(self, contents: Contents) -> tuple[_Form, list[Any]]:
        manifest, arrays = "", list[_Tensor]()
        numbers, entries, values = list[str](), list[str](), list[Any]()
        for metrics in contents.metrics.values():
            values += metrics.values()
            numbers += [f"{k}[{len(v)}]" if isinstance(v, list) else k for k, v in metrics.items()]
        for config in contents.config.values():
            entries += config
            if isinstance(named := config.get("manifest"), str):
                manifest = named
        for record in contents.arrays.values():
            for name, array in record.items():
                size = payload_bytes(array)
                self._bytes += size
                arrays.append((name, array.dtype, tuple(array.shape), size))
        return _Form(manifest, tuple(arrays), tuple(numbers), tuple(entries)), values

    def _has_room(self, form: _Form) -> bool:
        names = (form.manifest, *(entry[0] for entry in form.arrays), *form.numbers, *form.entries)
        return len(self._forms) < _MOST_FORMS and sum(map(len, names)) <= _MOST_CHARACTERS

    # --------------------------------------------------------------------------------- card

    def card(self) -> dict[str, Any]:
        """All that left, as plain data: ``tensors``, ``numbers`` and ``entries`` by name, and totals."""
        unlisted = self._forms.get(_UNLISTED, _Seen())
        nodes = self._failures.nodes.union(*(seen.nodes for seen in self._forms.values()))
        tensors, entries = self._counted(_tensors), self._counted(lambda form: form.entries)
        return {
            "replies": sum(seen.messages for seen in self._forms.values()),
            "unlisted_replies": unlisted.messages,
            "clients": len(nodes),
            "tensor_bytes": self._bytes,
            "tensors": [
                {"name": name, "dtype": dtype, "shape": list(shape), "bytes_per_message": size, **counts}
                for (name, dtype, shape, size), counts in tensors.items()
            ],
            "numbers": self._numbers(),
            "entries": [{"name": name, **counts} for name, counts in entries.items()],
            "failures": {
                "messages": self._failures.messages,
                "clients": len(self._failures.nodes),
                "longest_reason_characters": self._longest_reason,
            },
        }

    def _numbers(self) -> list[dict[str, Any]]:
        lows: dict[str, float] = {}
        highs: dict[str, float] = {}
        for form, seen in self._forms.items():
            for name, low, high in zip(form.numbers, seen.lows, seen.highs, strict=True):
                lows[name] = min(low, lows.get(name, math.inf))
                highs[name] = max(high, highs.get(name, -math.inf))
        return [
            {"name": name, "low": _or_none(lows[name]), "high": _or_none(highs[name]), **counts}
            for name, counts in self._counted(lambda form: form.numbers).items()
        ]

    def _counted(self, things_of: Callable[[_Form], Sequence[_T]]) -> dict[_T, dict[str, int]]:
        """In how many messages, from how many clients, each thing came; sorted."""
        having: dict[_T, list[_Seen]] = {}
        for form, seen in self._forms.items():
            for thing in dict.fromkeys(things_of(form)):
                having.setdefault(thing, []).append(seen)
        num_clients: dict[tuple[int, ...], int] = {}  # many tensors come in the same forms
        counted = {}
        for thing in sorted(having):  # type: ignore[type-var]
            forms = having[thing]
            key = tuple(map(id, forms))
            if key not in num_clients:
                num_clients[key] = len(set[int]().union(*(seen.nodes for seen in forms)))
            messages = sum(seen.messages for seen in forms)
            counted[thing] = {"messages": messages, "clients": num_clients[key]}
        return counted

    # --------------------------------------------------------------------------- checkpoint

    def snapshot(self) -> Snapshot:
        """All counters: what JSON can hold, and arrays of the nodes, which may be many."""
        tree = {
            "forms": [
                {"form": list(form), "messages": seen.messages}
                | {"lows": list(map(_or_none, seen.lows)), "highs": list(map(_or_none, seen.highs))}
                for form, seen in self._forms.items()
            ],
            "bytes": self._bytes,
            "failures": [self._failures.messages, self._longest_reason],
        }
        arrays = {f"nodes/{i}": _as_array(seen.nodes) for i, seen in enumerate(self._forms.values())}
        return tree, arrays | {"failures": _as_array(self._failures.nodes)}

    @classmethod
    def restored(cls, tree: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Disclosure:
        """Inverse of :meth:`snapshot`."""
        disclosure = cls()
        disclosure._bytes = tree["bytes"]
        messages, disclosure._longest_reason = tree["failures"]
        disclosure._failures = _Seen(messages, set(arrays["failures"].tolist()))
        for index, entry in enumerate(tree["forms"]):
            manifest, tensors, numbers, entries = entry["form"]
            tensors = tuple((name, dtype, tuple(shape), size) for name, dtype, shape, size in tensors)
            disclosure._forms[_Form(manifest, tensors, tuple(numbers), tuple(entries))] = _Seen(
                entry["messages"],
                set(arrays[f"nodes/{index}"].tolist()),
                [math.inf if low is None else low for low in entry["lows"]],
                [-math.inf if high is None else high for high in entry["highs"]],
            )
        return disclosure


def _tensors(form: _Form) -> list[_Tensor]:
    """Name, dtype, shape and bytes of each; a flat array is told by its parts if the manifest fits it."""
    if len(form.arrays) == 1 and form.arrays[0][0] == FLAT and form.manifest:
        _, dtype, _, size = form.arrays[0]
        try:
            schema = schema_from(form.manifest)
        except (ValueError, RecursionError):
            return list(form.arrays)
        parts = [(name, dtype, shape, _FLOAT32_BYTES * math.prod(shape)) for name, shape in schema.items()]
        if sum(part[-1] for part in parts) == size:
            return parts
    return list(form.arrays)


def _as_array(nodes: Set[int]) -> np.ndarray:
    """Ascending, so that equal sets give equal bytes; Flower's addresses have 64 bits without a sign."""
    return np.sort(np.fromiter(nodes, dtype=np.uint64, count=len(nodes)))


def _or_none(value: float) -> float | None:
    """For JSON, which knows no infinity: of numbers that never were finite."""
    return value if math.isfinite(value) else None
