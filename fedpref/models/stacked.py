"""The weights of many clients side by side, a row each, and AdamW for every row.

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

    Rows do not touch each other. After a step by a gradient that is not finite its row never is again.

    Attributes:
        flat: all weights of a client in a row, shape (N, numbers); ``step`` changes them.
        flat_gradients: likewise; whoever steps writes all of them before, and ``step`` overwrites them.
        weights: the weights by key, shape (N, …); views.
        gradients: likewise.
    """

    def __init__(self, members: Sequence[Weights]) -> None:
        shapes = {key: array.shape for key, array in members[0].items()}
        self.flat = np.stack([_flat(member, shapes) for member in members])
        self.flat_gradients = np.zeros_like(self.flat)
        self.weights = _parts(self.flat, shapes)
        self.gradients = _parts(self.flat_gradients, shapes)
        self._received = self.flat.copy()
        self._first, self._second = np.zeros_like(self.flat), np.zeros_like(self.flat)
        self._steps = 0

    def step(self, working: int, lr: float, mu: float = 0.0) -> None:
        """A step of the first ``working`` clients by their gradients; nothing of the others moves.

        Args:
            working: how many; never more than at the step before, so that all have taken as many steps.
            lr: step size.
            mu: weight of the proximal term towards the received weights.
        """
        self._steps += 1
        values, gradient = self.flat[:working], self.flat_gradients[:working]
        if mu > 0:
            gradient += np.float32(mu) * (values - self._received[:working])
        _adam(values, self._first[:working], self._second[:working], gradient, self._steps, lr)

    def of(self, client: int) -> dict[str, np.ndarray]:
        """A copy of one client's weights."""
        return {key: array[client].copy() for key, array in self.weights.items()}


def _adam(
    values: np.ndarray, first: np.ndarray, second: np.ndarray, gradient: np.ndarray, steps: int, lr: float
) -> None:
    """One step in place.

    Passes over the arrays are what a step costs. So the moments are plain sums: their factors 1 - beta stand
    with the bias corrections, which are numbers.

    Args:
        values: weights.
        first: sum of ``beta_1^age gradient``, same shape.
        second: sum of ``beta_2^age gradient^2``, same shape.
        gradient: of this step, same shape; overwritten.
        steps: so far, with this one.
        lr: step size.
    """
    first *= np.float32(_BETA1)
    first += gradient
    second *= np.float32(_BETA2)
    second += np.square(gradient, out=gradient)
    mean = (1 - _BETA1) / (1 - _BETA1**steps)
    root = math.sqrt((1 - _BETA2) / (1 - _BETA2**steps))
    move = np.sqrt(second, out=gradient)
    move += np.float32(_EPSILON / root)
    np.divide(first, move, out=move)
    move *= np.float32(lr * mean / root)
    values -= move


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
