"""The memory of a Flower strategy, which it keeps in attributes, taken out as plain data and put back."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import Strategy as NativeStrategy

from fedpref.errors import ConfigurationError

__all__ = ["FlowerArrays", "FlowerMemory", "memory_of", "recalled"]


@dataclass(frozen=True, eq=False)
class FlowerArrays:
    """An ``ArrayRecord`` as plain data."""

    arrays: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class FlowerMemory:
    """The changing attributes of one Flower strategy; a wrapped strategy's are nested."""

    attributes: Mapping[str, Any]


class _Opaque(Exception):
    """Not plain data."""


def memory_of(strategy: NativeStrategy, original: NativeStrategy | None = None) -> FlowerMemory:
    """The attributes of a strategy that are plain data.

    Raises:
        ConfigurationError: an attribute that is not plain data has changed since ``original``.
    """
    memory = {}
    for name, value in vars(strategy).items():
        before = getattr(original, name, None)
        if isinstance(value, NativeStrategy):
            memory[name] = memory_of(value, before)
            continue
        try:
            memory[name] = _plain(value)
        except _Opaque:
            if original is not None and value is not before:
                raise ConfigurationError(
                    f"strategy: {type(strategy).__name__}.{name} changes during a run and holds a "
                    f"{type(value).__name__}, which no checkpoint can keep"
                ) from None
    return FlowerMemory(memory)


def recalled(original: NativeStrategy, memory: FlowerMemory) -> NativeStrategy:
    """A copy of ``original`` with this memory; what is not plain data is shared."""
    strategy = copy.copy(original)
    for name, value in memory.attributes.items():
        is_nested = isinstance(value, FlowerMemory)
        setattr(strategy, name, recalled(getattr(original, name), value) if is_nested else _native(value))
    return strategy


def _plain(value: Any) -> Any:
    """A copy of an attribute as plain data.

    Raises:
        _Opaque: it is a function or an object.
    """
    if value is None or (isinstance(value, (bool, int, float, str)) and not isinstance(value, np.generic)):
        return value
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype != object:
        return np.array(value)  # a NumPy scalar keeps its precision as an array of shape ()
    if isinstance(value, ArrayRecord):
        return FlowerArrays({key: array.numpy() for key, array in value.items()})
    if isinstance(value, dict) and all(isinstance(key, (str, int)) for key in value):
        return {key: _plain(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(child) for child in value)
    raise _Opaque


def _native(value: Any) -> Any:
    """A copy of plain data in Flower's types."""
    if isinstance(value, FlowerArrays):
        return ArrayRecord({key: Array(np.array(array)) for key, array in value.arrays.items()})
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: _native(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_native(child) for child in value)
    return value
