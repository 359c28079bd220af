"""Reading Flower's records: those of one kind, and the arrays in them, quickly and without trust.

Flower's own ways (``content.array_records``, ``Array(ndarray)``, ``array.numpy()``) build synchronised
dictionaries and parse Python text with every call; for small adapters that costs more than the training.
"""

from __future__ import annotations

import io
import re
from typing import TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedpref.flower._shim import array_of, data_of

__all__ = ["array_bytes", "decoded", "flat_array", "of_kind", "payload_bytes"]

R = TypeVar("R", ArrayRecord, MetricRecord, ConfigRecord)

# The header of a flat float32 array in NumPy's format 1.0, padded to a multiple of 64 bytes.
_FLAT_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(..)\{'descr': '<f4', 'fortran_order': False, "
    rb"'shape': \((0|[1-9][0-9]{0,17}),\), \} *\n",
    re.DOTALL,
)
_ALIGNMENT = 64


def of_kind(content: RecordDict, kind: type[R]) -> dict[str, R]:
    """The records of one kind, by name, in order."""
    return {key: record for key, record in data_of(content).items() if isinstance(record, kind)}


def flat_array(values: np.ndarray) -> Array:
    """A flat float32 array as Flower's ``Array``, byte for byte as ``Array(values)`` makes it.

    Args:
        values: shape (n,), float32.
    """
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({len(values)},), }}"
    length = len(text) + 1
    length += -(10 + length) % _ALIGNMENT
    header = b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.ljust(length - 1).encode() + b"\n"
    data = header + values.astype("<f4", copy=False).tobytes()
    return array_of("float32", (len(values),), data)


def decoded(array: Array) -> np.ndarray:
    """The NumPy array in a Flower array, a copy; never unpickles, never opens archives.

    Raises:
        Exception: of any kind that NumPy's parser has for bytes that are no array.
    """
    header = _FLAT_HEADER.match(array.data)
    if header is not None and header.end() == 10 + int.from_bytes(header[1], "little"):
        length = int(header[2])
        if len(array.data) - header.end() == 4 * length:
            return np.frombuffer(array.data, "<f4", length, header.end()).astype(np.float32)
    values = np.lib.format.read_array(io.BytesIO(array.data), allow_pickle=False)
    if values.nbytes > len(array.data):
        raise ValueError("the array is larger than its bytes")
    return values


def array_bytes(content: RecordDict) -> int:
    """Bytes of tensor data in records, without names and NumPy's headers."""
    return sum(
        payload_bytes(array) for record in of_kind(content, ArrayRecord).values() for array in record.values()
    )


def payload_bytes(array: Array) -> int:
    """Bytes of tensor data in one array, without NumPy's header."""
    return len(array.data) - _header_bytes(array.data)


def _header_bytes(data: bytes) -> int:
    """Length of the header of a version 1 ``.npy``; 0 for bytes that are none."""
    if data[:7] != b"\x93NUMPY\x01" or len(data) < 10:
        return 0
    return min(len(data), 10 + int.from_bytes(data[8:10], "little"))
