"""What is computed for the pairs of a shard is kept as long as the pairs live, in memory, once a process."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from fedpref.models.backbone import Backbone
from fedpref.types import Pairs

__all__ = ["feature_differences", "feature_sums", "gram_matrix", "kept", "narrow_differences"]

_T = TypeVar("_T")
_kept: WeakKeyDictionary[Pairs, dict[Hashable, object]] = WeakKeyDictionary()


def kept(pairs: Pairs, key: Hashable, compute: Callable[[], _T]) -> _T:
    """The value of ``compute`` for these pairs; computed once.

    Args:
        pairs: whose death ends the value's life.
        key: identity of the function; equal keys share a value.
        compute: gives a value that nobody changes.
    """
    values = _kept.setdefault(pairs, {})
    if key not in values:
        values[key] = compute()
    return values[key]  # type: ignore[return-value]  # equal keys, equal types


def feature_differences(backbone: Backbone, pairs: Pairs) -> np.ndarray:
    """psi(chosen) - psi(rejected), shape (num_pairs, H), float64, read-only."""
    return kept(pairs, ("differences", backbone), lambda: _sides(backbone, pairs, -1.0))


def feature_sums(backbone: Backbone, pairs: Pairs) -> np.ndarray:
    """psi(chosen) + psi(rejected), shape (num_pairs, H), float64, read-only."""
    return kept(pairs, ("sums", backbone), lambda: _sides(backbone, pairs, 1.0))


def narrow_differences(backbone: Backbone, pairs: Pairs) -> np.ndarray:
    """``feature_differences`` in float32: half the memory to read, where steps go by their Gram matrix."""
    key = ("narrow differences", backbone)
    return kept(pairs, key, lambda: feature_differences(backbone, pairs).astype(np.float32))


def gram_matrix(backbone: Backbone, pairs: Pairs) -> np.ndarray:
    """Inner products of all ``narrow_differences``, shape (num_pairs, num_pairs), float32."""

    def gram() -> np.ndarray:
        z = narrow_differences(backbone, pairs)
        products: np.ndarray = z @ z.T
        return products

    return kept(pairs, ("gram", backbone), gram)


def _sides(backbone: Backbone, pairs: Pairs, sign: float) -> np.ndarray:
    chosen = backbone.features(pairs.prompts, pairs.chosen).astype(np.float64)
    both: np.ndarray = chosen + sign * backbone.features(pairs.prompts, pairs.rejected)
    both.setflags(write=False)
    return both
