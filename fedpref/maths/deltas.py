"""The weighted sum of many updates' deltas as a stream: memory of order of the model, not of the cohort.

A delta in float64 is twice as large as the weights that it is made of. So none is made: blocks of all updates
are converted, subtracted, scaled and added while they are in the processor's cache.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from fedpref.types import Update, Weights

__all__ = ["sum_of_deltas"]

_BLOCK = 2**17
"""Most entries of a block: a megabyte as float64. Shorter ones are read from memory less well."""

_MOST_THREADS = 4
"""So many read from memory about as fast as it gives."""

_LONG = 2**15
"""Entries of an array, so that threads seldom wait for Python between their operations on its parts."""

_MANY = 2**22
"""Entries of one array in all updates: fewer are added before threads have started."""


def sum_of_deltas(updates: Sequence[Update], factors: Sequence[float]) -> Weights:
    """``sum_i factors[i] * (weights_i - received_i)`` in float64, in the order of ``updates``.

    Every entry has the bits that adding whole deltas gives, whatever the blocks and threads.

    Raises:
        ValueError: no updates, not one factor an update, or arrays of different shapes under one key.
    """
    if not updates or len(updates) != len(factors):
        raise ValueError(f"{len(updates)} updates and {len(factors)} factors")
    return {
        key: _summed(
            [update.weights[key] for update in updates], [update.received[key] for update in updates], factors
        )
        for key in updates[0].received
    }


def _summed(new: Sequence[np.ndarray], old: Sequence[np.ndarray], factors: Sequence[float]) -> np.ndarray:
    """``sum_i factors[i] * (new[i] - old[i])`` for arrays of one shape."""
    shapes = {array.shape for array in (*new, *old)}
    if len(shapes) > 1:
        raise ValueError(f"arrays of different shapes: {sorted(shapes)}")
    total = np.empty(new[0].shape)
    flat = {id(array): array.reshape(-1) for array in (*new, *old)}  # shared arrays stay shared
    terms = [(flat[id(n)], flat[id(o)], float(f)) for n, o, f in zip(new, old, factors, strict=True)]
    has_threads = total.size >= _LONG and total.size * len(new) >= _MANY
    threads = min(os.cpu_count() or 1, _MOST_THREADS) if has_threads else 1
    length = max(1, min(_BLOCK, -(-total.size // threads)))

    def sum_block(start: int) -> None:
        block = slice(start, start + length)
        sums = total.reshape(-1)[block]
        before, change = np.empty_like(sums), np.empty_like(sums)
        known = None
        for i, (n, o, factor) in enumerate(terms):
            if o is not known:  # most clients received the very same array
                before[:], known = o[block], o
            term = change if i > 0 else sums
            term[:] = n[block]
            term -= before
            term *= factor
            if i > 0:
                sums += term

    starts = range(0, total.size, length)
    if threads == 1:
        for start in starts:
            sum_block(start)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(sum_block, starts))
    return total
