"""The only file that knows Flower's internals; a new Flower version is mended here.

Public Flower (``flwr.app``, ``flwr.clientapp``, ``flwr.serverapp``) suffices for apps that Flower itself
runs. Running them ourselves takes five internal things: the process's task identity, which the
constructor of ``Message`` reads; message ids, which have no setter; the ``Run`` record in the signature
of ``Grid``; the protobuf form of messages; and Flower's own console handler.

Messages, records and arrays are also built here without the checks of their constructors, which cost more
than a small client's training. What is built is equal to what the constructors make.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from typing import Any, TypeVar

# Before the first import of Flower: nothing that fedpref starts phones home.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", "1")

with warnings.catch_warnings():
    # Flower's own imports use deprecated names of click; no reader of ours can mend that.
    warnings.simplefilter("ignore", DeprecationWarning)
    from flwr.app import (
        Array,
        ArrayRecord,
        ConfigRecord,
        Context,
        Message,
        Metadata,
        MetricRecord,
        RecordDict,
    )
    from flwr.app.constants import DEFAULT_TTL
    from flwr.common.serde import (
        message_from_proto,
        message_to_proto,
        recorddict_from_proto,
        recorddict_to_proto,
    )
    from flwr.proto.message_pb2 import Message as ProtoMessage
    from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
    from flwr.serverapp import Grid, strategy
    from flwr.supercore.logger import FLOWER_LOGGER, console_handler
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity

__all__ = [
    "Grid",
    "Run",
    "adopt_process",
    "array_of",
    "copied",
    "data_of",
    "empty_run",
    "fields_of",
    "message_from_bytes",
    "message_of",
    "message_to_bytes",
    "record_of",
    "records_from_bytes",
    "records_to_bytes",
    "reply_of",
    "stamp",
    "strategy",
    "twin_of",
]

T = TypeVar("T", Message, Context)
R = TypeVar("R", RecordDict, ArrayRecord, MetricRecord, ConfigRecord)

_RUN_ID = _TASK_ID = _NODE_ID = 1

_EMPTY: dict[Any, Any] = {kind: kind() for kind in (RecordDict, ArrayRecord, MetricRecord, ConfigRecord)}


def adopt_process() -> None:
    """Make this process able to build messages, and let Flower's log lines appear once.

    Inside a Flower runtime the identity is set already and stays.
    """
    if TaskIdentity._run_id is None:
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = _RUN_ID, _TASK_ID, _NODE_ID
        # Flower prints each line itself and passes it on to the root logger too.
        FLOWER_LOGGER.removeHandler(console_handler)
        FLOWER_LOGGER.setLevel(os.environ.get("FLWR_LOG_LEVEL", logging.getLevelName(logging.WARNING)))


def empty_run() -> Run:
    """The run record of a run that no SuperLink knows."""
    return Run.create_empty(_RUN_ID)


def stamp(message: Message, message_id: str) -> Message:
    """Give a message its id, as a SuperLink would on push."""
    message.metadata.__dict__["_message_id"] = message_id
    return message


def copied(records: RecordDict) -> RecordDict:
    """Records that share nothing mutable; the bytes of arrays are shared.

    As building them anew, but without checking again what was checked when they were made.
    """
    data = {key: _with_data(record, data_of(record).copy()) for key, record in data_of(records).items()}
    return _with_data(records, data)


def _with_data(record: R, data: dict[str, Any]) -> R:
    twin = object.__new__(type(record))
    twin.__dict__.update(record.__dict__, _data=data)
    return twin


def record_of(kind: type[R], data: dict[str, Any]) -> R:
    """A record around ``data``, whose keys and values are known to be of the right types.

    As ``kind(data)``, but without a check of each value and a copy of each array.
    """
    return _with_data(_EMPTY[kind], data)


def data_of(records: RecordDict | ArrayRecord | MetricRecord | ConfigRecord) -> dict[str, Any]:
    """The dictionary inside, which is not to be changed."""
    data: dict[str, Any] = records.__dict__["_data"]
    return data


def fields_of(metadata: Metadata) -> dict[str, Any]:
    """The attributes of a message's metadata, each after an underscore; not to be changed."""
    fields: dict[str, Any] = metadata.__dict__
    return fields


def message_of(content: RecordDict, dst_node_id: int, message_type: str, group_id: str) -> Message:
    """``Message(content, dst_node_id, message_type, group_id=group_id)`` of arguments known to be right."""
    return _message(
        content,
        _run_id=TaskIdentity.run_id,
        _src_node_id=TaskIdentity.node_id,
        _dst_node_id=dst_node_id,
        _src_task_id=TaskIdentity.task_id,
        _dst_task_id=None,
        _reply_to_message_id="",
        _group_id=group_id,
        _created_at=time.time(),
        _ttl=DEFAULT_TTL,
        _message_type=message_type,
    )


def reply_of(content: RecordDict, asked: Message) -> Message:
    """``Message(content, reply_to=asked)``."""
    of_asked, now_s = asked.metadata.__dict__, time.time()
    return _message(
        content,
        _run_id=of_asked["_run_id"],
        _src_node_id=of_asked["_dst_node_id"],
        _dst_node_id=of_asked["_src_node_id"],
        _src_task_id=of_asked["_dst_task_id"],
        _dst_task_id=of_asked["_src_task_id"],
        _reply_to_message_id=of_asked["_message_id"],
        _group_id=of_asked["_group_id"],
        _created_at=now_s,
        _ttl=of_asked["_created_at"] + of_asked["_ttl"] - now_s,
        _message_type=of_asked["_message_type"],
    )


def _message(content: RecordDict, **fields: Any) -> Message:
    metadata, message = object.__new__(Metadata), object.__new__(Message)
    metadata.__dict__.update(fields, _message_id="", _delivered_at="")
    message.__dict__.update(_metadata=metadata, _content=content, _error=None)
    return message


def array_of(dtype: str, shape: tuple[int, ...], data: bytes) -> Array:
    """An ``Array`` of NumPy's bytes, whose arguments are known to be of the right types."""
    array = Array.__new__(Array)
    array.__dict__.update(dtype=dtype, shape=shape, stype="numpy.ndarray", data=data)
    return array


def twin_of(original: T) -> T:
    """A shallow copy of a message or a context, as ``copy.copy`` makes it in five times the time."""
    twin = object.__new__(type(original))
    twin.__dict__.update(original.__dict__)
    return twin


def message_to_bytes(message: Message) -> bytes:
    """The message in Flower's protobuf form."""
    return bytes(message_to_proto(message).SerializeToString(deterministic=True))


def message_from_bytes(data: bytes) -> Message:
    """Inverse of :func:`message_to_bytes`."""
    return message_from_proto(ProtoMessage.FromString(data))


def records_to_bytes(records: RecordDict) -> bytes:
    """Records, such as a client's state, in Flower's protobuf form."""
    return bytes(recorddict_to_proto(records).SerializeToString(deterministic=True))


def records_from_bytes(data: bytes) -> RecordDict:
    """Inverse of :func:`records_to_bytes`."""
    return recorddict_from_proto(ProtoRecordDict.FromString(data))
