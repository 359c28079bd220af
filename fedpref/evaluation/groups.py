"""Do the groups that a strategy found match the people's own, and do its models differ at all?

Group numbers are arbitrary names: both indices compare who is together with whom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fedpref.types import ClientId

__all__ = ["Agreement", "Grouping", "adjusted_rand_index", "agreement", "normalised_mutual_information"]


@runtime_checkable
class Grouping(Protocol):
    """A strategy that sorts its clients into groups, each served by a model of its own."""

    def groups(self, state: Any) -> Mapping[ClientId, int]:
        """Group of every client that has one."""
        ...


@dataclass(frozen=True, eq=False)
class Agreement:
    """How often the models of a strategy choose alike.

    Attributes:
        models: their names.
        shares: share of the held-out pairs on which model i and model j choose the same response,
            shape (num_models, num_models).
    """

    models: Sequence[str]
    shares: np.ndarray

    def as_json(self) -> dict[str, Any]:
        """Names, and one row of shares a model."""
        return {"models": list(self.models), "shares": self.shares.tolist()}


def adjusted_rand_index(found: Sequence[int], true: Sequence[int]) -> float:
    """Share of pairs of clients on which two groupings agree, corrected for chance.

    1 for equal groupings, about 0 for independent ones, below 0 for worse than chance.

    Source: Hubert and Arabie 1985.
    """
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(true, found))


def normalised_mutual_information(found: Sequence[int], true: Sequence[int]) -> float:
    """Mutual information of two groupings over the mean of their entropies, in [0, 1].

    Not corrected for chance: many small groups score well, so read it beside the Rand index.

    Source: Strehl and Ghosh 2002, with the arithmetic mean.
    """
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(true, found))


def agreement(margins: np.ndarray) -> np.ndarray:
    """Share of pairs on which each two models choose the same response.

    A margin of zero is a coin that each model tosses for itself, so it agrees with any other model half
    of the time; with itself a model always agrees.

    Args:
        margins: shape (num_models, num_pairs), at least one pair.

    Returns:
        Shape (num_models, num_models), symmetric, with ones on the diagonal.

    Raises:
        ValueError: there are no pairs.
    """
    num_models, num_pairs = margins.shape
    if num_pairs == 0:
        raise ValueError("there are no pairs to agree on")
    signs = np.sign(margins)
    shares = (1.0 + signs @ signs.T / num_pairs) / 2.0
    shares[np.diag_indices(num_models)] = 1.0
    return np.asarray(shares)
