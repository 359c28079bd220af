"""How much of what people really differ in lies in the directions that a rule shares; needs the truth.

A rule of low rank can serve heads in the span of its shared tensors alone. It is held against the true
tastes: against their main directions, as many as it has itself, by principal angles, and by the share of the
tastes that lies in it. The last main directions hold next to nothing of the tastes and are hardest to find,
so an angle near 90 degrees may cost little; the share tells what it costs.

Source: Collins et al. 2021, arXiv:2102.07078, who measure a shared representation by its principal angle
distance from the true one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fedpref.evaluation.metrics import main_directions, principal_angles, span_recovery
from fedpref.types import ClientRule, Population, Strategy, Weights

__all__ = ["KnowsTastes", "SpanRecovery", "Spans", "recovered_span", "span_recovery_of"]


@runtime_checkable
class Spans(Protocol):
    """A client rule whose shared tensors span all heads that it can serve."""

    def span(self, weights: Weights) -> np.ndarray:
        """Columns that span the heads, in the coordinates of the features, shape (dim, num_columns)."""
        ...


@runtime_checkable
class KnowsTastes(Protocol):
    """A truth that may know the heads that people really have."""

    def tastes(self) -> np.ndarray | None:
        """The direction of each held-out set's owner in the coordinates of the responses.

        Columns, shape (dim, num_sets); None where responses are no vectors in which tastes are linear.
        """
        ...


@dataclass(frozen=True)
class SpanRecovery:
    """A shared span against true tastes.

    Attributes:
        angles_deg: principal angles to the main directions of the tastes, ascending, in degrees; as many as
            the smaller of both spans has dimensions.
        held: share of the tastes that lies in the span: of the sum of their squared lengths.
        best: the same of the best span of that dimension.
        random: the same of a random span, on average over rotations.
    """

    angles_deg: Sequence[float]
    held: float
    best: float
    random: float

    def as_json(self) -> dict[str, Any]:
        """Plain data, for a record."""
        return {**vars(self), "angles_deg": list(self.angles_deg)}


def recovered_span(
    rule: ClientRule, strategy: Strategy[Any], state: Any, population: Population
) -> SpanRecovery | None:
    """What the served model spans, against the tastes of the people who are clients.

    None where the rule or the truth knows no directions, several models are served, the tastes have another
    dimension, or nothing is spanned yet.
    """
    truth = population.truth
    if not isinstance(rule, Spans) or not isinstance(truth, KnowsTastes):
        return None
    models, tastes = strategy.serve(state, None), truth.tastes()
    if tastes is None or len(models) != 1:
        return None
    found = rule.span(models[0])
    known = [index for index, person in enumerate(population.held_out) if person.client_id is not None]
    if not known or len(found) != len(tastes) or not np.any(found):
        return None
    return span_recovery_of(found, tastes[:, known])


def span_recovery_of(found: np.ndarray, tastes: np.ndarray) -> SpanRecovery:
    """A span against the tastes.

    Args:
        found: columns, shape (dim, num_columns), not all zero; they may depend on each other.
        tastes: columns, shape (dim, num_people), not all zero.
    """
    basis, directions = main_directions(found), main_directions(tastes)
    num_found = basis.shape[1]
    angles = principal_angles(basis, directions[:, :num_found])
    return SpanRecovery(
        angles_deg=[float(angle) for angle in np.degrees(angles)],
        held=span_recovery(basis, tastes),
        best=span_recovery(directions[:, :num_found], tastes),
        random=num_found / len(tastes),
    )
