"""Tasks and answers as Flower records, both borders copying.

Weights travel as one flat float32 array and a manifest of names and shapes, sorted by name: byte counts
become trivial, and no array pays Flower's fixed cost of about 25 microseconds. Down::

    "arrays": {"flat"}, "config": {"manifest", "task", "version", "client", "acknowledged", "seed",
                                   "kind", "reply", "expires_s", "setting.<name>": …}

and up: ``"arrays": {"flat"}, "metrics": {"num-examples", …}, "config": {"manifest", "task"}``.

Messages of a stock Flower strategy have no manifest. They carry the rule's own weights, flat or by name,
and are answered in the form in which they came.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedpref.errors import ConfigurationError
from fedpref.flower._shim import message_of, record_of, reply_of
from fedpref.flower.records import decoded, flat_array, read, viewed
from fedpref.types import ClientId, Reply, Scalar, Schema, Settings, Task, Weights

__all__ = [
    "FLAT",
    "NOT_ACKNOWLEDGED",
    "NUM_EXAMPLES",
    "Packed",
    "Received",
    "Unpack",
    "answer",
    "manifest_of",
    "message_type",
    "named_arrays",
    "named_weights",
    "outline",
    "pack",
    "python_scalar",
    "receive",
    "schema_from",
    "schema_of",
    "send",
    "shared_unpack",
    "split",
    "unpack",
]

FLAT = "flat"
NUM_EXAMPLES = "num-examples"
NOT_ACKNOWLEDGED = -1
_SETTING = "setting."
_LONG = 2**16  # characters of a manifest that is not worth keeping
_MESSAGE_TYPES = {
    "train": "train",
    "resume": "train.resume",
    "evaluate": "evaluate",
    "score": "query.score",
}


# ------------------------------------------------------------------------------------- weights


class Packed(NamedTuple):
    """Weights ready to travel: one flat array, and its manifest."""

    array: Array
    manifest: str


def pack(weights: Weights) -> Packed:
    """Copy weights into one flat float32 array.

    Raises:
        ConfigurationError: an array is not float32; nothing is cast in silence.
    """
    for key, array in weights.items():
        if not isinstance(array, np.ndarray) or array.dtype != np.float32:
            dtype = getattr(array, "dtype", type(array).__name__)
            raise ConfigurationError(
                f"weights '{key}' are {dtype}, but only float32 travels: convert them before they are sent"
            )
    keys = sorted(weights)
    flats = [weights[key].ravel() for key in keys] or [np.zeros(0, np.float32)]
    flat = flats[0] if len(flats) == 1 else np.concatenate(flats)
    return Packed(flat_array(flat), _manifest(tuple([(key, weights[key].shape) for key in keys])))


Unpack = Callable[[Packed], dict[str, np.ndarray]]
"""Inverse of :func:`pack`."""


def unpack(packed: Packed) -> dict[str, np.ndarray]:
    """Inverse of :func:`pack`: copies, which their owner may write to.

    Raises:
        Exception: of any kind, for arrays that no server of ours has sent.
    """
    return split(decoded(packed.array), schema_from(packed.manifest))


def shared_unpack() -> Unpack:
    """As :func:`unpack`, but read-only, and what was unpacked before is handed out again.

    For messages that live in one process and carry one and the same Flower array, such as those of a cohort.
    """
    known: dict[tuple[int, str], tuple[Packed, dict[str, np.ndarray]]] = {}

    def unpack_once(packed: Packed) -> dict[str, np.ndarray]:
        key = id(packed.array), packed.manifest
        if key not in known:
            weights = split(viewed(packed.array), schema_from(packed.manifest))
            known[key] = packed, weights  # the array is kept, so that its id stays its own
        return dict(known[key][1])

    return unpack_once


def split(flat: np.ndarray, schema: Schema) -> dict[str, np.ndarray]:
    """Cut a flat array of shape (sum of sizes,) into named views, in name order.

    Raises:
        ValueError: the sizes do not add up.
    """
    total = sum([math.prod(shape) for shape in schema.values()])
    if flat.shape != (total,):
        raise ValueError(f"the flat array has shape {flat.shape}, its names need ({total},)")
    weights, start = {}, 0
    for key in sorted(schema):
        end = start + math.prod(schema[key])
        weights[key] = flat[start:end].reshape(schema[key])
        start = end
    return weights


def schema_of(weights: Weights) -> dict[str, tuple[int, ...]]:
    """Names and shapes of weights, sorted by name."""
    return {key: tuple(weights[key].shape) for key in sorted(weights)}


def manifest_of(schema: Schema) -> str:
    """A schema as JSON."""
    return _manifest(tuple((key, tuple(schema[key])) for key in sorted(schema)))


@lru_cache(maxsize=64)  # as many models as are in use at a time, or more
def _manifest(items: tuple[tuple[str, tuple[int, ...]], ...]) -> str:
    return json.dumps(items, separators=(",", ":"))


def schema_from(manifest: object) -> dict[str, tuple[int, ...]]:
    """Inverse of :func:`manifest_of`.

    Raises:
        ValueError: the text is no manifest.
    """
    if not isinstance(manifest, str):
        raise ValueError(f"a manifest is a string, got {type(manifest).__name__}")
    parse = _schema if len(manifest) < _LONG else _schema.__wrapped__
    return dict(parse(manifest))


@lru_cache(maxsize=64)
def _schema(manifest: str) -> dict[str, tuple[int, ...]]:
    schema: dict[str, tuple[int, ...]] = {}
    entries = json.loads(manifest)
    for entry in entries if isinstance(entries, list) else [entries]:
        match entry:
            case [str(key), list(shape)] if key not in schema and all(_is_length(n) for n in shape):
                schema[key] = tuple(shape)
            case _:
                raise ValueError(f"a manifest lists unique names and shapes, got {entry!r:.60}")
    return schema


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def named_arrays(weights: Weights) -> ArrayRecord:
    """Weights as one Flower array a name, the form that stock Flower strategies expect."""
    return ArrayRecord({key: Array(np.asarray(weights[key], np.float32)) for key in sorted(weights)})


def named_weights(record: Mapping[str, Array]) -> dict[str, np.ndarray]:
    """Inverse of :func:`named_arrays`; other float types, which stock strategies make, become float32.

    Raises:
        ConfigurationError: an array of integers, whose average would not be one.
    """
    weights = {}
    for key in sorted(record):
        array = decoded(record[key])
        if not np.issubdtype(array.dtype, np.floating):
            raise ConfigurationError(
                f"array '{key}' has dtype {array.dtype}: only floating-point arrays travel"
            )
        weights[key] = array.astype(np.float32)
    return weights


# ---------------------------------------------------------------------------------------- down


def message_type(kind: str) -> str:
    """Flower's message type of a task kind; kinds of plug-ins travel as queries."""
    return _MESSAGE_TYPES.get(kind, "query")


def send(task: Task, packed: Packed, node_id: int, seed: int, acknowledged: int) -> Message:
    """A task as a message.

    Args:
        task: what to do, numbered.
        packed: ``pack(task.weights)``, shared by all tasks that send the same weights.
        node_id: Flower's address of the client.
        seed: the run's seed.
        acknowledged: number of this client's last accepted task; -1 for none.
    """
    config: dict[str, Scalar] = {
        "manifest": packed.manifest,
        "task": task.number,
        "version": task.version,
        "client": task.client_id,
        "acknowledged": acknowledged,
        "seed": seed,
        "kind": task.kind,
        "expires_s": task.expires_s,
    }
    if task.reply is not None:
        config["reply"] = manifest_of(task.reply)
    content = record_of(
        RecordDict,
        {
            "arrays": record_of(ArrayRecord, {FLAT: packed.array}),
            "config": (record := record_of(ConfigRecord, config)),
        },
    )
    for name, value in task.settings.items():  # a strategy's own: Flower checks their types
        record[_SETTING + name] = python_scalar(value)
    return message_of(content, node_id, message_type(task.kind), str(task.version))


def python_scalar(value: Any) -> Any:
    """A NumPy scalar as the Python number that travels and that JSON knows; others as they are."""
    return value.item() if isinstance(value, np.generic) else value


class Received(NamedTuple):
    """A message as its client reads it.

    Attributes:
        task: the work.
        address: where the task's randomness lies, seed first.
        acknowledged: number of this client's last accepted task, -1 for none; None where the server
            does not say, as stock Flower does not.
        is_flat: True if the weights came flat and must return so.
    """

    task: Task
    address: tuple[int | str, ...]
    acknowledged: int | None
    is_flat: bool


def receive(
    message: Message, client_id: ClientId, seed: int, own: Schema, unpack: Unpack = unpack
) -> Received:
    """A message as a task, ours or of a stock Flower strategy.

    Args:
        message: what arrived.
        client_id: who reads it.
        seed: used where the message brings none.
        own: the rule's own names and shapes, used where the message brings none.
        unpack: reads the weights of our own messages.

    Raises:
        ConfigurationError: a stock message whose arrays are not the rule's.
    """
    contents = read(message.content)
    config, arrays = _only(contents.config), _only(contents.arrays)
    if "manifest" not in config:
        return _receive_stock(message.metadata.message_type, config, arrays, client_id, seed, own)
    task = _task(config, client_id, unpack(Packed(arrays[FLAT], config["manifest"])))
    return Received(task, (config["seed"], "task", task.number), config["acknowledged"], True)


def outline(message: Message, client_id: ClientId) -> Task | None:
    """The task of a message without looking at its arrays; None for a stock message.

    Its weights have the names and shapes of those sent, but are read-only zeros that take no memory.

    Raises:
        Exception: of any kind, for a message that no server of ours has sent.
    """
    config = _only(read(message.content).config)
    return _task(config, client_id, _hollow(config["manifest"])) if "manifest" in config else None


@lru_cache(maxsize=64)  # as many models as are in use at a time, or more
def _hollow(manifest: str) -> Weights:
    zero = np.zeros((), np.float32)
    return {key: np.broadcast_to(zero, shape) for key, shape in schema_from(manifest).items()}


def _task(config: Mapping[str, Any], client_id: ClientId, weights: Weights) -> Task:
    return Task(
        client_id=client_id,
        weights=weights,
        kind=config["kind"],
        settings={key.removeprefix(_SETTING): v for key, v in config.items() if key.startswith(_SETTING)},
        reply=schema_from(config["reply"]) if "reply" in config else None,
        expires_s=config["expires_s"],
        number=config["task"],
        version=config["version"],
    )


def _receive_stock(
    kind: str,
    config: Mapping[str, Any],
    arrays: Mapping[str, Array],
    client_id: ClientId,
    seed: int,
    own: Schema,
) -> Received:
    weights: Weights = named_weights(arrays)
    is_flat = set(weights) == {FLAT} and FLAT not in own
    if is_flat:
        total = sum(math.prod(shape) for shape in own.values())
        if weights[FLAT].shape != (total,):
            raise ConfigurationError(
                f"the server sent a flat array of shape {weights[FLAT].shape}, "
                f"the client rule needs ({total},)"
            )
        weights = split(weights[FLAT], own)
    elif schema_of(weights) != dict(sorted(own.items())):
        raise ConfigurationError(
            f"the server sent {schema_of(weights)}, the client rule needs {dict(sorted(own.items()))}"
        )
    settings: Settings = {
        key.replace("-", "_"): value
        for key, value in config.items()
        if isinstance(value, (bool, int, float, str))
    }
    round_index = int(config.get("server-round", 0))
    task = Task(client_id, weights, kind.split(".")[0], settings, number=round_index, version=round_index)
    # All clients share a server round: the client makes the address unique.
    return Received(task, (seed, "stock", round_index, client_id), None, is_flat)


def _only(records: Mapping[str, Any]) -> Any:
    """The single record of a kind; an empty mapping where there is none."""
    if len(records) > 1:
        raise ConfigurationError(f"a message carries one record of a kind, got {sorted(records)}")
    return next(iter(records.values()), {})


# ------------------------------------------------------------------------------------------ up


def answer(message: Message, received: Received, reply: Reply) -> Message:
    """The answer to a message, in the form in which the message came.

    Raises:
        ConfigurationError: the reply's weights are not float32.
    """
    packed = pack(reply.weights)
    metrics = {name: float(value) for name, value in reply.metrics.items()}
    metrics[NUM_EXAMPLES] = int(reply.num_pairs)
    records: dict[str, Any] = {
        "metrics": record_of(MetricRecord, metrics),
        "config": record_of(ConfigRecord, {"manifest": packed.manifest, "task": received.task.number}),
    }
    if received.task.kind != "evaluate":
        flat = {FLAT: packed.array}
        records["arrays"] = record_of(ArrayRecord, flat) if received.is_flat else named_arrays(reply.weights)
    return reply_of(record_of(RecordDict, records), message)
