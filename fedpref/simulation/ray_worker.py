"""Both ends of the way of a job to a Ray actor: what is sent, and what the actor does with it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedpref.simulation.executor import Done, Job, attempt, one_torch_thread

__all__ = ["Parcels", "Worker"]

_KEPT_SUBMITS = 4


class Parcels:
    """Ships equal arrays once, however many messages carry them, in one submit and the next few.

    Args:
        ship: puts an array where all actors can read it; a reference to it.
    """

    def __init__(self, ship: Callable[[Array], Any]) -> None:
        self._ship = ship
        # By content, since every record holds copies of its arrays; Python hashes their bytes only once.
        self._sent: dict[tuple[object, ...], tuple[Any, int]] = {}
        self._submit = 0

    def pack(self, job: Job) -> tuple[Any, ...]:
        """The message without arrays, the places of the arrays, the context, and references to the arrays."""
        places, refs = [], []
        for record, named in job.message.content.array_records.items():
            for name, array in named.items():
                places.append((record, name))
                refs.append(self._reference(array))
        lean = copy.copy(job.message)
        content = job.message.content.items()
        lean.content = RecordDict({key: r for key, r in content if not isinstance(r, ArrayRecord)})
        return lean, places, job.context, *refs

    def end_submit(self) -> None:
        """Let go of the arrays that none of the last few submits carried."""
        self._submit += 1
        self._sent = {k: entry for k, entry in self._sent.items() if self._submit - entry[1] <= _KEPT_SUBMITS}

    def _reference(self, array: Array) -> Any:
        content = (array.data, array.dtype, tuple(array.shape), array.stype)
        ref = self._sent[content][0] if content in self._sent else self._ship(array)
        self._sent[content] = ref, self._submit
        return ref


class Worker:
    """What runs inside an actor. It keeps the app, with backbone and shards, as long as it lives.

    Args:
        load: unpickles the app.
        app_blob: the pickled app.
    """

    def __init__(self, load: Callable[[bytes], ClientApp], app_blob: bytes) -> None:
        self._app = load(app_blob)

    def ready(self) -> None:
        """Answer once the app is loaded."""

    def run(self, lean: Message, places: Sequence[tuple[str, str]], context: Context, *arrays: Array) -> Done:
        """Put the arrays of a parcel back into its message and run the job."""
        records: dict[str, dict[str, Array]] = {}
        for (record, name), array in zip(places, arrays, strict=True):
            records.setdefault(record, {})[name] = array
        for record, named in records.items():
            lean.content[record] = ArrayRecord(named)
        with one_torch_thread():
            return attempt(self._app, lean, context)
