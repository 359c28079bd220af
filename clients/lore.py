"""LoRe: a basis of heads that all share, and mixing weights on the simplex that are fitted at home.

Client u has the head ``w_u V`` with ``w_u = softmax(a_u)`` and V (B, H): a mixture of B tastes. In a task
it fits its weights with V fixed and then takes gradient steps on V with them fixed; nothing is kept. One
head has the weight 1, and is a Bradley-Terry head.

The weights minimise ``sum_i log(1 + exp(-w.f_i)) + ridge KL(w | prior)``, convex on the simplex, by
exponentiated gradient: its steps add to a_u, so the weights stay a softmax. The prior is the mean of the
clients' weights.

Source: Bose et al. 2025, "LoRe: Personalizing LLMs via Low-Rank Reward Modeling", arXiv:2504.14439; the
steps: Kivinen and Warmuth 1997, "Exponentiated gradient versus gradient descent". The prior is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedpref.clients.reward_features import basis_margins, check_basis, first_basis, train_basis
from fedpref.errors import ConfigurationError
from fedpref.models.backbone import Backbone
from fedpref.models.head_file import write_head
from fedpref.models.kept import feature_differences
from fedpref.objectives.local import require
from fedpref.objectives.margin import bradley_terry_pull
from fedpref.types import ClientState, Pairs, Reply, Shard, Task, Weights

__all__ = ["Lore", "simplex_fit"]

_HEAD, _BASIS, _MEAN = "score.weight", "basis.weight", "prior.mean"
_ITERATIONS = 100
_CONVERGED = 1e-14
"""Decrease of the objective, in nats, below which there is nothing to gain."""


@dataclass(frozen=True)
class Lore:
    """Shares ``basis.weight`` (B, H) and ``prior.mean`` (B,), the mean of the clients' mixing weights.

    What leaves a client: its basis after the local steps, and its weights as its own value of the mean; the
    server needs their mean over clients alone.
    A newcomer without pairs gets the mean weights.

    Attributes:
        backbone: gives the features.
        num_heads: B, heads in the basis; at most the dimension of the features.
        ridge: nats a nat of divergence from the mean weights costs.
        local_steps: gradient steps a task on the basis.
        batch_pairs: pairs a step; None means the whole shard.
        lr: step size.
        init_std: standard deviation of all initial heads but the first, which is zero.

    Raises:
        ConfigurationError: a value out of range, or more heads than the features have dimensions.
    """

    backbone: Backbone
    num_heads: int = 5
    ridge: float = 1.0
    local_steps: int = 5
    batch_pairs: int | None = None
    lr: float = 0.3
    init_std: float = 1.0

    def __post_init__(self) -> None:
        check_basis(self.num_heads, self.backbone.dim, self.ridge, self.local_steps, "num_heads")
        require(
            self.batch_pairs is None or self.batch_pairs >= 1, "batch_pairs", self.batch_pairs, "at least 1"
        )
        require(math.isfinite(self.lr) and self.lr > 0, "lr", self.lr, "positive and finite")
        require(self.init_std >= 0, "init_std", self.init_std, "at least 0")

    def fresh(self, rng: np.random.Generator) -> Weights:
        """The initial basis, and uniform mean weights, float32."""
        basis = first_basis(self.num_heads, self.backbone.dim, self.init_std, rng)
        return {_BASIS: basis, _MEAN: np.full(self.num_heads, 1 / self.num_heads, np.float32)}

    def warm(self, populations: Sequence[Pairs]) -> None:
        """Compute and keep the features of all these pairs, so that no worker has to."""
        for pairs in populations:
            feature_differences(self.backbone, pairs)

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        """Margin of each pair, shape (num_pairs,), float64: of a client's head, or of the mean weights."""
        return basis_margins(weights, feature_differences(self.backbone, pairs))

    def export(self, weights: Weights, folder: Path) -> None:
        """Write all of it, with the identity of its features."""
        write_head(folder, weights, self.backbone)

    def personalise(self, weights: Weights, shard: Shard | None, state: ClientState) -> Weights:
        """The client's own head, ``score.weight`` (1, H), float32."""
        if shard is None or len(shard.pairs) == 0:
            own = weights[_MEAN].astype(np.float64)
        else:
            own = self._fitted(weights, feature_differences(self.backbone, shard.pairs))
        return {_HEAD: (own @ weights[_BASIS].astype(np.float64)).astype(np.float32)[None]}

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        """Fit the mixing weights at home, then train the basis; metrics as of ``reward_features``.

        Raises:
            ConfigurationError: another kind of task, or weights that do not fit.
            FederationError: every step was skipped.
        """
        if task.kind != "train":
            raise ConfigurationError(f"client: lore cannot answer a task of kind '{task.kind}'")
        found = {key: array.shape for key, array in task.weights.items()}
        needed = {_BASIS: (self.num_heads, self.backbone.dim), _MEAN: (self.num_heads,)}
        if found != needed:
            raise ConfigurationError(f"client: lore needs weights of {needed}, got {found}")
        if len(shard.pairs) == 0:
            return Reply(dict(task.weights), 0, {}), state
        differences = feature_differences(self.backbone, shard.pairs)
        own = self._fitted(task.weights, differences)
        basis, metrics = train_basis(task, differences, own, self.local_steps, self.batch_pairs, self.lr, rng)
        return Reply({_BASIS: basis, _MEAN: own.astype(np.float32)}, len(shard.pairs), metrics), state

    def _fitted(self, weights: Weights, differences: np.ndarray) -> np.ndarray:
        features = differences @ weights[_BASIS].astype(np.float64).T
        return simplex_fit(features, weights[_MEAN].astype(np.float64), self.ridge)


def simplex_fit(features: np.ndarray, prior: np.ndarray, ridge: float) -> np.ndarray:
    """``argmin_w sum_i log(1 + exp(-w.f_i)) + ridge KL(w | prior)`` on the simplex, shape (B,).

    Each step halves until the objective falls.

    Args:
        features: f, the margin of each pair under each head, shape (num_pairs, B).
        prior: on the simplex, up to rounding; a head that it gives no weight keeps at least 1e-9.
        ridge: weight of the divergence, positive.
    """
    log_prior = np.log(np.maximum(prior, 1e-9))
    log_prior = log_prior - _log_sum_exp(log_prior)
    log_w, size = log_prior, 1 / ridge
    value = _divergent(features, log_w, log_prior, ridge)
    for _ in range(_ITERATIONS):
        gradient = -(bradley_terry_pull(features @ np.exp(log_w)) @ features) + ridge * (log_w - log_prior)
        trial_w = log_w - size * gradient
        trial_w = trial_w - _log_sum_exp(trial_w)
        trial = _divergent(features, trial_w, log_prior, ridge)
        if trial > value:
            size /= 2
            continue
        gain, log_w, value = value - trial, trial_w, trial
        if gain < _CONVERGED:
            break
    result: np.ndarray = np.exp(log_w)
    return result


def _log_sum_exp(logits: np.ndarray) -> float:
    return float(np.logaddexp.reduce(logits))


def _divergent(features: np.ndarray, log_w: np.ndarray, log_prior: np.ndarray, ridge: float) -> float:
    w = np.exp(log_w)
    return float(np.logaddexp(0.0, -(features @ w)).sum() + ridge * (w @ (log_w - log_prior)))
