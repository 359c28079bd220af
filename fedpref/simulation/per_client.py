"""One draw for every client, as an array: a client's depends on its number, not on how many there are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedpref.seeds import generator

__all__ = ["per_client"]

_BLOCK = 1024
"""Clients that share a generator, so that a hundred thousand clients need a hundred of them."""


def per_client(
    seed: int, word: str, num_clients: int, draw: Callable[[np.random.Generator, int], np.ndarray]
) -> np.ndarray:
    """One draw for each client; client i's stands in the block i // 1024 at ``(seed, word, block)``.

    Args:
        seed: of the run.
        word: what is drawn.
        num_clients: length of the result.
        draw: draws as many values from a generator, shape (size,).
    """
    blocks = range(-(-num_clients // _BLOCK))
    drawn = [draw(generator(seed, word, block), _BLOCK) for block in blocks]
    return np.concatenate(drawn)[:num_clients] if drawn else np.empty(0)
