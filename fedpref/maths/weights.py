"""The algebra of ``Weights``: named arrays added, scaled and measured in float64, in declared order."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np

from fedpref.types import Weights

__all__ = [
    "add_delta",
    "difference",
    "digest",
    "distance",
    "inner",
    "norm",
    "num_bytes",
    "scaled",
    "weighted_sum",
    "zeros",
]

_BLOCK = 2**16
"""Entries whose difference is made at a time: half a megabyte stays in a cache near the processor."""


def difference(new: Weights, old: Weights) -> Weights:
    """``new - old`` in float64, key by key.

    Float32 values subtract exactly in float64 unless they differ by more than 29 binary orders of
    magnitude, so ``add_delta(old, difference(new, old))`` gives ``new`` back to the bit.

    Raises:
        ValueError: the keys differ.
    """
    if new.keys() != old.keys():
        raise ValueError(f"weights have different keys: {sorted(set(new) ^ set(old))}")
    return {key: new[key].astype(np.float64) - old[key].astype(np.float64) for key in new}


def add_delta(base: Weights, delta: Weights, step: float = 1.0) -> Weights:
    """``base + step * delta``, summed in float64 and rounded once to float32.

    Keys without a delta keep the very array of ``base``.

    Raises:
        ValueError: ``delta`` has a key that ``base`` lacks.
    """
    unknown = sorted(set(delta) - set(base))
    if unknown:
        raise ValueError(f"delta of unknown weights {unknown}")
    return {
        key: np.add(step * delta[key], array, dtype=np.float64).astype(np.float32) if key in delta else array
        for key, array in base.items()
    }


def weighted_sum(terms: Sequence[Weights], factors: Sequence[float]) -> Weights:
    """``sum_i factors[i] * terms[i]`` in float64, in the order of ``terms``.

    Raises:
        ValueError: no terms, not one factor a term, or arrays of different shapes under one key.
    """
    if not terms or len(terms) != len(factors):
        raise ValueError(f"{len(terms)} terms and {len(factors)} factors")
    return {key: _summed([term[key] for term in terms], factors) for key in terms[0]}


def _summed(arrays: Sequence[np.ndarray], factors: Sequence[float]) -> np.ndarray:
    """The weighted sum of arrays of one shape, float64."""
    total = np.empty(arrays[0].shape)
    if any(array.shape != total.shape for array in arrays):
        raise ValueError(f"arrays of different shapes: {sorted({array.shape for array in arrays})}")
    np.multiply(arrays[0], float(factors[0]), out=total, dtype=np.float64)
    for array, factor in zip(arrays[1:], factors[1:], strict=True):
        total += np.multiply(array, float(factor), dtype=np.float64)
    return total


def scaled(weights: Weights, factor: float) -> Weights:
    """``factor * weights`` in float64."""
    return {key: factor * array.astype(np.float64) for key, array in weights.items()}


def zeros(like: Weights) -> Weights:
    """Float64 zeros with the keys and shapes of ``like``."""
    return {key: np.zeros(array.shape) for key, array in like.items()}


def inner(first: Weights, second: Weights) -> float:
    """Euclidean inner product over all entries, keys in sorted order."""
    return float(sum(np.vdot(_float64(first[key]), _float64(second[key])) for key in sorted(first)))


def _float64(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64, copy=False)


def norm(weights: Weights) -> float:
    """Euclidean norm of the concatenation of all arrays."""
    return float(np.sqrt(inner(weights, weights)))


def distance(new: Weights, old: Weights) -> float:
    """Euclidean norm of ``new - old`` over the keys of ``old``, in float64, without making the difference."""
    squares = 0.0
    for key in sorted(old):
        new_flat, old_flat = new[key].reshape(-1), old[key].reshape(-1)
        for start in range(0, old_flat.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            change = new_flat[block].astype(np.float64) - old_flat[block]
            squares += float(np.vdot(change, change))
    return math.sqrt(squares)


def num_bytes(weights: Weights) -> int:
    """Bytes of the tensor data: what a formula for the message size predicts."""
    return sum(array.nbytes for array in weights.values())


def digest(models: Mapping[str, Weights]) -> str:
    """SHA-256 over names, shapes, dtypes and bytes of all models, in sorted order."""
    sha = hashlib.sha256()
    for name in sorted(models):
        for key in sorted(models[name]):
            array = np.ascontiguousarray(models[name][key])
            sha.update(f"{name}\0{key}\0{array.dtype.str}\0{array.shape}\0".encode())
            sha.update(array.tobytes())
    return sha.hexdigest()
