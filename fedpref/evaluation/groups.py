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


_ROUNDING = 1e-12
"""Nats of mutual information that are none."""


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
    together = _clients_together(found, true)
    in_both, in_found, in_true, in_all = (
        float((counts * (counts - 1) / 2).sum())
        for counts in (together, together.sum(axis=1), together.sum(axis=0), together.sum())
    )
    if in_both == in_found == in_true:
        return 1.0
    by_chance = in_found * in_true / in_all
    return (in_both - by_chance) / ((in_found + in_true) / 2 - by_chance)


def normalised_mutual_information(found: Sequence[int], true: Sequence[int]) -> float:
    """Mutual information of two groupings over the mean of their entropies, in [0, 1].

    Not corrected for chance: many small groups score well, so read it beside the Rand index.

    Source: Strehl and Ghosh 2002, with the arithmetic mean.
    """
    together = _clients_together(found, true)
    if together.size <= 1:
        return 1.0
    joint = together / together.sum()
    of_found, of_true = joint.sum(axis=1), joint.sum(axis=0)
    shared = _entropy(of_found) + _entropy(of_true) - _entropy(joint)
    if shared < _ROUNDING:
        return 0.0
    return 2 * shared / (_entropy(of_found) + _entropy(of_true))


def _clients_together(found: Sequence[int], true: Sequence[int]) -> np.ndarray:
    """How many clients are in each found and each true group, one row a found one, float64."""
    (of_found, rows), (of_true, columns) = (np.unique(each, return_inverse=True) for each in (found, true))
    counts = np.zeros((len(of_found), len(of_true)))
    np.add.at(counts, (rows, columns), 1)
    return counts


def _entropy(shares: np.ndarray) -> float:
    """In nats."""
    some = shares[shares > 0]
    return float(-(some * np.log(some)).sum())


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
