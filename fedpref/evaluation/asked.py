"""Who was asked what: one hash, by which two runs know that they can be compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np

from fedpref.types import Population

__all__ = ["held_out_digest"]


def held_out_digest(population: Population) -> str:
    """SHA-256 over all held-out sets that a run is judged by: people, pairs, labels and, if known, the truth.

    Whom a set is trained for does not count: the same people are asked the same of a pooled population.
    """
    total = hashlib.sha256()
    for part in _parts(population):
        total.update(part)
    return total.hexdigest()


def _parts(population: Population) -> Iterator[bytes]:
    for index, held_out in enumerate(population.held_out):
        pairs = held_out.pairs
        if not len(pairs) or held_out.shots is not None:
            continue
        yield _bytes([held_out.name])
        for column in (pairs.prompts, pairs.chosen, pairs.rejected, pairs.pair_ids):
            yield _bytes(column)
        if population.truth is not None:
            yield _bytes(population.truth.p_chosen(index))


def _bytes(column: Sequence[str] | np.ndarray) -> bytes:
    """A form that no other column has."""
    if isinstance(column, np.ndarray):
        return f"{column.dtype.str}{column.shape}".encode() + np.ascontiguousarray(column).tobytes()
    return json.dumps(list(column)).encode()
