"""Clients whose responses are feature vectors: 64 pairs of 384 numbers each, made when they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from fedpref.lazy import LazySequence
from fedpref.seeds import generator
from fedpref.types import HeldOut, Pairs, Population, Shard

__all__ = ["DIM", "KEEP", "PAIRS", "features", "population"]

DIM, PAIRS = 384, 64
_BLOCK = 200
KEEP = 1_000
"""Clients whose features are kept; of more clients than that, client i has the features of i modulo this."""


def features(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Chosen and rejected features, norm about 8, each (64, 384) float32; one linear truth, some noise."""
    return _block(number // _BLOCK)[number % _BLOCK]


@lru_cache(maxsize=KEEP // _BLOCK)
def _block(block: int) -> Sequence[tuple[np.ndarray, np.ndarray]]:
    """Many at a time, so that drawing them falls into the first rounds, which are not measured."""
    truth = generator(0, "truth").standard_normal(DIM)
    drawn = []
    for number in range(block * _BLOCK, (block + 1) * _BLOCK):
        rng = generator(0, "features", number)
        sides = rng.standard_normal((2, PAIRS, DIM), np.float32) * np.float32(8 / np.sqrt(DIM))
        is_swapped = ((sides[0] - sides[1]) @ truth < rng.logistic(size=PAIRS))[:, None]
        drawn.append((np.where(is_swapped, sides[1], sides[0]), np.where(is_swapped, sides[0], sides[1])))
    return drawn


def _shard(client: int) -> Shard:
    chosen, rejected = features(client % KEEP)
    ids, empty = tuple(f"{client}-{row}" for row in range(PAIRS)), ("",) * PAIRS
    return Shard(client, f"client-{client}", Pairs(empty, chosen, rejected, ids, empty))


def population(num_clients: int) -> Population:
    """So many clients, and one person to ask."""
    shards = LazySequence(num_clients, _shard, keep=KEEP)
    return Population(shards, [HeldOut("somebody", None, _shard(num_clients).pairs)])
