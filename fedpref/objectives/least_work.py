"""What training on a shard takes at least, known before the batches are drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from fedpref.objectives.batches import epochs_and_rest

__all__ = ["LeastWork", "least_work"]


class LeastWork(NamedTuple):
    """Least operations of training on a set of pairs, whatever batches are drawn.

    Attributes:
        epoch: of all pairs once.
        cheapest: at i, of any i pairs; from 0 to all of them.
    """

    epoch: int
    cheapest: Sequence[int]

    def flops(self, batch_pairs: int | None, steps: int) -> int:
        """Least operations of ``steps`` batches of ``batch_pairs``; None means all pairs."""
        epochs, rest = epochs_and_rest(len(self.cheapest) - 1, batch_pairs, steps)
        return epochs * self.epoch + self.cheapest[rest]


def least_work(
    texts: Sequence[tuple[str, str]], text_flops: Mapping[str, int], whole: int | None = None
) -> LeastWork:
    """For batches that run every distinct text once, alone or beside others with padding.

    A text that several pairs share runs at least once for all of them: each owes its part.

    Args:
        texts: the two texts of each pair.
        text_flops: operations of each text, run alone.
        whole: operations of all pairs at once, padding included, if every batch is that.
    """
    times = Counter(text for both in texts for text in both)
    pairs = sorted(sum(text_flops[text] // times[text] for text in both) for both in texts)
    cheapest = [0, *accumulate(pairs)]
    return LeastWork(cheapest[-1] if whole is None else whole, cheapest)
