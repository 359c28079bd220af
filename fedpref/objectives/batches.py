"""Which pairs each local step sees: epochs of permutations, drawn from the generator handed in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

__all__ = ["batch_size", "batches", "epochs_and_rest"]


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
        for _ in range(steps):
            yield np.arange(num_pairs)
        return
    done = 0
    while done < steps:
        order = rng.permutation(num_pairs)
        for start in range(0, num_pairs, size):
            if done == steps:
                return
            yield order[start : start + size]
            done += 1
