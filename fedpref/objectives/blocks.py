"""The pairs of many clients in blocks of rows: shards of any size, one array operation for all of them.

A shard takes as many blocks as it needs, so that little is padded however unequal shards are. Padding is
zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np

from fedpref.objectives.batches import Drawn
from fedpref.types import Weights

__all__ = ["Blocks", "all_finite", "once_each", "stacks"]

_T = TypeVar("_T")
_Key = TypeVar("_Key")

_ROWS = 32
"""Rows of a block: large against the overhead of a small matrix product, small against most shards."""

_LARGEST_STACK = 2**17
"""Numbers, 1 MB of float64."""


class Blocks(NamedTuple):
    """Rows of clients, block by block; each client has at least one row.

    Attributes:
        rows: shape (num_blocks, 32, dim), float64.
        filled: 1 where there is a row and 0 where there is padding, shape (num_blocks, 32).
        owners: client of each block, ascending, shape (num_blocks,).
        starts: first block of each client, shape (num_clients,).
        counts: rows of each client, shape (num_clients,).
    """

    rows: np.ndarray
    filled: np.ndarray
    owners: np.ndarray
    starts: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[np.ndarray]) -> Blocks:
        """The rows of at least one client, each of shape (at least 1, dim)."""
        counts = np.array([len(part) for part in parts])
        blocks = -(-counts // _ROWS)
        starts = np.cumsum(blocks) - blocks
        rows = np.zeros((int(blocks.sum()), _ROWS, parts[0].shape[1]))
        filled = np.zeros(rows.shape[:2])
        flat, flat_filled = rows.reshape(-1, rows.shape[2]), filled.reshape(-1)
        for part, start in zip(parts, (_ROWS * starts).tolist(), strict=True):
            flat[start : start + len(part)] = part
            flat_filled[start : start + len(part)] = 1
        return cls(rows, filled, np.repeat(np.arange(len(parts)), blocks), starts, counts)

    def products(self, vectors: np.ndarray) -> np.ndarray:
        """Each row times K vectors of its client, (num_clients, K, dim): shape (num_blocks, K, 32)."""
        result: np.ndarray = vectors[self.owners] @ self.rows.swapaxes(1, 2)
        return result

    def combined(self, weights: np.ndarray) -> np.ndarray:
        """Each client's rows, summed with K weights a row, (num_blocks, K, 32): (num_clients, K, dim)."""
        return self._summed(weights @ self.rows)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums of K values a row over each client's rows, (num_blocks, K, 32): shape (num_clients, K)."""
        by_block = (values * self.filled[:, None]).sum(axis=2)
        return self._summed(by_block)

    def split(self, values: np.ndarray) -> list[np.ndarray]:
        """Values of each client's rows, shape (num_rows,), from those of all rows, (num_blocks, 1, 32)."""
        ends = (_ROWS * self.starts + self.counts).tolist()
        flat, lengths = values.reshape(-1), self.counts.tolist()
        return [flat[end - length : end] for end, length in zip(ends, lengths, strict=True)]

    def shares(self, drawn: Sequence[Drawn]) -> np.ndarray:
        """Weight of each row in the mean over each of its client's batches, 0 where that has no more.

        Args:
            drawn: the batches of each client.

        Returns:
            Shape (most batches, num_blocks, 1, 32).
        """
        most = max(own.num_steps for own in drawn)
        shares = np.zeros((most, *self.filled.shape))
        flat = shares.reshape(most, self.filled.size)
        for own, start in zip(drawn, (_ROWS * self.starts).tolist(), strict=True):
            flat[own.steps, start + own.rows] = own.shares
        return shares[:, :, None]

    def second_moments(self, count: int) -> Callable[[np.ndarray], np.ndarray]:
        """The function that sums the outer products of each client's rows, with K weights a row.

        It takes weights of shape (num_blocks, K, 32), and gives (num_clients, K, dim, dim).

        Args:
            count: K.
        """
        if count == 1:
            columns = self.rows.swapaxes(1, 2).copy()
            return lambda weights: self._summed((weights * columns) @ self.rows)[:, None]
        upper, lower, place = _triangle(self.rows.shape[2])
        owned = [own.reshape(-1, own.shape[2]).T.copy() for own in np.split(self.rows, self.starts[1:])]
        squares = [own[upper] * own[lower] for own in owned]  # distinct entries of each row's outer product

        def moments(weights: np.ndarray) -> np.ndarray:
            by_component = weights.swapaxes(0, 1).reshape(count, -1)
            distinct, start = np.empty((len(squares), count, len(upper))), 0
            for own, found in zip(squares, distinct, strict=True):  # one large product a client: the fastest
                np.matmul(by_component[:, start : start + own.shape[1]], own.T, out=found)
                start += own.shape[1]
            result: np.ndarray = np.take(distinct, place, axis=2)
            return result

        return moments

    def _summed(self, values: np.ndarray) -> np.ndarray:
        """Sums over each client's blocks, the first axis."""
        result: np.ndarray = np.add.reduceat(values, self.starts, axis=0)
        return result


@lru_cache(maxsize=8)
def _triangle(dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of a matrix's upper triangle, and where each entry of the whole is found in it."""
    upper, lower = np.triu_indices(dim)
    place = np.empty((dim, dim), dtype=int)
    place[upper, lower] = place[lower, upper] = np.arange(len(upper))
    return upper, lower, place


def stacks(differences: Mapping[_Key, np.ndarray], numbers_a_row: int) -> Iterator[dict[_Key, np.ndarray]]:
    """Some clients at a time, in order: as many as leave intermediate results in a processor's cache.

    Args:
        differences: rows of each client.
        numbers_a_row: how many numbers of one row are held.
    """
    stack: dict[_Key, np.ndarray] = {}
    held = 0
    for key, rows in differences.items():
        held += numbers_a_row * len(rows)
        if stack and held > _LARGEST_STACK:
            yield stack
            stack, held = {}, numbers_a_row * len(rows)
        stack[key] = rows
    if stack:
        yield stack


def all_finite(*arrays: np.ndarray) -> list[bool]:
    """Of each client: all its values are finite; clients are the first axis of every array."""
    finite = [np.isfinite(array).reshape(len(array), -1).all(axis=1) for array in arrays]
    result: list[bool] = np.logical_and.reduce(finite).tolist()
    return result


def once_each(received: Sequence[Weights], compute: Callable[[Weights], _T]) -> list[_T]:
    """``compute`` for the weights of each client, once for those that are the very same arrays."""
    keys = [tuple(id(array) for array in weights.values()) for weights in received]
    values = {key: compute(weights) for key, weights in dict(zip(keys, received, strict=True)).items()}
    return [values[key] for key in keys]
