"""How the two responses of a pair relate: three modes of candidates."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["MODES", "second_plan"]

MODES = ("iid", "neg", "near")
"""Independent; negatively correlated (-0.7), which exposes disagreement; nearly the same."""


def second_plan(first: np.ndarray, fresh: np.ndarray, mode: str) -> np.ndarray:
    """Plan of the second response.

    Args:
        first: plans of the first responses, unit variance, shape (num_pairs, dim).
        fresh: independent plans of the same distribution and shape.
        mode: one of ``MODES``.
    """
    mixed: dict[str, np.ndarray] = {
        "iid": fresh,
        "neg": -0.7 * first + math.sqrt(0.51) * fresh,
        "near": first + 0.2 * fresh,
    }
    return mixed[mode]
