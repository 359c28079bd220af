"""Every reply is judged here, before any strategy sees it: an ``Update``, or a code and the reason.

Averages have no defence of their own: one NaN ends a model, an array of shape (1,) is broadcast without a
word, and a claim of a million examples takes the mean over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array

from fedpref.errors import ConfigurationError
from fedpref.flower.records import Contents, viewed
from fedpref.flower.wire import FLAT, NUM_EXAMPLES, schema_from, split
from fedpref.maths.weights import distance
from fedpref.types import Schema, Task, Update, Weights

__all__ = ["Rejection", "ReplyLimits", "expected_schema", "validate_reply"]

_GIB = 2**30
_FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True)
class ReplyLimits:
    """What no honest reply exceeds.

    Attributes:
        max_update_norm: Euclidean norm of local minus received weights, over all arrays.
        max_reply_bytes: tensor data of one reply.
        max_num_pairs: pairs that one client may claim.
    """

    max_update_norm: float = 1e3
    max_reply_bytes: int = 2 * _GIB
    max_num_pairs: int = 1_000_000

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"limits.{name}={getattr(self, name)!r} must be above 0")


@dataclass(frozen=True)
class Rejection:
    """Why a reply was not accepted.

    Attributes:
        code: non_finite, shape, dtype, keys, norm, weight, weight_claim, missing_metric, type, size, rank,
            wrong_task, wrong_sender, duplicate, expired or unknown_message.
        detail: one sentence with the values.
    """

    code: str
    detail: str


class _Refused(Exception):
    """Carries a rejection out of the checks."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.rejection = Rejection(code, detail)


def validate_reply(
    contents: Contents, task: Task, limits: ReplyLimits, shard_pairs: int | None = None
) -> Update | Rejection:
    """Judge the contents of a reply; whatever they are, the answer is an update or a rejection.

    Args:
        contents: of the reply.
        task: what was asked.
        limits: what no honest reply exceeds.
        shard_pairs: what the server itself knows of the size of this client's shard; None if nothing.
    """
    try:
        _check_size(contents, limits)
        _check_task(contents, task)
        num_pairs, metrics = _read_metrics(contents, limits, shard_pairs)
        expected = expected_schema(task)
        weights = _read_weights(contents)
        _check_weights(weights, expected)
        received = _received(weights, task.weights)
        _check_norm(weights, received, limits)
    except _Refused as refused:
        return refused.rejection
    weights = {key: weights[key] for key in sorted(weights)}
    return Update(weights, received, num_pairs, metrics, task.client_id)


def expected_schema(task: Task) -> Schema:
    """Names and shapes that the answer must have; an evaluation returns numbers only."""
    if task.kind == "evaluate" and task.reply is None:
        return {}
    return task.expected


# ------------------------------------------------------------------------- one check a function


def _check_size(contents: Contents, limits: ReplyLimits) -> None:
    # The length of the bytes, not the declared shape: the declaration is the client's word.
    size = sum([len(array.data) for record in contents.arrays.values() for array in record.values()])
    if size > limits.max_reply_bytes:
        raise _Refused(
            "size", f"reply is {size / _GIB:.1f} GiB, limit {limits.max_reply_bytes / _GIB:.1f} GiB"
        )


def _check_task(contents: Contents, task: Task) -> None:
    for record in contents.config.values():
        answered = record.get("task", task.number)
        if answered != task.number:
            raise _Refused("wrong_task", f"answers task {answered!r:.40}, asked was task {task.number}")


def _read_metrics(
    contents: Contents, limits: ReplyLimits, shard_pairs: int | None
) -> tuple[int, dict[str, float]]:
    records = contents.metrics
    if len(records) > 1:
        raise _Refused("type", f"one metric record expected, got {sorted(records)!r:.80}")
    record: Mapping[str, object] = next(iter(records.values()), {})
    if NUM_EXAMPLES not in record:
        raise _Refused("missing_metric", f"metric '{NUM_EXAMPLES}' missing; got {sorted(record)!r:.80}")
    num_pairs = _read_num_pairs(record[NUM_EXAMPLES], limits, shard_pairs)
    metrics = {}
    for name, value in sorted(record.items()):
        if name == NUM_EXAMPLES:
            continue
        if not isinstance(value, (int, float)):
            raise _Refused("type", f"metric '{name}' must be one number, got {value!r:.60}")
        number = float(value)
        if not math.isfinite(number):
            raise _Refused("non_finite", f"metric '{name}' is {value}")
        metrics[name] = number
    return num_pairs, metrics


def _read_num_pairs(value: Any, limits: ReplyLimits, shard_pairs: int | None) -> int:
    most = limits.max_num_pairs
    is_number = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    if not is_number or value != math.floor(value) or not 1 <= value <= most:
        detail = f"{NUM_EXAMPLES} must be a finite whole number in [1, {most:.0e}], got {value!r:.40}"
        raise _Refused("weight", detail)
    if shard_pairs is not None and value > shard_pairs:
        raise _Refused("weight_claim", f"claims {int(value)} examples, partition has {shard_pairs}")
    return int(value)


def _read_weights(contents: Contents) -> dict[str, np.ndarray]:
    """Arrays of a reply by name, in whatever dtype and shape they have."""
    records = contents.arrays
    if len(records) > 1:
        raise _Refused("keys", f"one array record expected, got {sorted(records)!r:.80}")
    record: Mapping[str, Array] = next(iter(records.values()), {})
    arrays = {key: _decoded(key, record[key]) for key in record}
    manifest = next((r["manifest"] for r in contents.config.values() if "manifest" in r), None)
    if manifest is None or list(arrays) != [FLAT]:
        return arrays
    flat = arrays[FLAT]
    if flat.dtype != _FLOAT32:
        raise _Refused("dtype", f"array '{FLAT}' has dtype {flat.dtype}, expected float32")
    try:
        return split(flat, schema_from(manifest))
    except (ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise _Refused("type", f"the manifest does not describe the arrays: {error!s:.120}") from error


def _decoded(key: str, array: Array) -> np.ndarray:
    try:
        return viewed(array)
    except Exception as error:  # NumPy's parser fails in any way on bytes that are no array
        raise _Refused("type", f"array '{key:.40}' cannot be decoded without pickle") from error


def _check_weights(weights: Weights, expected: Schema) -> None:
    if weights.keys() != expected.keys():
        unexpected, missing = sorted(set(weights) - set(expected)), sorted(set(expected) - set(weights))
        raise _Refused("keys", f"unexpected arrays {unexpected!r:.120}; missing {missing!r:.120}")
    for key in sorted(expected):
        if weights[key].dtype != _FLOAT32:
            raise _Refused("dtype", f"array '{key}' has dtype {weights[key].dtype}, expected float32")
    _check_ranks(weights, expected)
    for key, shape in sorted(expected.items()):
        array = weights[key]
        if array.shape != tuple(shape):
            raise _Refused("shape", f"array '{key}' has shape {array.shape}, expected {tuple(shape)}")
        bad = array.size - np.count_nonzero(np.isfinite(array))
        if bad:
            raise _Refused("non_finite", f"array '{key}' has {bad} non-finite values of {array.size}")


def _check_ranks(weights: Weights, expected: Schema) -> None:
    """LoRA factors B (d_out, r) and A (r, d_in) whose ranks are not the agreed one."""
    for key_a in sorted(expected):
        key_b = key_a.replace("lora_A", "lora_B")
        if key_b == key_a or key_b not in expected:
            continue
        shape_a, shape_b = weights[key_a].shape, weights[key_b].shape
        if len(shape_a) != 2 or len(shape_b) != 2:
            continue  # the shape check names it
        if (shape_a[0], shape_b[1]) != (expected[key_a][0], expected[key_b][1]):
            where = key_a.split("lora_A")[0].rstrip(".")
            detail = f"lora_A rank {shape_a[0]}, lora_B rank {shape_b[1]} at '{where}'"
            raise _Refused("rank", f"{detail}; expected rank {expected[key_a][0]}")


def _received(weights: Weights, sent: Weights) -> dict[str, np.ndarray]:
    """What the client got of that which it returns: the very arrays, not copies."""
    return {
        key: sent[key] for key in sorted(weights) if key in sent and sent[key].shape == weights[key].shape
    }


def _check_norm(weights: Weights, received: Weights, limits: ReplyLimits) -> None:
    norm = distance(weights, received)
    if norm > limits.max_update_norm:
        raise _Refused("norm", f"update norm {norm:.1e} exceeds {limits.max_update_norm:.1e}")
