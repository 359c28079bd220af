"""A hierarchical prior over personal heads, learned from the clients that take part.

Heads are drawn from a mixture of K Gaussians, ``w_u ~ sum_k pi_k N(m_k, C)``. A client finds its most
probable head under each component, a convex problem, and by Laplace's method its posterior covariance and
the evidence of its labels; the evidences say how likely it belongs to which component (E-step). It sends the
moments of that posterior. Their mean over clients is what the M-step needs; a server step below 1 keeps it
as a running mean: an online EM algorithm. With one component this is empirical Bayes: the prior learns along
which directions people differ, and how much. All components start equal, so that they are one Gaussian until
the server of strategy=mixture_prior draws them apart.

The components share one covariance: groups are rarely large enough to have one each.

Source: Laird and Ware 1982, "Random-effects models for longitudinal data" (EM for a Gaussian prior);
MacKay 1992 (Laplace evidence); Cappé and Moulines 2009, "On-line expectation-maximization algorithm for
latent data models", arXiv:0712.4273 (running means of statistics).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.models.backbone import Backbone
from fedpref.models.head_file import write_head
from fedpref.models.kept import feature_differences
from fedpref.objectives.blocks import Blocks, once_each, stacks
from fedpref.objectives.convex import Posterior, laplace, laplace_flops, precision_flops, precision_of
from fedpref.objectives.convex_cohort import Posteriors, laplaces, mean_losses
from fedpref.objectives.local import reported_loss, require
from fedpref.types import ClientState, Pairs, Reply, Shard, Task, Weights, Workload

__all__ = ["MixturePrior", "Prior", "prior_of"]

_HEAD, _WEIGHT, _FIRST, _SECOND = "score.weight", "prior.weight", "prior.first", "prior.second"
_MOST_FULL = 64
"""Features up to which a covariance is learned whole."""


class Prior(NamedTuple):
    """A mixture of Gaussians with one covariance.

    Attributes:
        weights: pi, shape (K,), sums to 1.
        means: m, shape (K, H).
        precision: inverse of C, shape (H, H) or its diagonal (H,).
    """

    weights: np.ndarray
    means: np.ndarray
    precision: np.ndarray


@dataclass(frozen=True)
class MixturePrior:
    """Shares the moments of a mixture prior; made for strategy=mixture_prior, which keeps running means.

    Under FedAvg as it is, clients weigh by their pairs, the prior is that of the last cohort alone, and the
    components never part.

    What leaves a client, as its own value of a running mean: its probabilities of the components,
    ``prior.weight`` (K,); its head under each, times them, ``prior.first`` (K, H); and the second moment of
    its posterior, ``prior.second`` (H, H), or its diagonal (H,). So whoever reads a single message reads the
    personal head; only under secure aggregation does it stay at home, and no more than moments of a cohort
    leave. The mean head serves newcomers without pairs.

    A full covariance takes H x H numbers: right for some dozen features. A diagonal learns the mean, and how
    much people differ in each feature, but no directions across features.

    Attributes:
        backbone: gives the features.
        num_components: K; more than there are groups does no harm, and avoids bad starts.
        init_variance: initial variance of a head around its component's mean, in every direction.
        least_variance: floor of the covariance's eigenvalues: nobody is taken to be exactly like others.
        least_weight: floor of a component's weight, before they are made to sum to 1: none dies early.
        covariance: "full", "diagonal", or "auto": full for up to 64 features.

    Raises:
        ConfigurationError: a value out of range.
    """

    backbone: Backbone
    num_components: int = 6
    init_variance: float = 1.0
    least_variance: float = 0.02
    least_weight: float = 0.02
    covariance: Literal["full", "diagonal", "auto"] = "auto"

    def __post_init__(self) -> None:
        count = self.num_components
        require(count >= 1, "num_components", count, "at least 1")
        for key in ("init_variance", "least_variance"):
            value = getattr(self, key)
            require(math.isfinite(value) and value > 0, key, value, "positive and finite")
        require(0 < self.least_weight < 1, "least_weight", self.least_weight, "above 0 and below 1")
        kinds = ("full", "diagonal", "auto")
        require(self.covariance in kinds, "covariance", self.covariance, "full, diagonal or auto")

    @property
    def is_diagonal(self) -> bool:
        """The covariance is."""
        wide = self.covariance == "auto" and self.backbone.dim > _MOST_FULL
        return wide or self.covariance == "diagonal"

    def fresh(self, rng: np.random.Generator) -> Weights:
        """The moments of the initial prior, float32."""
        count, dim = self.num_components, self.backbone.dim
        second = self.init_variance * (np.ones(dim) if self.is_diagonal else np.eye(dim))
        moments = {_WEIGHT: np.full(count, 1 / count), _FIRST: np.zeros((count, dim)), _SECOND: second}
        return {key: array.astype(np.float32) for key, array in moments.items()}

    def needs_clients(self) -> tuple[str, int]:
        """As many as components, or some are nobody's."""
        return "num_components", self.num_components

    def warm(self, populations: Sequence[Pairs]) -> None:
        """Compute and keep the features of all these pairs, so that no worker has to."""
        for pairs in populations:
            feature_differences(self.backbone, pairs)

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        """Margin of each pair, shape (num_pairs,), float64: of a client's head, or of the mean head."""
        head = weights[_HEAD][0] if _HEAD in weights else _mean_head(weights)
        margins: np.ndarray = feature_differences(self.backbone, pairs) @ head.astype(np.float64)
        return margins

    def export(self, weights: Weights, folder: Path) -> None:
        """Write the moments, with the identity of the features."""
        write_head(folder, weights, self.backbone)

    def personalise(self, weights: Weights, shard: Shard | None, state: ClientState) -> Weights:
        """The client's posterior mean head, ``score.weight`` (1, H), float32: all components have a say."""
        if shard is None or len(shard.pairs) == 0:
            head = _mean_head(weights)
        else:
            prior = self._prior(weights)
            chances, posteriors = _posterior(prior, feature_differences(self.backbone, shard.pairs))
            head = chances @ np.stack([posterior.weights for posterior in posteriors])
        return {_HEAD: head.astype(np.float32)[None]}

    def personalise_cohort(
        self, weights: Sequence[Weights], shards: Sequence[Shard | None], states: Sequence[ClientState]
    ) -> Sequence[Weights]:
        """As ``personalise`` for each: under full covariances all posteriors are found together."""
        served: dict[int, Weights] = {}
        together: dict[int, np.ndarray] = {}
        for i, (model, shard, state) in enumerate(zip(weights, shards, states, strict=True)):
            differences = None if shard is None else feature_differences(self.backbone, shard.pairs)
            if differences is not None and self._is_stacked(differences):
                together[i] = differences
            else:
                served[i] = self.personalise(model, shard, state)
        for stack in stacks(together, self.backbone.dim**2):
            chances, found = self._posteriors([weights[i] for i in stack], Blocks.of(list(stack.values())))
            heads = (chances[:, None] @ found.weights).astype(np.float32)
            served.update({i: {_HEAD: head} for i, head in zip(stack, heads, strict=True)})
        return [served[i] for i in range(len(weights))]

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        """The moments of the client's posterior (E-step).

        Metrics: ``loss_before`` of the mean head and ``loss_after`` of the client's own, on its pairs;
        ``flops`` (as many as ``workload`` says, or more).

        Raises:
            ConfigurationError: another kind of task, or weights that do not fit.
        """
        self._check(task)
        if len(shard.pairs) == 0:
            return Reply(dict(task.weights), 0, {}), state
        differences = feature_differences(self.backbone, shard.pairs)
        prior = self._prior(task.weights)
        chances, posteriors = _posterior(prior, differences)
        heads = np.stack([posterior.weights for posterior in posteriors])
        losses = {
            **reported_loss("loss_before", differences @ _mean_head(task.weights)),
            **reported_loss("loss_after", differences @ (chances @ heads)),
        }
        spread = np.stack([posterior.covariance for posterior in posteriors])
        flops = sum(posterior.flops for posterior in posteriors)
        return self._reply(len(shard.pairs), _moments(chances, heads, spread), losses, flops), state

    def answer_cohort(
        self,
        tasks: Sequence[Task],
        shards: Sequence[Shard],
        states: Sequence[ClientState],
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[tuple[Reply, ClientState]]:
        """As ``answer`` for each: under full covariances all posteriors are found together."""
        replies: dict[int, Reply] = {}
        together: dict[int, np.ndarray] = {}
        for i, (task, shard, state, rng) in enumerate(zip(tasks, shards, states, rngs, strict=True)):
            self._check(task)
            differences = feature_differences(self.backbone, shard.pairs)
            if self._is_stacked(differences):
                together[i] = differences
            else:
                replies[i], _ = self.answer(task, shard, state, rng)
        for stack in stacks(together, self.backbone.dim**2):
            received = [tasks[i].weights for i in stack]
            replies.update(zip(stack, self._together(received, list(stack.values())), strict=True))
        return [(replies[i], state) for i, state in enumerate(states)]

    def _is_stacked(self, differences: np.ndarray) -> bool:
        """A client with these pairs is computed together with others."""
        return not self.is_diagonal and len(differences) > 0 and bool(np.isfinite(differences).all())

    def _posteriors(self, received: Sequence[Weights], blocks: Blocks) -> tuple[np.ndarray, Posteriors]:
        """As the function ``_posterior`` for each of many clients."""
        priors = once_each(received, self._prior)
        shares, means, precisions = (np.stack(part) for part in zip(*priors, strict=True))
        found = laplaces(blocks, means, precisions)
        return _chances(shares, found.log_evidences), found

    def _together(self, received: Sequence[Weights], differences: Sequence[np.ndarray]) -> list[Reply]:
        blocks = Blocks.of(differences)
        chances, found = self._posteriors(received, blocks)
        own, shared = chances[:, None] @ found.weights, np.stack(once_each(received, _mean_head))
        losses = mean_losses(blocks, np.concatenate([shared[:, None], own], axis=1)).tolist()
        moments = _moments(chances, found.weights, found.covariances)
        counted = zip(blocks.counts.tolist(), losses, found.flops.sum(axis=1).tolist(), strict=True)
        return [
            self._reply(
                num_pairs,
                {key: array[i] for key, array in moments.items()},
                {"loss_before": before, "loss_after": after},
                flops,
            )
            for i, (num_pairs, (before, after), flops) in enumerate(counted)
        ]

    def workload(self, task: Task, shard: Shard) -> Workload:
        """Least operations, with one Newton direction a component; features are taken as kept.

        A task that is refused is no work. Memory, float64: the features of the shard twice, and the matrices
        of the prior, of a solve and of each posterior, or their diagonals.
        """
        num_pairs, count, dim = len(shard.pairs), self.num_components, self.backbone.dim
        if task.kind != "train" or num_pairs == 0:
            return Workload(0.0, 0.0)
        fits = count * laplace_flops(num_pairs, dim, self.is_diagonal)
        solved = dim * (min(num_pairs, dim) if self.is_diagonal else dim)
        entries = 2 * num_pairs * dim + 3 * solved + count * (dim if self.is_diagonal else dim**2)
        return Workload(self._flops(num_pairs, fits), 8.0 * entries)

    def _flops(self, num_pairs: int, fits: float) -> float:
        # Beside the fits: the prior, the products of means in both second moments, the mean of the
        # posteriors' covariances, and the losses of two heads.
        dim = self.backbone.dim
        products = 6.0 * self.num_components * (dim if self.is_diagonal else dim**2) + 4.0 * num_pairs * dim
        return precision_flops(dim, self.is_diagonal) + products + fits

    def _check(self, task: Task) -> None:
        if task.kind != "train":
            raise ConfigurationError(f"client: mixture_prior cannot answer a task of kind '{task.kind}'")
        count, dim = self.num_components, self.backbone.dim
        found = {key: array.shape for key, array in task.weights.items()}
        second_shape = (dim,) if self.is_diagonal else (dim, dim)
        needed = {_WEIGHT: (count,), _FIRST: (count, dim), _SECOND: second_shape}
        if found != needed:
            raise ConfigurationError(f"client: mixture_prior needs weights of {needed}, got {found}")

    def _prior(self, moments: Weights) -> Prior:
        return prior_of(moments, self.least_variance, self.least_weight)

    def _reply(
        self, num_pairs: int, moments: Weights, losses: Mapping[str, float], fits_flops: float
    ) -> Reply:
        return Reply(moments, num_pairs, {**losses, "flops": self._flops(num_pairs, fits_flops)})


def prior_of(moments: Weights, least_variance: float, least_weight: float) -> Prior:
    """The prior whose moments these are (M-step).

    Args:
        moments: ``prior.weight`` (K,), ``prior.first`` (K, H) and ``prior.second``, (H, H) or (H,).
        least_variance: floor of the covariance's eigenvalues.
        least_weight: floor of a component's weight, before they are made to sum to 1.
    """
    shares, first, second = (moments[key].astype(np.float64) for key in (_WEIGHT, _FIRST, _SECOND))
    means = first / np.maximum(shares, 1e-12)[:, None]
    covariance = second - _products(first, means, second.ndim == 1)
    floored = np.maximum(shares, least_weight)
    return Prior(floored / floored.sum(), means, precision_of(covariance, least_variance))


def _mean_head(moments: Weights) -> np.ndarray:
    head: np.ndarray = moments[_FIRST].sum(axis=0, dtype=np.float64)
    return head


def _posterior(prior: Prior, differences: np.ndarray) -> tuple[np.ndarray, Sequence[Posterior]]:
    """A client's probabilities of the components, shape (K,), and its posterior under each."""
    posteriors = [laplace(differences, mean, prior.precision) for mean in prior.means]
    log_evidences = np.array([posterior.log_evidence for posterior in posteriors])
    return _chances(prior.weights, log_evidences), posteriors


def _chances(shares: np.ndarray, log_evidences: np.ndarray) -> np.ndarray:
    """Probabilities of the components, shape (..., K), from their weights and the evidences."""
    logits = np.log(shares) + log_evidences
    chances = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: np.ndarray = chances / chances.sum(axis=-1, keepdims=True)
    return result


def _moments(chances: np.ndarray, heads: np.ndarray, spread: np.ndarray) -> Weights:
    """The moments of a posterior, float32: what is sent; all shapes may have more axes in front.

    Args:
        chances: probabilities of the components, shape (K,).
        heads: the mode under each, shape (K, H).
        spread: the covariance around it, shape (K, H, H), or its diagonal, (K, H).
    """
    first = chances[..., None] * heads
    by_component = spread.reshape(*chances.shape, -1)
    mean_spread = (chances[..., None, :] @ by_component)[..., 0, :]
    second = _products(first, heads, spread.ndim == heads.ndim)
    moments = {_WEIGHT: chances, _FIRST: first, _SECOND: second + mean_spread.reshape(second.shape)}
    return {key: array.astype(np.float32) for key, array in moments.items()}


def _products(one: np.ndarray, other: np.ndarray, is_diagonal: bool) -> np.ndarray:
    """Sum over rows of their outer products, shape (..., H, H), or its diagonal."""
    result: np.ndarray = (one * other).sum(axis=-2) if is_diagonal else one.swapaxes(-1, -2) @ other
    return result
