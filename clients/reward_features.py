"""Reward features: a basis of heads that all share, and weights on it that are fitted at home.

Client u has the head ``w_u V``, V (B, H). In a task it fits w_u with V fixed, a convex problem, and then
takes gradient steps on V with w_u fixed. Weights that were fitted to an older V are worth nothing: they are
fitted again whenever they are needed, and nothing is kept.

Source: Barreto et al. 2025, "Capturing Individual Human Preferences with Reward Features",
arXiv:2503.17338; the federated rounds are those of FedRep, arXiv:2102.07078.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.models.backbone import Backbone
from fedpref.models.head_file import write_head
from fedpref.models.kept import feature_differences
from fedpref.objectives.batches import batches
from fedpref.objectives.convex import laplace
from fedpref.objectives.local import reported_loss, require, require_progress, steps_and_mu
from fedpref.objectives.margin import bradley_terry_pull
from fedpref.types import ClientState, Pairs, Reply, Shard, Task, Weights

__all__ = ["RewardFeatures", "basis_margins", "check_basis", "first_basis", "train_basis"]

_HEAD, _BASIS, _MEAN, _SECOND = "score.weight", "basis.weight", "prior.mean", "prior.second"
_LEAST_VARIANCE = 0.01


@dataclass(frozen=True)
class RewardFeatures:
    """Shares ``basis.weight`` (B, H), and a Gaussian prior of the weights on it, which are unconstrained.

    What leaves a client: its basis after the local steps, its weights as its own value of ``prior.mean``
    (B,), and with ``learn_prior`` their outer product plus their posterior covariance as ``prior.second``
    (B, B). The server needs their means over clients alone, and secure aggregation would show it no more;
    without it, whoever reads a single message reads that client's weights.
    A newcomer without pairs gets the mean weights.

    Attributes:
        backbone: gives the features.
        num_features: B, heads in the basis; at most the dimension of the features.
        ridge: precision of the weights around the population's mean; at the start, where it is learned.
        learn_prior: learn the covariance of the weights, too.
        local_steps: gradient steps a task on the basis.
        batch_pairs: pairs a step; None means the whole shard.
        lr: step size.
        init_std: standard deviation of all initial heads but the first, which is zero and has the prior's
            whole weight: the first steps train it as the global head.

    Raises:
        ConfigurationError: a value out of range, or more heads than the features have dimensions.
    """

    backbone: Backbone
    num_features: int = 5
    ridge: float = 4.0
    learn_prior: bool = False
    local_steps: int = 5
    batch_pairs: int | None = None
    lr: float = 0.3
    init_std: float = 0.3

    def __post_init__(self) -> None:
        check_basis(self.num_features, self.backbone.dim, self.ridge, self.local_steps)
        require(
            self.batch_pairs is None or self.batch_pairs >= 1, "batch_pairs", self.batch_pairs, "at least 1"
        )
        require(math.isfinite(self.lr) and self.lr > 0, "lr", self.lr, "positive and finite")
        require(self.init_std >= 0, "init_std", self.init_std, "at least 0")

    def fresh(self, rng: np.random.Generator) -> Weights:
        """The initial basis and prior, float32."""
        mean = np.eye(self.num_features, dtype=np.float32)[0]
        weights = {
            _BASIS: first_basis(self.num_features, self.backbone.dim, self.init_std, rng),
            _MEAN: mean,
        }
        if self.learn_prior:
            spread = np.eye(self.num_features, dtype=np.float32) / np.float32(self.ridge)
            weights[_SECOND] = np.outer(mean, mean) + spread
        return weights

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
            own = self._fitted(weights, feature_differences(self.backbone, shard.pairs))[0]
        return {_HEAD: (own @ weights[_BASIS].astype(np.float64)).astype(np.float32)[None]}

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        """Fit the weights at home, then train the basis.

        Metrics: ``loss_before`` (the fitted weights on the received basis) and ``loss_after`` on all training
        pairs, ``steps_done``, ``skipped_steps``, ``flops`` (of the steps on the basis).

        Raises:
            ConfigurationError: another kind of task, or weights that do not fit.
            FederationError: every step was skipped.
        """
        if task.kind != "train":
            raise ConfigurationError(f"client: reward_features cannot answer a task of kind '{task.kind}'")
        found = {key: array.shape for key, array in task.weights.items()}
        needed = {key: array.shape for key, array in self.fresh(np.random.default_rng(0)).items()}
        if found != needed:
            raise ConfigurationError(f"client: reward_features needs weights of {needed}, got {found}")
        if len(shard.pairs) == 0:
            return Reply(dict(task.weights), 0, {}), state
        differences = feature_differences(self.backbone, shard.pairs)
        own, covariance = self._fitted(task.weights, differences)
        basis, metrics = train_basis(task, differences, own, self.local_steps, self.batch_pairs, self.lr, rng)
        sent = {_BASIS: basis, _MEAN: own.astype(np.float32)}
        if self.learn_prior:
            sent[_SECOND] = (np.outer(own, own) + covariance).astype(np.float32)
        return Reply(sent, len(shard.pairs), metrics), state

    def _fitted(self, weights: Weights, differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The client's weights and their posterior covariance."""
        mean = weights[_MEAN].astype(np.float64)
        precision = self.ridge * np.eye(self.num_features)
        if self.learn_prior:
            values, vectors = np.linalg.eigh(weights[_SECOND].astype(np.float64) - np.outer(mean, mean))
            precision = (vectors / np.maximum(values, _LEAST_VARIANCE)) @ vectors.T
        posterior = laplace(differences @ weights[_BASIS].astype(np.float64).T, mean, precision)
        return posterior.weights, posterior.covariance


def check_basis(num_heads: int, dim: int, ridge: float, local_steps: int, key: str = "num_features") -> None:
    """Check the options that all rules with a basis have.

    Raises:
        ConfigurationError: a value out of range.
    """
    require(1 <= num_heads <= dim, key, num_heads, f"from 1 to {dim}, the features' dimension")
    require(math.isfinite(ridge) and ridge > 0, "ridge", ridge, "positive and finite")
    require(local_steps >= 0, "local_steps", local_steps, "at least 0")


def first_basis(num_heads: int, dim: int, init_std: float, rng: np.random.Generator) -> np.ndarray:
    """A zero head, and Gaussian ones after it, shape (num_heads, dim), float32."""
    basis = init_std * rng.standard_normal((num_heads, dim))
    basis[0] = 0.0
    return basis.astype(np.float32)


def basis_margins(weights: Weights, differences: np.ndarray) -> np.ndarray:
    """Margins of a client's ``score.weight``, or else of the population's mean weights on the basis."""
    if _HEAD in weights:
        head = weights[_HEAD][0].astype(np.float64)
    else:
        head = weights[_MEAN].astype(np.float64) @ weights[_BASIS].astype(np.float64)
    margins: np.ndarray = differences @ head
    return margins


def train_basis(
    task: Task,
    differences: np.ndarray,
    own: np.ndarray,
    local_steps: int,
    batch_pairs: int | None,
    lr: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, dict[str, float]]:
    """Gradient steps on the basis with a client's weights fixed, in float64.

    Args:
        task: holds ``basis.weight``, shape (B, H); its settings may give ``local_steps``, ``proximal_mu``.
        differences: z, shape (num_pairs, H), at least one pair.
        own: the client's weights on the basis, shape (B,).
        local_steps: the rule's own number, where the settings have none.
        batch_pairs: pairs a step; None means all.
        lr: step size.
        rng: draws the batches.

    Returns:
        The basis after the steps, float32, and metrics.

    Raises:
        FederationError: every step was skipped.
    """
    steps, mu = steps_and_mu(task.settings, local_steps, lr)
    received = task.weights[_BASIS].astype(np.float64)
    basis, skipped, seen_pairs = received.copy(), 0, 0
    for rows in batches(len(differences), batch_pairs, steps, rng):
        z = differences[rows]
        seen_pairs += len(rows)
        by_head = -(bradley_terry_pull(z @ (own @ basis)) @ z) / len(z)
        gradient = np.outer(own, by_head)
        if mu > 0:
            gradient = gradient + mu * (basis - received)
        if not np.isfinite(gradient).all():
            skipped += 1
            continue
        basis = basis - lr * gradient
    require_progress(steps, skipped)
    metrics = {
        **reported_loss("loss_before", differences @ (own @ received)),
        **reported_loss("loss_after", differences @ (own @ basis)),
        "steps_done": float(steps - skipped),
        "skipped_steps": float(skipped),
        "flops": 4.0 * differences.shape[1] * (seen_pairs + len(differences)),
    }
    return basis.astype(np.float32), metrics
