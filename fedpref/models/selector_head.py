"""What a selector's head is, whatever it sits on: logits of both orders of a pair, and local steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from fedpref.objectives.least_work import LeastWork
from fedpref.types import Pairs, Weights

__all__ = ["Course", "Ended", "SelectorHead", "Trained"]


class Trained(NamedTuple):
    """What local steps gave.

    Attributes:
        weights: float32.
        skipped: steps that were left out since a gradient was not finite.
        flops: counted work of all steps, skipped ones included.
    """

    weights: Weights
    skipped: int
    flops: int


class Course(NamedTuple):
    """One client's training.

    Attributes:
        weights: where to start, and the anchor of the proximal term.
        pairs: of the client.
        rows: which of them it trains on.
        batches: each step's pairs, as places in ``rows``; none is larger than the first.
        mu: weight of the proximal term.
    """

    weights: Weights
    pairs: Pairs
    rows: np.ndarray
    batches: Sequence[np.ndarray]
    mu: float


class Ended(NamedTuple):
    """What training gave, and logits of both orders of the measured pairs before and after it, (n, 2)."""

    trained: Trained
    before: np.ndarray
    after: np.ndarray


class SelectorHead(Protocol):
    """A selector's head. Holds options only; nothing handed in is changed."""

    @property
    def lr(self) -> float:
        """Step size."""
        ...

    def fresh(self, rng: np.random.Generator) -> Weights:
        """Initial weights, float32."""
        ...

    def warm(self, populations: Sequence[Pairs]) -> None:
        """Compute and keep what is frozen, for all these pairs."""
        ...

    def both_orders(self, weights: Weights, pairs: Pairs, rows: np.ndarray) -> np.ndarray:
        """``l(chosen, rejected)`` and ``l(rejected, chosen)`` of pairs, shape (num_rows, 2), float64.

        Args:
            weights: of one selector.
            pairs: of one owner.
            rows: which of them.

        Raises:
            ConfigurationError: the weights do not fit.
        """
        ...

    def scoring_flops(self, pairs: Pairs, rows: np.ndarray) -> int:
        """Counted work of ``both_orders``."""
        ...

    def least_work(self, pairs: Pairs, rows: np.ndarray, batch_pairs: int | None) -> LeastWork:
        """What ``train`` counts at least, for batches of ``batch_pairs`` of the pairs at ``rows``."""
        ...

    def training_bytes(self, pairs: Pairs, batch_pairs: int | None) -> int:
        """Memory that ``train`` takes at most, with everything kept for these pairs."""
        ...

    def scoring_bytes(self, pairs: Pairs, num_selectors: int) -> int:
        """Memory of ``both_orders`` for several selectors, one after the other."""
        ...

    def train(
        self,
        weights: Weights,
        pairs: Pairs,
        batches: Iterable[np.ndarray],
        mu: float,
        rng: np.random.Generator,
    ) -> Trained:
        """One step on each batch of rows, both orders of every pair in it.

        Args:
            weights: where to start, and the anchor of the proximal term.
            pairs: of one client.
            batches: row numbers.
            mu: weight of the proximal term; 0 leaves it out.
            rng: draws of this training other than the batches.
        """
        ...

    def train_together(self, courses: Sequence[Course], num_measured: int) -> Sequence[Ended | None]:
        """What ``train`` gives for each course, to rounding; None for whoever has to train alone.

        Args:
            courses: one a client, without dropout.
            num_measured: logits are those of the first so many rows.

        Raises:
            ConfigurationError: weights do not fit.
        """
        ...

    def export(self, weights: Weights, folder: Path) -> None:
        """Write the weights in a form that loads without fedpref."""
        ...
