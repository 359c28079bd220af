"""TailAverage: serve the average of the last iterates of another strategy.

With a constant local step size the iterates of a federation circle around their limit; the average
of the last ones is nearer to it than any of them.

Source: Polyak and Juditsky 1992; suffix averaging as in Rakhlin et al. 2012, arXiv:1109.5647.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.maths.weights import weighted_sum, zeros
from fedpref.types import Arrival, ClientId, Fold, Fresh, Plan, Strategy, Weights

__all__ = ["TailAverage", "TailState"]


@dataclass(frozen=True, eq=False)
class TailState:
    """State: that of the inner strategy, its versions so far, the sum over the tail, and its mean."""

    inner: Any
    version: int
    starts_at: int
    total: Weights
    count: int
    mean: Weights


@dataclass(frozen=True)
class TailAverage:
    """Trains as ``inner`` does; serves and saves the mean of its last iterates.

    Attributes:
        inner: a strategy with one global model.
        fraction: share of the planned versions to average over, from the end.
    """

    inner: Strategy[Any]
    fraction: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ConfigurationError(f"strategy.fraction={self.fraction} is not in (0, 1]")

    def init(
        self, fresh: Fresh, clients: Sequence[ClientId], horizon: int, rng: np.random.Generator
    ) -> TailState:
        """Nothing averaged yet.

        Raises:
            ConfigurationError: the inner strategy has more than one model.
        """
        inner = self.inner.init(fresh, clients, horizon, rng)
        names = sorted(self.inner.models(inner))
        if names != ["global"]:
            raise ConfigurationError(
                f"TailAverage averages one global model, but its inner strategy has {names}"
            )
        starts_at = horizon - int(np.floor(horizon * self.fraction))
        model = self._model(inner)
        return TailState(inner, 0, starts_at, zeros(model), 0, model)

    def plan(
        self, state: TailState, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[TailState, Plan]:
        """The inner plan, on the inner iterate."""
        inner, plan = self.inner.plan(state.inner, idle, clock_s, rng)
        return replace(state, inner=inner), plan

    def fold(
        self, state: TailState, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator
    ) -> Fold:
        """The inner fold; its result joins the sum once the tail has begun."""
        fold = self.inner.fold(state.inner, arrivals, clock_s, rng)
        version = state.version + fold.updated
        after = replace(state, inner=fold.state, version=version)
        if version <= state.starts_at:
            after = replace(after, mean=self._model(fold.state))
        elif fold.updated:
            total = weighted_sum([state.total, self._model(fold.state)], [1.0, 1.0])
            count = state.count + 1
            mean = {key: (array / count).astype(np.float32) for key, array in total.items()}
            after = replace(after, total=total, count=count, mean=mean)
        return fold._replace(state=after)

    def models(self, state: TailState) -> Mapping[str, Weights]:
        """The mean of the tail; the current iterate while the tail has not begun."""
        return {"global": state.mean}

    def serve(self, state: TailState, client_id: ClientId | None) -> Sequence[Weights]:
        """The averaged model serves everybody."""
        return [state.mean]

    def _model(self, inner: Any) -> Weights:
        return self.inner.models(inner)["global"]
