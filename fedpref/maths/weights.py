"""The algebra of ``Weights``: named arrays added, scaled and measured in float64, in declared order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from fedpref.types import Weights

__all__ = [
    "add_delta",
    "difference",
    "digest",
    "inner",
    "norm",
    "num_bytes",
    "scaled",
    "weighted_sum",
    "zeros",
]

_BLOCK = 2**16
"""Entries summed at a time: sum and product, half a megabyte each, stay in a cache near the processor."""


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
        key: (array.astype(np.float64) + step * delta[key]).astype(np.float32) if key in delta else array
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
    """The weighted sum of arrays of one shape, float64.

    Block by block, so that sum and product stay in the processor's cache and each array is read once from
    memory; every entry is summed in the order of the arrays, whatever the blocks.
    """
    total = np.empty(arrays[0].shape)
    if any(array.shape != total.shape for array in arrays):
        raise ValueError(f"arrays of different shapes: {sorted({array.shape for array in arrays})}")
    flat, rows = total.reshape(-1), [np.ascontiguousarray(array).reshape(-1) for array in arrays]
    product = np.empty(min(_BLOCK, flat.size))
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        part = product[: block.size]
        np.multiply(rows[0][start : start + _BLOCK], float(factors[0]), out=block, dtype=np.float64)
        for row, factor in zip(rows[1:], factors[1:], strict=True):
            np.multiply(row[start : start + _BLOCK], float(factor), out=part, dtype=np.float64)
            block += part
    return total


def scaled(weights: Weights, factor: float) -> Weights:
    """``factor * weights`` in float64."""
    return {key: factor * array.astype(np.float64) for key, array in weights.items()}


def zeros(like: Weights) -> Weights:
    """Float64 zeros with the keys and shapes of ``like``."""
    return {key: np.zeros(array.shape) for key, array in like.items()}


def inner(first: Weights, second: Weights) -> float:
    """Euclidean inner product over all entries, keys in sorted order."""
    return float(
        sum(np.vdot(first[key].astype(np.float64), second[key].astype(np.float64)) for key in sorted(first))
    )


def norm(weights: Weights) -> float:
    """Euclidean norm of the concatenation of all arrays."""
    return float(np.sqrt(inner(weights, weights)))


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
