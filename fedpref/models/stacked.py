"""The weights of many clients side by side, a row each, and AdamW for every row.

Rows do not touch each other: each has its own moments and its own count of steps, so that clients with
unequal numbers of steps, or with a step to skip, end where each would have ended alone.

Source: Kingma and Ba 2015, algorithm 1; without decoupled decay AdamW is the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fedpref.types import Weights

__all__ = ["Stacked"]

_BETA1, _BETA2, _EPSILON = 0.9, 0.95, 1e-8


class Stacked:
    """Weights of N clients with equal keys and shapes, float32, and the state of their optimisers.

    Attributes:
        weights: by key, shape (N, …); views of one array, which ``step`` changes.
        gradients: by key, likewise; whoever steps writes them before. What stays zero is not trained.
        skipped: steps of each client that were left out since its gradient was not finite, shape (N,).
    """

    def __init__(self, members: Sequence[Weights]) -> None:
        shapes = {key: array.shape for key, array in members[0].items()}
        self._values = np.stack([_flat(member, shapes) for member in members])
        self._received = self._values.copy()
        self._gradients, self._first, self._second = (np.zeros_like(self._values) for _ in range(3))
        self._counts = np.zeros((len(members), 1))
        self._room = np.empty((2, *self._values.shape), np.float32)
        self.skipped = np.zeros(len(members), dtype=int)
        self.weights = _parts(self._values, shapes)
        self.gradients = _parts(self._gradients, shapes)

    def step(self, working: int, lr: float, mu: float = 0.0) -> None:
        """A step of the first ``working`` clients by their gradients; nothing of the others moves.

        Args:
            working: how many.
            lr: step size.
            mu: weight of the proximal term towards the received weights.
        """
        gradient = self._gradients[:working]
        is_finite = np.isfinite(gradient).all(axis=1)
        if mu > 0:
            gradient = gradient + np.float32(mu) * (self._values[:working] - self._received[:working])
        if is_finite.all():
            rows: slice | np.ndarray = slice(working)
        else:
            self.skipped[:working] += ~is_finite
            rows, gradient = np.flatnonzero(is_finite), gradient[is_finite]
        self._counts[rows] += 1
        state = (self._values[rows], self._first[rows], self._second[rows])
        _adam(*state, gradient, self._counts[rows], lr, self._room[:, : len(gradient)])
        if not isinstance(rows, slice):  # rows that were picked are copies
            self._values[rows], self._first[rows], self._second[rows] = state

    def of(self, client: int) -> dict[str, np.ndarray]:
        """A copy of one client's weights."""
        return {key: array[client].copy() for key, array in self.weights.items()}


def _adam(
    values: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    gradient: np.ndarray,
    counts: np.ndarray,
    lr: float,
    room: np.ndarray,
) -> None:
    """One step in place.

    Args:
        values: weights, shape (clients, weights).
        first: mean gradient, likewise.
        second: mean squared gradient, likewise.
        gradient: likewise.
        counts: steps so far, this one with them, shape (clients, 1).
        lr: step size.
        room: for what is computed on the way, shape (2, clients, weights); new arrays cost time.
    """
    one, other = room
    np.multiply(gradient, np.float32(1 - _BETA1), out=one)
    first *= np.float32(_BETA1)
    first += one
    np.multiply(gradient, gradient, out=one)
    one *= np.float32(1 - _BETA2)
    second *= np.float32(_BETA2)
    second += one
    np.multiply(second, (1 / (1 - _BETA2**counts)).astype(np.float32), out=one)
    np.sqrt(one, out=one)
    one += np.float32(_EPSILON)
    np.multiply(first, (lr / (1 - _BETA1**counts)).astype(np.float32), out=other)
    other /= one
    values -= other


def _flat(weights: Weights, keys: Mapping[str, tuple[int, ...]]) -> np.ndarray:
    return np.concatenate([weights[key].ravel() for key in keys], dtype=np.float32)


def _parts(rows: np.ndarray, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Views of the rows, by key."""
    found, start = {}, 0
    for key, shape in shapes.items():
        size = math.prod(shape)
        found[key] = rows[:, start : start + size].reshape(len(rows), *shape)
        start += size
    return found
