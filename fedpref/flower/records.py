"""Reading Flower's records by kind, and the arrays in them, quickly and without trust.

Flower's own ways (``content.array_records``, ``Array(ndarray)``, ``array.numpy()``) build synchronised
dictionaries and parse Python text with every call; for small adapters that costs more than the training.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedpref.flower._shim import array_of, data_of

__all__ = ["NOTHING", "Contents", "decoded", "flat_array", "payload_bytes", "read", "viewed"]

# The header of a flat float32 array in NumPy's format 1.0, padded to a multiple of 64 bytes.
_FLAT_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(..)\{'descr': '<f4', 'fortran_order': False, "
    rb"'shape': \((0|[1-9][0-9]{0,17}),\), \} *\n",
    re.DOTALL,
)
_VERSION_1 = b"\x93NUMPY\x01"
_ALIGNMENT = 64
_FLOAT32 = np.dtype("<f4")


class Contents(NamedTuple):
    """The records of a message by kind and name, in order: the very ones inside, not to be changed."""

    arrays: dict[str, Mapping[str, Array]]
    metrics: dict[str, Mapping[str, Any]]
    config: dict[str, Mapping[str, Any]]

    @property
    def array_bytes(self) -> int:
        """Bytes of tensor data, without names and NumPy's headers."""
        return sum([payload_bytes(array) for record in self.arrays.values() for array in record.values()])


NOTHING = Contents({}, {}, {})


def read(content: RecordDict) -> Contents:
    """The records of each kind."""
    contents = Contents({}, {}, {})
    for key, record in data_of(content).items():
        contents[_place(record.__class__)][key] = data_of(record)
    return contents


@lru_cache
def _place(kind: type) -> int:
    """Which of ``Contents`` holds a record; kept, because Flower's classes answer ``isinstance`` slowly."""
    return [issubclass(kind, each) for each in (ArrayRecord, MetricRecord, ConfigRecord)].index(True)


def flat_array(values: np.ndarray) -> Array:
    """A flat float32 array as Flower's ``Array``, byte for byte as ``Array(values)`` makes it.

    Args:
        values: shape (n,), float32.
    """
    data = _flat_header(len(values)) + values.astype(_FLOAT32, copy=False).data
    return array_of("float32", (len(values),), data)


@lru_cache(maxsize=64)  # as many models as are in use at a time, or more
def _flat_header(num_values: int) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({num_values},), }}"
    length = len(text) + 1
    length += -(10 + length) % _ALIGNMENT
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.ljust(length - 1).encode() + b"\n"


def decoded(array: Array) -> np.ndarray:
    """The NumPy array in a Flower array, a copy; never unpickles, never opens archives.

    Raises:
        Exception: of any kind that NumPy's parser has for bytes that are no array.
    """
    return viewed(array).copy()


def viewed(array: Array) -> np.ndarray:
    """As :func:`decoded`, but read-only, and without a copy where the array is a flat one.

    Raises:
        Exception: as :func:`decoded`.
    """
    data = array.data
    header = _FLAT_HEADER.match(data)
    if header is not None and header.end() == 10 + int.from_bytes(header[1], "little"):
        length = int(header[2])
        if len(data) - header.end() == 4 * length:
            return np.frombuffer(data, _FLOAT32, length, header.end())
    values = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    if values.nbytes > len(data):
        raise ValueError("the array is larger than its bytes")
    values.flags.writeable = False
    return values


def payload_bytes(array: Array) -> int:
    """Bytes of tensor data in one array, without NumPy's header (of version 1, the only one we know)."""
    data = array.data
    if data.startswith(_VERSION_1) and len(data) >= 10:
        return max(0, len(data) - 10 - int.from_bytes(data[8:10], "little"))
    return len(data)
