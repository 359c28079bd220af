"""Size of a serialised message without serialising it: ten megabytes are measured as fast as ten bytes.

Protocol buffers: a field costs a tag (one byte up to field 15, two above), a length where it has one, and
its value; numbers of variable length take seven bits a byte. Every field of Flower's messages lies below
16 but the lists of a record's value.

This is asked for every message, and names, keys and array forms come again and again: their sizes are kept.

Source: the protobuf encoding guide, https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from flwr.app import Array, Message, Metadata

from fedpref.flower._shim import fields_of
from fedpref.flower.records import Contents, read

__all__ = ["framed_bytes"]

_TAG, _LIST_TAG, _DOUBLE, _BOOL = 1, 2, 8, 1
_FLOAT = _TAG + _DOUBLE
_KEPT = 4096
_MOST_INT64 = 2**63 - 1


def framed_bytes(message: Message, contents: Contents | None = None) -> int:
    """Size of the whole serialised message in bytes, frames and names included.

    Args:
        message: whose size.
        contents: what ``read`` finds in it, if that is known already.
    """
    size = _block(_metadata(message.metadata))
    if message.has_content():
        size += _block(_records(contents or read(message.content)))
    if message.has_error():
        error = message.error
        size += _block((_TAG + _zigzag(error.code) if error.code else 0) + _text(error.reason or ""))
    return size


def _varint(value: int) -> int:
    return 1 if value < 128 else (value.bit_length() + 6) // 7


def _zigzag(value: int) -> int:
    """A number with a sign has a bit more; above the most that is signed, one without has no fewer bytes."""
    return ((value if value >= 0 else ~value).bit_length() + 7) // 7


def _block(size: int, tag: int = _TAG) -> int:
    """A field with a length."""
    return tag + _varint(size) + size


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


@lru_cache(_KEPT)
def _text(text: str) -> int:
    """A string field; an empty one is left out."""
    return _block(_length(text)) if text else 0


def _metadata(metadata: Metadata) -> int:
    fields = fields_of(metadata)
    size = _common(
        fields["_run_id"],
        fields["_group_id"],
        fields["_message_type"],
        fields["_src_task_id"],
        fields["_dst_task_id"],
        bool(fields["_ttl"]) + bool(fields["_created_at"]),
    )
    for number in (fields["_src_node_id"], fields["_dst_node_id"]):
        if number:
            size += _TAG + _varint(number)
    for text in (fields["_message_id"], fields["_reply_to_message_id"]):
        if text:
            size += _block(_length(text))
    return size


@lru_cache(_KEPT)
def _common(
    run_id: int, group_id: str, message_type: str, src_task: int | None, dst_task: int | None, num_times: int
) -> int:
    """What the metadata of the messages of a round have in common."""
    size = (_TAG + _varint(run_id) if run_id else 0) + _text(group_id) + _text(message_type)
    size += sum(_TAG + _varint(task) for task in (src_task, dst_task) if task is not None)
    return size + num_times * _FLOAT


def _records(contents: Contents) -> int:
    size = 0
    for key, arrays in contents.arrays.items():
        size += _entry(key, _arrays(arrays))
    for records in (contents.metrics, contents.config):
        for key, values in records.items():
            size += _entry(key, _values(values))
    return size


def _arrays(arrays: Mapping[str, Array]) -> int:
    size = 0
    for key, array in arrays.items():
        size += _entry(key, _array(array.dtype, tuple(array.shape), array.stype, len(array.data)))
    return size


@lru_cache(_KEPT)
def _array(dtype: str, shape: tuple[int, ...], stype: str, num_bytes: int) -> int:
    dimensions = _block(sum(map(_varint, shape))) if shape else 0
    return _text(dtype) + dimensions + _text(stype) + (_block(num_bytes) if num_bytes else 0)


def _values(values: Mapping[str, Any]) -> int:
    size = 0
    for key, value in values.items():
        kind = type(value)
        if kind is float:
            inner = _FLOAT
        elif kind is int:
            inner = _TAG + _zigzag(value)
        else:
            inner = _value(value)
        size += _entry(key, inner)
    return size


@lru_cache(_KEPT)
def _entry(key: str, inner: int) -> int:
    """One entry of a map: its key, and a value of ``inner`` bytes."""
    return _block(_text(key) + _block(inner))


def _value(value: Any) -> int:
    if isinstance(value, str):
        return _block(_length(value))
    if isinstance(value, bool):
        return _TAG + _BOOL
    if isinstance(value, int):
        return _TAG + _zigzag(value)
    if isinstance(value, float):
        return _FLOAT
    if isinstance(value, bytes):
        return _block(len(value))
    return _block(_list(value), _LIST_TAG)


def _list(values: list[Any]) -> int:
    """A list of one type: numbers are packed, texts stand one by one."""
    if not values:
        return 0
    if isinstance(values[0], (str, bytes)):
        return sum(_block(_length(v) if isinstance(v, str) else len(v)) for v in values)
    if isinstance(values[0], bool):
        return _block(_BOOL * len(values))
    if isinstance(values[0], float):
        return _block(_DOUBLE * len(values))
    is_unsigned = any(value > _MOST_INT64 for value in values)
    return _block(sum(map(_varint if is_unsigned else _zigzag, values)))
