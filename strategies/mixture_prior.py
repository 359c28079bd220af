"""The server of a mixture prior: one Gaussian first, then K components that start apart along its main axes.

Clients send moments of their own posterior (client=mixture_prior), whose running mean is an online EM
algorithm. Its first part fits one Gaussian, all components being equal; then the components are drawn apart,
and their covariance is held small until they have found their groups; in the last part all moments are
learned. Without a split it is FedAvg.

Source: Cappé and Moulines 2009, "On-line expectation-maximization algorithm for latent data models",
arXiv:0712.4273, for the running means. The split and its schedule are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.maths.combine import WeightedMean
from fedpref.maths.mixture import FIRST, SECOND, SHARES, apart, with_covariance
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.global_model import GlobalModel, Share
from fedpref.types import Arrival, ClientId, Combine, Fold, Fresh, Plan, Weights

__all__ = ["MixturePrior", "MixtureState"]

_NEVER = -1


@dataclass(frozen=True, eq=False)
class MixtureState:
    """State.

    Attributes:
        model: the moments.
        version: steps so far.
        splits_at: version that draws the components apart; -1 if none does.
        frees_at: version from which their covariance is learned again.
        within: covariance that is held in between; empty before the split and after.
    """

    model: GlobalModel
    version: int
    splits_at: int
    frees_at: int
    within: np.ndarray


@dataclass(frozen=True)
class MixturePrior:
    """FedAvg of moments with a small step, which makes them running means, and a split of the components.

    Attributes:
        cohort_size: clients a round; None is everybody.
        share: weight of a client; a prior is over people, so all are equal "clients".
        server_lr: step towards the cohort's mean; 1 forgets all earlier cohorts.
        combine: how the deltas become one.
        split_at: share of the run after which the components are drawn apart; None never does. One
            component is never split, and nothing is in the last round of a run.
        hold: share of the run during which their covariance is held after that.
        spread: part of the one Gaussian's covariance that is held within each component.

    Raises:
        ConfigurationError: a value out of range.
    """

    cohort_size: int | None = None
    share: Share = "clients"
    server_lr: float = 0.2
    combine: Combine = field(default_factory=WeightedMean)
    split_at: float | None = 0.25
    hold: float = 0.3
    spread: float = 0.2

    def __post_init__(self) -> None:
        _ = self.average  # its checks are ours
        if self.split_at is not None and not 0 < self.split_at < 1:
            raise ConfigurationError(
                f"strategy.split_at={self.split_at} must be a share between 0 and 1, or null"
            )
        if not 0 <= self.hold < 1 or (self.split_at or 0) + self.hold >= 1:
            raise ConfigurationError(
                f"strategy.hold={self.hold} with strategy.split_at={self.split_at} must leave some of the run"
            )
        if not 0 < self.spread < 1:
            raise ConfigurationError(f"strategy.spread={self.spread} must be between 0 and 1")

    @property
    def average(self) -> FedAvg:
        """The FedAvg that draws the cohort and steps."""
        return FedAvg(self.cohort_size, self.share, self.server_lr, self.combine)

    def init(
        self, fresh: Fresh, clients: Sequence[ClientId], horizon: int, rng: np.random.Generator
    ) -> MixtureState:
        """The initial moments.

        Raises:
            ConfigurationError: the population cannot fill the cohort, there are more components than clients,
                or the client rule has none.
        """
        model = self.average.init(fresh, clients, horizon, rng)
        if self.split_at is None:
            return MixtureState(model, 0, _NEVER, _NEVER, np.empty(0))
        if not {SHARES, FIRST, SECOND} <= model.weights.keys():
            raise ConfigurationError(
                f"strategy.split_at={self.split_at}: a mixture prior is to be split, but the client rule has "
                f"{', '.join(sorted(model.weights))}; choose client=mixture_prior, or strategy.split_at=null"
            )
        num_components = len(model.weights[SHARES])
        if num_components > len(clients):
            raise ConfigurationError(
                f"client.num_components={num_components} is more than the {len(clients)} clients; lower it"
            )
        if num_components == 1:
            return MixtureState(model, 0, _NEVER, _NEVER, np.empty(0))
        splits_at = max(1, round(self.split_at * horizon))
        if splits_at >= horizon:  # nobody could learn which group is whose
            return MixtureState(model, 0, _NEVER, _NEVER, np.empty(0))
        return MixtureState(model, 0, splits_at, splits_at + round(self.hold * horizon), np.empty(0))

    def plan(
        self, state: MixtureState, idle: Sequence[ClientId], clock_s: float, rng: np.random.Generator
    ) -> tuple[MixtureState, Plan]:
        """The cohort finds its posteriors under the current prior."""
        return state, self.average.plan(state.model, idle, clock_s, rng)[1]

    def fold(
        self, state: MixtureState, arrivals: Sequence[Arrival], clock_s: float, rng: np.random.Generator
    ) -> Fold:
        """Step along the mean of the moments; then split, or put the held covariance back."""
        fold = self.average.fold(state.model, arrivals, clock_s, rng)
        if not fold.updated:
            return fold._replace(state=replace(state, model=fold.state))
        version, moments, within = state.version + 1, fold.state.weights, state.within
        if version == state.splits_at:
            moments, within = apart(moments, self.spread, rng)
        elif state.splits_at < version < state.frees_at:
            moments = with_covariance(moments, within)
        if version >= state.frees_at:
            within = np.empty(0)
        model = replace(fold.state, weights=moments)
        return fold._replace(state=replace(state, model=model, version=version, within=within))

    def models(self, state: MixtureState) -> Mapping[str, Weights]:
        """The moments, as ``global``."""
        return {"global": state.model.weights}

    def serve(self, state: MixtureState, client_id: ClientId | None) -> Sequence[Weights]:
        """The moments serve everybody; clients find their heads at home."""
        return [state.model.weights]
