"""Optimisers for NumPy rules: a gradient in, the step to add out. A fresh one starts without memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np

__all__ = ["OptimizerName", "Step", "copies_held", "stepper"]

OptimizerName: TypeAlias = Literal["sgd", "adamw"]
Step: TypeAlias = Callable[[np.ndarray], np.ndarray]


def copies_held(optimizer: OptimizerName) -> int:
    """Arrays that training holds beside a weight: its gradient, what was received, and two moments."""
    return 4 if optimizer == "adamw" else 2


def stepper(optimizer: OptimizerName, lr: float) -> Step:
    """The optimiser's step as a function of the gradient.

    Args:
        optimizer: "sgd", or "adamw" (betas 0.9 and 0.95, no decay).
        lr: step size.
    """
    return _adam(lr) if optimizer == "adamw" else lambda gradient: -lr * gradient


def _adam(lr: float, beta1: float = 0.9, beta2: float = 0.95, epsilon: float = 1e-8) -> Step:
    """Steps of Adam (Kingma and Ba 2015, algorithm 1); without decoupled decay AdamW is the same."""
    first: np.ndarray | float = 0.0
    second: np.ndarray | float = 0.0
    count = 0

    def step(gradient: np.ndarray) -> np.ndarray:
        nonlocal first, second, count
        count += 1
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient**2
        scale = np.sqrt(second / (1 - beta2**count)) + epsilon
        moved: np.ndarray = -lr * (first / (1 - beta1**count)) / scale
        return moved

    return step
