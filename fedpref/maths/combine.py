"""The weighted mean of deltas: how most strategies combine, and the exact operator for linear heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedpref.maths.deltas import sum_of_deltas
from fedpref.types import ClientId, Combined, Update, Weights

__all__ = ["WeightedMean", "normalised", "weight_metrics"]


def normalised(shares: Sequence[float]) -> list[float]:
    """Shares divided by their sum, so that they sum to one.

    Raises:
        ValueError: a share is negative or not finite, or all are zero.
    """
    total = float(np.sum(np.asarray(shares, dtype=np.float64)))
    if not np.isfinite(total) or total <= 0 or min(shares) < 0:
        raise ValueError(f"shares must be finite, not negative and not all zero, got {list(shares)}")
    return [float(share) / total for share in shares]


def weight_metrics(updates: Sequence[Update], shares: Sequence[float]) -> Mapping[str, float]:
    """For the log: sum and largest of the weights ``p_i factor_i``, and the effective number of updates.

    That is ``(sum w)^2 / sum w^2``: the number of updates where all weigh the same, towards 1 where one
    outweighs the others.
    """
    weights = np.asarray(normalised(shares)) * [update.factor for update in updates]
    total, squares = float(weights.sum()), float(np.sum(weights**2))
    return {
        "weight_sum": total,
        "weight_max": float(weights.max()),
        "effective_updates": total**2 / squares if squares > 0 else 0.0,
    }


@dataclass(frozen=True)
class WeightedMean:
    """``delta = sum_i p_i factor_i delta_i`` with ``p_i = shares_i / sum(shares)``, in float64.

    Applied to LoRA factors this is the operator "avg": A and B are averaged apart, and
    ``lora_interference`` in the log says how far that is from averaging the products BA. ``weight_sum`` is
    1, or less where updates are stale.

    Source: McMahan et al. 2017 (FedAvg), algorithm 1.
    """

    def init(self, clients: Sequence[ClientId]) -> None:
        """Nothing to remember."""

    def __call__(
        self,
        base: Weights,
        updates: Sequence[Update],
        shares: Sequence[float],
        cohort: Sequence[ClientId],
        rng: np.random.Generator,
        memory: None = None,
    ) -> Combined:
        """Average ``updates``; see ``fedpref.types.Combine``."""
        from fedpref.maths.lora import interference

        parts = normalised(shares)
        factors = [part * update.factor for part, update in zip(parts, updates, strict=True)]
        gap = interference(base, updates, parts)
        return Combined(
            sum_of_deltas(updates, factors),
            {"weight_sum": sum(factors), **({} if gap is None else {"lora_interference": gap})},
        )
