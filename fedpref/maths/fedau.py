"""FedAU: a mean over all clients from those who take part, at rates that nobody knows.

Client i is in a call with probability q_i. Dividing its update by q_i would make up for its absences; the
mean length of its past intervals between two participations estimates 1 / q_i. It is independent of who takes
part now, since the interval that ends now is left out.

Source: Wang and Ji 2024, "A Lightweight Method for Tackling Unknown Participation Statistics in Federated
Averaging", arXiv:2306.03401, algorithm 2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.maths.combine import WeightedMean, weight_metrics
from fedpref.types import ClientId, Combined, Update, Weights

__all__ = ["FedAU", "interval_weights", "intervals_after"]

Memory = Mapping[str, np.ndarray]


def interval_weights(memory: Memory) -> np.ndarray:
    """omega_i, shape (N,): the mean of client i's past intervals, 1 where it has none yet."""
    count = memory["intervals"]
    omegas: np.ndarray = np.where(count > 0, memory["length"] / np.maximum(count, 1), 1.0)
    return omegas


def intervals_after(memory: Memory, present: Sequence[ClientId], cutoff: int | None) -> dict[str, np.ndarray]:
    """One call more: the intervals of those ``present`` end, the others' grow and end at ``cutoff``.

    Args:
        memory: per client the calls since its last interval ended ("absent"), how many intervals it has
            ("intervals") and their total length ("length"), each of shape (N,).
        present: who took part.
        cutoff: longest interval; None is none.
    """
    current = memory["absent"] + 1
    ends = np.zeros(len(current), dtype=bool)
    ends[list(present)] = True
    if cutoff is not None:
        ends |= current >= cutoff
    return {
        "absent": np.where(ends, 0, current),
        "intervals": memory["intervals"] + ends,
        "length": memory["length"] + np.where(ends, current, 0),
    }


@dataclass(frozen=True)
class FedAU:
    """``delta = 1/N sum_i omega_i factor_i delta_i`` over those who took part; N counts everybody.

    With shares it is p_i for 1/N, where clients that were never seen count as average ones. Who always takes
    part has omega 1, so full participation is ``WeightedMean`` bit for bit. A client with several updates in
    one call took part once: each counts for its part. Rates are made up for, discounts of stale updates are
    not: for both together see ``ExpectedWeights``.

    Attributes:
        cutoff: an absence of so many calls counts as an interval. It bounds omega, and with it the variance,
            at the cost of clients that are rarer than that; None has no bound.
    """

    cutoff: int | None = 50

    def __post_init__(self) -> None:
        if self.cutoff is not None and self.cutoff < 1:
            raise ConfigurationError(f"combine.cutoff={self.cutoff} must be at least 1, or null")

    def init(self, clients: Sequence[ClientId]) -> Memory:
        """No interval has ended, shares are unknown (NaN)."""
        num_clients = len(clients)
        numbers = {name: np.zeros(num_clients) for name in ("absent", "intervals", "length")}
        return {**numbers, "share": np.full(num_clients, np.nan)}

    def __call__(
        self,
        base: Weights,
        updates: Sequence[Update],
        shares: Sequence[float],
        cohort: Sequence[ClientId],
        rng: np.random.Generator,
        memory: Memory,
    ) -> Combined:
        """Sum ``updates``; see ``fedpref.types.Combine``."""
        clients = [update.client_id for update in updates]
        share = memory["share"].copy()
        share[clients] = shares
        seen = share[~np.isnan(share)]
        of_all = seen.sum() * (len(share) / len(seen))  # unseen ones at the mean
        of_call = np.sum(np.asarray(shares, dtype=np.float64))
        scale = float(of_call / of_all)  # the mean divides by the shares of the call
        times = Counter(clients)
        omegas = interval_weights(memory)
        weighted = [
            replace(update, factor=update.factor * scale * float(omegas[client]) / times[client])
            for client, update in zip(clients, updates, strict=True)
        ]
        combined = WeightedMean()(base, weighted, shares, cohort, rng)
        after = {**intervals_after(memory, clients, self.cutoff), "share": share}
        return combined._replace(
            metrics={**combined.metrics, **weight_metrics(weighted, shares)}, memory=after
        )
