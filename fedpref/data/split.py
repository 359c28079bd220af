"""Which rows are held out: always whole pairs, never single rows.

Swapped copies of a pair, and the same pair judged by several people, share a ``pair_id``; a split by
row would train on the twins of what it tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedpref.data.formats import TextPair
from fedpref.data.rows import TEST, Rows, text_pair_id
from fedpref.errors import ConfigurationError
from fedpref.seeds import generator

__all__ = ["PairSplit", "straddling_texts"]


@dataclass(frozen=True)
class PairSplit:
    """The split that the rows carry, or else a share of all pairs drawn at random.

    Attributes:
        held_out_fraction: share of the pairs to hold out where the rows carry no split, in (0, 1).

    Raises:
        ConfigurationError: the share is not in (0, 1).
    """

    held_out_fraction: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.held_out_fraction < 1:
            raise ConfigurationError(
                f"split.held_out_fraction={self.held_out_fraction}: choose a share between 0 and 1"
            )

    def is_held_out(self, rows: Rows, seed: int) -> np.ndarray:
        """Which rows are held out, shape (num_rows,), bool; all rows of a pair alike.

        Raises:
            ConfigurationError: the rows' own split puts one pair on both sides, or a side is empty.
        """
        held_out = self._given(rows) if rows.has_split else self._drawn(rows, seed)
        for side, is_empty in (("training", held_out.all()), ("held-out", not held_out.any())):
            if is_empty:
                raise ConfigurationError(
                    f"{rows.source}: the split leaves no {side} rows of {len(rows)}; give more pairs, change "
                    "split.held_out_fraction, or set data.split_column=null to split anew"
                )
        return held_out

    def _given(self, rows: Rows) -> np.ndarray:
        first_row: dict[str, int] = {}
        for row, pair_id in enumerate(rows.pair_ids):
            other = first_row.setdefault(pair_id, row)
            if rows.splits[other] != rows.splits[row]:
                raise ConfigurationError(
                    f"{rows.source}: rows {other} and {row} hold one pair ({pair_id}) on both sides of the "
                    "split; move one of them, or set data.split_column=null to split by pair"
                )
        return np.array([side == TEST for side in rows.splits], dtype=bool)

    def _drawn(self, rows: Rows, seed: int) -> np.ndarray:
        pair_ids = sorted(set(rows.pair_ids))
        order = generator(seed, "split").permutation(len(pair_ids))
        drawn = {pair_ids[i] for i in order[: round(self.held_out_fraction * len(pair_ids))]}
        return np.array([pair_id in drawn for pair_id in rows.pair_ids], dtype=bool)


def straddling_texts(rows: Rows, held_out: np.ndarray) -> int:
    """Number of held-out text pairs that training holds too, under another ``pair_id``.

    Two different items of a source can have the same texts; a split by the source's own ids then
    parts them. Nothing is moved, since the source's split is honoured, but a reader should know.
    """
    sides: dict[bool, set[str]] = {True: set(), False: set()}
    for prompt, chosen, rejected, side in zip(
        rows.prompts, rows.chosen, rows.rejected, held_out, strict=True
    ):
        sides[bool(side)].add(text_pair_id(TextPair(prompt, chosen, rejected, form="")))
    return len(sides[True] & sides[False])
