"""Expected weights: an asynchronous mean without its bias to the clients that answer often and soon.

Where client i gives the plain mean the mass ``m_i = f_i E[s_i]`` a call (its rate, times what its staleness
leaves of it), the federation minimises ``sum_i m_i F_i`` and not ``sum_i p_i F_i``: fast devices decide. Here
every update is multiplied by ``p_i sum_j m_j / m_i``, so that all clients weigh as their shares say, while
the mean step stays as long as the strategy made it. Nobody knows f_i and s_i; both are counted.

Source: Fraboni et al. 2023, "A General Theory for Federated Optimization with Asynchronous and
Heterogeneous Clients Updates", arXiv:2206.10189: surrogate weights q_i proportional to f_i d_i, and q = p.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.maths.combine import WeightedMean, normalised, weight_metrics
from fedpref.types import ClientId, Combined, Update, Weights

__all__ = ["ExpectedWeights", "mass_ratios"]

Memory = Mapping[str, np.ndarray]


def mass_ratios(
    updates: np.ndarray, discount: np.ndarray, relative_share: np.ndarray, prior: float
) -> np.ndarray:
    """By how much each client's updates must grow so that all give mass in proportion to their shares.

    With n_i past updates, x_i the share over the mean share, s_i the discount, and a prior of some updates
    for everybody, the ratio is ``x_i (mean(n) + prior) / (n_i + x_i prior)``, times the mean discount over
    s_i. It is 1 where nothing is known and ``p_i sum_j m_j / m_i`` in the long run. With prior 1 it is right
    on average before that too: after t calls in which a client takes part with probability q,
    ``E[1 / (n + 1)] = (1 - (1 - q)^(t + 1)) / (q (t + 1))``, while the mean of 1 / n would be too large.

    Args:
        updates: n_i, shape (N,).
        discount: s_i, shape (N,); NaN for clients without updates, who get the mean.
        relative_share: x_i, shape (N,), with mean 1.
        prior: updates, above 0.

    Returns:
        Ratios, shape (N,).
    """
    own = updates + relative_share * prior
    rarity = relative_share * (updates.mean() + prior) / np.where(own > 0, own, 1.0)  # a share of 0 weighs 0
    total = updates.sum()
    if total == 0:
        return np.asarray(rarity)
    mean_discount = np.nansum(updates * discount) / total
    return np.asarray(rarity * np.where(np.isnan(discount), 1.0, mean_discount / discount))


@dataclass(frozen=True)
class ExpectedWeights:
    """The weighted mean, each update times ``p_i sum_j m_j / m_i``, with m_i counted over past calls.

    For every strategy that combines, whatever the number of updates a call: FedBuff's ten, FedAsync's one
    (whose factor, not the share within the call, carries the step), FedAvg's cohort. The first call is the
    plain mean bit for bit, and so to rounding is every call before which all clients took equal part; with
    equal rates and discounts it is the limit. Weights of one call need not sum to what the plain ones do;
    over many calls they do on average. (Made to in every call they would be biased again, and all 1 for
    FedAsync.)

    Attributes:
        prior: updates that everybody is credited with from the start; more of it is steadier and slower.
        max_ratio: most that an update may grow. It bounds the step of a client that is heard for the first
            time late in a run; one that is truly rarer stays short of its share.
        max_sum: most that the weights of one call may sum to, relative to the plain mean's or to 1, whichever
            is more: where the slow ones arrive in waves, or one at a time, the model shall not be thrown far
            beyond what they sent. Such calls stay short.
    """

    prior: float = 1.0
    max_ratio: float = 20.0
    max_sum: float = 1.5

    def __post_init__(self) -> None:
        if not 0 < self.prior < np.inf:
            raise ConfigurationError(f"combine.prior={self.prior} must be a number above 0")
        for name in ("max_ratio", "max_sum"):
            if not getattr(self, name) >= 1:
                raise ConfigurationError(f"combine.{name}={getattr(self, name)} must be 1 or more")

    def init(self, clients: Sequence[ClientId]) -> Memory:
        """No update, no mass, shares unknown (NaN)."""
        num_clients = len(clients)
        return {
            "num_updates": np.zeros(1),
            "parts": np.zeros(num_clients),
            "mass": np.zeros(num_clients),
            "share": np.full(num_clients, np.nan),
        }

    def __call__(
        self,
        base: Weights,
        updates: Sequence[Update],
        shares: Sequence[float],
        cohort: Sequence[ClientId],
        rng: np.random.Generator,
        memory: Memory,
    ) -> Combined:
        """Average ``updates``; see ``fedpref.types.Combine``."""
        clients = [update.client_id for update in updates]
        share = memory["share"].copy()
        share[clients] = shares
        ratios = np.minimum(self._ratios(memory, share), self.max_ratio)
        plain = weight_metrics(updates, shares)["weight_sum"]
        weighted = _times(updates, [float(ratios[client]) for client in clients])
        weight_sum = weight_metrics(weighted, shares)["weight_sum"]
        limit = self.max_sum * max(1.0, plain)
        if weight_sum > limit:
            weighted = _times(weighted, [limit / weight_sum] * len(weighted))
        combined = WeightedMean()(base, weighted, shares, cohort, rng)
        return combined._replace(
            metrics={**combined.metrics, **weight_metrics(weighted, shares)},
            memory=_remembered(memory, share, updates, shares),
        )

    def _ratios(self, memory: Memory, share: np.ndarray) -> np.ndarray:
        """Of each client, from what past calls would have been as plain means."""
        parts, mass = memory["parts"], memory["mass"]
        heard = mass > 0
        total = parts.sum()
        # so that the count of all clients is the true one, whatever the shares and the size of each call
        updates = parts * (memory["num_updates"][0] / total) if total > 0 else parts
        discount = np.where(heard, mass / np.where(heard, parts, 1.0), np.nan)
        relative_share = np.where(np.isnan(share), 1.0, share / np.nanmean(share))
        return mass_ratios(updates, discount, relative_share, self.prior)


def _times(updates: Sequence[Update], ratios: Sequence[float]) -> list[Update]:
    return [
        replace(update, factor=update.factor * ratio) for update, ratio in zip(updates, ratios, strict=True)
    ]


def _remembered(
    memory: Memory, share: np.ndarray, updates: Sequence[Update], shares: Sequence[float]
) -> Memory:
    parts, mass = memory["parts"].copy(), memory["mass"].copy()
    for update, part in zip(updates, normalised(shares), strict=True):
        parts[update.client_id] += part
        mass[update.client_id] += part * update.factor
    num_updates = memory["num_updates"] + np.count_nonzero(shares)
    return {"num_updates": num_updates, "parts": parts, "mass": mass, "share": share}
