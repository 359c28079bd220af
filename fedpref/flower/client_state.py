"""A client's state between tasks: committed, or pending until the server has accepted the answer.

A server may reject an answer, lose it, or have stopped waiting for it. So a new state stays pending, with
its task's number, until the next task says which task was accepted last; then it is committed or dropped.
A client whose answers are rejected twice in a row is told that none was ever accepted, and starts afresh.
One mechanism for our own engine and for a live Flower wire; both states live in Flower's ``Context.state``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedpref.flower.records import decoded
from fedpref.flower.wire import NOT_ACKNOWLEDGED
from fedpref.types import ClientState

__all__ = ["propose", "settle"]

_COMMITTED = "fedpref.committed"
_PENDING = "fedpref.pending"
_TASK = "fedpref.pending.task"


def settle(records: RecordDict, acknowledged: int | None) -> ClientState:
    """Commit or drop what is pending; the state from which the next task starts.

    Args:
        records: ``Context.state``, changed in place.
        acknowledged: number of this client's last accepted task; -1 for none, which empties the state;
            None where the server does not say (stock Flower), which counts as accepted.
    """
    if not records:  # most rules keep nothing
        return ClientState()
    if acknowledged == NOT_ACKNOWLEDGED and f"{_COMMITTED}.arrays" in records:
        _write(records, _COMMITTED, ClientState())
    if _TASK in records:
        is_accepted = acknowledged is None or records[_TASK]["number"] == acknowledged
        for part in ("arrays", "numbers"):
            pending = records.pop(f"{_PENDING}.{part}")
            if is_accepted:  # moved as it is: nobody need decode it
                records[f"{_COMMITTED}.{part}"] = pending
        del records[_TASK]
    return _read(records, _COMMITTED)


def propose(records: RecordDict, state: ClientState, task_number: int) -> None:
    """Keep ``state`` as pending until ``task_number`` is acknowledged; ``records`` changes in place."""
    if not state.arrays and not state.numbers and f"{_COMMITTED}.arrays" not in records:
        return  # nothing was kept and nothing is
    _write(records, _PENDING, state)
    records[_TASK] = ConfigRecord({"number": task_number})


def _read(records: RecordDict, key: str) -> ClientState:
    arrays: Mapping[str, Array] = records.get(f"{key}.arrays", {})
    numbers = records.get(f"{key}.numbers", {})
    return ClientState({name: decoded(array) for name, array in arrays.items()}, dict(numbers))


def _write(records: RecordDict, key: str, state: ClientState) -> None:
    records[f"{key}.arrays"] = ArrayRecord(
        {name: Array(np.asarray(array)) for name, array in state.arrays.items()}
    )
    numbers = {name: v.item() if isinstance(v, np.generic) else v for name, v in state.numbers.items()}
    records[f"{key}.numbers"] = ConfigRecord(numbers)
