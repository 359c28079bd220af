"""Which pairs each local step sees: epochs of permutations, drawn from the generator handed in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

__all__ = ["Drawn", "batch_size", "batches", "drawn", "epochs_and_rest"]


def batch_size(num_pairs: int, batch_pairs: int | None) -> int:
    """Pairs of a batch that is not cut short; arguments as in ``batches``."""
    return num_pairs if batch_pairs is None else min(batch_pairs, num_pairs)


def epochs_and_rest(num_pairs: int, batch_pairs: int | None, steps: int) -> tuple[int, int]:
    """Whole epochs in ``steps`` batches, and pairs in the batches after them; arguments as in ``batches``."""
    size = batch_size(num_pairs, batch_pairs)
    epochs, further = divmod(steps, -(-num_pairs // size))
    return epochs, further * size


def batches(
    num_pairs: int, batch_pairs: int | None, steps: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Row numbers of ``steps`` batches.

    Every epoch is a fresh permutation cut into batches, the last of which may be smaller. A batch as
    large as the shard is the whole shard in its own order, and nothing is drawn.

    Args:
        num_pairs: pairs in the shard, at least 1.
        batch_pairs: pairs a batch; None means the whole shard.
        steps: how many batches.
        rng: the draws.

    Yields:
        Integer arrays of shape (at most batch_pairs,).
    """
    size = batch_size(num_pairs, batch_pairs)
    if size == num_pairs:
        whole = np.arange(num_pairs)
        for _ in range(steps):
            yield whole
        return
    done = 0
    while done < steps:
        order = rng.permutation(num_pairs)
        for start in range(0, num_pairs, size):
            if done == steps:
                return
            yield order[start : start + size]
            done += 1


class Drawn(NamedTuple):
    """All batches of a task, one after the other: entry j is a pair of some step.

    Attributes:
        rows: row number of the pair, shape (pairs of all steps,).
        steps: number of the step, ascending, same shape.
        shares: one over the pairs of that step, its weight in the step's mean, same shape.
        num_steps: how many steps there are.
    """

    rows: np.ndarray
    steps: np.ndarray
    shares: np.ndarray
    num_steps: int

    @classmethod
    def of(cls, batches: Sequence[np.ndarray]) -> Drawn:
        """Batches that were drawn before."""
        sizes = np.array([len(rows) for rows in batches], dtype=int)
        rows = np.concatenate([np.zeros(0, dtype=int), *batches])
        return cls(rows, *_of_sizes(sizes), len(batches))

    def batches(self) -> list[np.ndarray]:
        """Row numbers, step by step."""
        ends = np.searchsorted(self.steps, np.arange(1, self.num_steps + 1)).tolist()
        return [self.rows[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def drawn(num_pairs: int, batch_pairs: int | None, steps: int, rng: np.random.Generator) -> Drawn:
    """What ``batches`` yields, from the same draws, as arrays: arguments as there."""
    size = batch_size(num_pairs, batch_pairs)
    epochs, rest = epochs_and_rest(num_pairs, batch_pairs, steps)
    if size == num_pairs:
        rows = np.tile(np.arange(num_pairs), steps)
    else:
        orders = [rng.permutation(num_pairs) for _ in range(epochs + (rest > 0))]
        rows = np.concatenate([np.zeros(0, dtype=int), *orders])[: epochs * num_pairs + rest]
    return Drawn(rows, *_steps_and_shares(num_pairs, size, steps), steps)


@lru_cache(maxsize=1024)
def _steps_and_shares(num_pairs: int, size: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Step of each pair and its share, of clients whose shards are of one size."""
    in_epoch = [min(size, num_pairs - start) for start in range(0, num_pairs, size)]
    found = _of_sizes(np.resize(in_epoch, steps))
    for array in found:
        array.setflags(write=False)
    return found


def _of_sizes(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat(np.arange(len(sizes)), sizes), np.repeat(1 / sizes, sizes)
