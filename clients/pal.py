"""PAL: everybody prefers what is near an ideal point, and ideal points are mixtures of a few shared ones.

An item with features h sits at ``M h``, client u's ideal point at ``sum_k w_uk p_k`` with weights on the
simplex. The client prefers the nearer item: the margin is the difference of squared distances,

    |u - M rejected|^2 - |u - M chosen|^2  =  2 u.M z - (M s).(M z),    z, s = chosen -/+ rejected,

a part that is linear in the client's weights plus one that all share. M and the prototypes travel; w_u is
fitted at home whenever it is needed, from nothing but the client's pairs, and no memory is kept.

Source: Chen et al. 2024, "PAL: Pluralistic Alignment Framework for Learning from Heterogeneous Preferences",
arXiv:2406.08469 (model A). Different here: squared distances, a linear map, the logistic loss for the hinge.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.models.backbone import Backbone
from fedpref.models.kept import feature_differences, feature_sums
from fedpref.objectives.batches import batch_size, batches, drawn, epochs_and_rest
from fedpref.objectives.blocks import all_finite, stacks
from fedpref.objectives.empty_shards import parted
from fedpref.objectives.ideal_point_cohort import Member, moved_together
from fedpref.objectives.local import num_steps, reported_loss, require, require_progress, steps_and_mu
from fedpref.objectives.margin import bradley_terry_pull
from fedpref.objectives.simplex import SimplexFit, simplex_fit, simplex_fit_flops
from fedpref.objectives.simplex_cohort import simplex_fits
from fedpref.types import ClientState, Pairs, Reply, Shard, Task, Weights, Workload

__all__ = ["Pal"]

_MAP, _PROTOTYPES, _MIXTURE = "map.weight", "prototypes.weight", "mixture.weight"


@dataclass(frozen=True)
class Pal:
    """Trains the map M, ``map.weight`` (D, H), and K prototypes, ``prototypes.weight`` (K, D).

    In a task the client fits its mixture weights to what it received and takes its steps with them fixed.
    A task's settings may give ``local_steps`` and ``proximal_mu``. Work is in float64, sent in float32.

    Attributes:
        backbone: gives the features.
        num_prototypes: K; with one, everybody has the same ideal point.
        latent_dim: D, of the space of distances.
        local_steps: gradient steps a task.
        batch_pairs: pairs a step; None means the whole shard.
        lr: step size.
        precision: of the prior that draws mixture weights to uniform ones, against a sum over pairs.
        map_std: standard deviation of M's initial entries, times the root of H.
        spread: initial distance of a prototype from the origin, about.

    Raises:
        ConfigurationError: a value out of range, or more latent dimensions than features.
    """

    backbone: Backbone
    num_prototypes: int = 4
    latent_dim: int = 4
    local_steps: int = 30
    batch_pairs: int | None = 16
    lr: float = 0.05
    precision: float = 1.0
    map_std: float = 0.1
    spread: float = 1.0

    def __post_init__(self) -> None:
        dim = self.backbone.dim
        require(self.num_prototypes >= 1, "num_prototypes", self.num_prototypes, "at least 1")
        fits = 1 <= self.latent_dim <= dim
        require(fits, "latent_dim", self.latent_dim, f"from 1 to {dim}, the features' dimension")
        require(self.local_steps >= 0, "local_steps", self.local_steps, "at least 0")
        require(
            self.batch_pairs is None or self.batch_pairs >= 1, "batch_pairs", self.batch_pairs, "at least 1"
        )
        require(math.isfinite(self.lr) and self.lr > 0, "lr", self.lr, "positive and finite")
        require(self.precision >= 0, "precision", self.precision, "at least 0")
        # Both at zero would be a point where no gradient leads anywhere.
        require(self.map_std > 0, "map_std", self.map_std, "positive")
        require(self.spread > 0, "spread", self.spread, "positive")

    def fresh(self, rng: np.random.Generator) -> Weights:
        """Initial weights, float32: Gaussian; prototypes differ, since equal ones would stay so."""
        dim, latent = self.backbone.dim, self.latent_dim
        weights = {
            _MAP: self.map_std / math.sqrt(dim) * rng.standard_normal((latent, dim)),
            _PROTOTYPES: self.spread / math.sqrt(latent) * rng.standard_normal((self.num_prototypes, latent)),
        }
        return {key: array.astype(np.float32) for key, array in weights.items()}

    def needs_clients(self) -> tuple[str, int]:
        """As many as prototypes, or some are nobody's."""
        return "num_prototypes", self.num_prototypes

    def warm(self, populations: Sequence[Pairs]) -> None:
        """Compute and keep the features of all these pairs, so that no worker has to."""
        for pairs in populations:
            self._sides(pairs)

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        """Margin of each pair, shape (num_pairs,), float64.

        Without ``mixture.weight``, (K,), the ideal point is a newcomer's.
        """
        shared = {key: array for key, array in weights.items() if key != _MIXTURE}
        place, prototypes = self._double(shared)
        mixture = weights.get(_MIXTURE, self._uniform)
        return _margins(place, mixture @ prototypes, *self._sides(pairs))

    def personalise(self, weights: Weights, shard: Shard | None, state: ClientState) -> Weights:
        """What is shared, and the client's mixture weights; uniform ones for a newcomer without pairs."""
        pairs = None if shard is None or len(shard.pairs) == 0 else shard.pairs
        mixture = self._uniform
        if pairs is not None:
            mixture = self._mixture(*self._double(weights), *self._sides(pairs)).weights
        return {**weights, _MIXTURE: mixture}

    def personalise_cohort(
        self, weights: Sequence[Weights], shards: Sequence[Shard | None], states: Sequence[ClientState]
    ) -> Sequence[Weights]:
        """As ``personalise`` for each: all mixtures are fitted together."""
        mixtures = [self._uniform] * len(weights)
        pairs = {i: shard.pairs for i, shard in enumerate(shards) if shard is not None and len(shard.pairs)}
        sides = [_sides_of_mixture(*self._double(weights[i]), *self._sides(own)) for i, own in pairs.items()]
        for i, fit in zip(pairs, self._mixtures(sides), strict=True):
            mixtures[i] = fit.weights
        return [{**model, _MIXTURE: own} for model, own in zip(weights, mixtures, strict=True)]

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        """Train on the shard.

        Metrics: ``loss_before`` and ``loss_after`` on the whole shard, both with the mixture weights fitted
        to what was received, ``steps_done``, ``skipped_steps``, ``flops`` (as many as ``workload`` says, or
        more).

        Raises:
            ConfigurationError: another kind of task, or weights that do not fit.
            FederationError: every step was skipped.
        """
        self._check(task)
        if len(shard.pairs) == 0:
            return Reply(dict(task.weights), 0, {}), state
        work = self._work(task, shard)
        steps = batches(len(work.z), self.batch_pairs, work.steps, rng)
        fit = self._mixture(work.place, work.prototypes, work.z, work.s)
        return self._reply(work, fit, self._moved(work, fit.weights, steps)), state

    def answer_cohort(
        self,
        tasks: Sequence[Task],
        shards: Sequence[Shard],
        states: Sequence[ClientState],
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[tuple[Reply, ClientState]]:
        """As ``answer`` for each: mixtures are fitted together, and so are steps taken."""
        replies, works = parted(tasks, shards, self._check, self._work)
        for stack in stacks({i: work.z for i, work in works.items()}, 6 * self.latent_dim):
            together = [works[i] for i in stack]
            sides = [_sides_of_mixture(work.place, work.prototypes, work.z, work.s) for work in together]
            fits = self._mixtures(sides)
            pairs = [drawn(len(works[i].z), self.batch_pairs, works[i].steps, rngs[i]) for i in stack]
            members = [
                Member(work.place, work.prototypes, fit.weights, work.z, work.s, own, work.mu)
                for work, fit, own in zip(together, fits, pairs, strict=True)
            ]
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found below
                found = moved_together(members, self.lr)
            entries = zip(stack, together, fits, pairs, all_finite(*found), *found, strict=True)
            for i, work, fit, own, is_finite, place, prototypes, before, after in entries:
                if is_finite:
                    losses = {"loss_before": float(before), "loss_after": float(after)}
                    moved = _Moved(place, prototypes, losses, 0)
                else:  # some step is to be skipped
                    moved = self._moved(work, fit.weights, own.batches())
                replies[i] = self._reply(work, fit, moved)
        return [(replies[i], state) for i, state in enumerate(states)]

    def _work(self, task: Task, shard: Shard) -> _Work:
        steps, mu = steps_and_mu(task.settings, self.local_steps, self.lr)
        return _Work(*self._double(task.weights), *self._sides(shard.pairs), steps, mu)

    def _moved(self, work: _Work, mixture: np.ndarray, steps: Iterable[np.ndarray]) -> _Moved:
        """What the steps lead to, one by one, given the rows of each."""
        place, prototypes, z, s, _, mu = work
        before, skipped = _margins(place, mixture @ prototypes, z, s), 0
        for rows in steps:
            by_place, by_point = _gradients(place, mixture @ prototypes, z[rows], s[rows])
            if not (np.isfinite(by_place).all() and np.isfinite(by_point).all()):
                skipped += 1
                continue
            by_prototypes = np.outer(mixture, by_point)
            if mu > 0:
                by_place = by_place + mu * (place - work.place)
                by_prototypes = by_prototypes + mu * (prototypes - work.prototypes)
            place, prototypes = place - self.lr * by_place, prototypes - self.lr * by_prototypes
        losses = {
            **reported_loss("loss_before", before),
            **reported_loss("loss_after", _margins(place, mixture @ prototypes, z, s)),
        }
        return _Moved(place, prototypes, losses, skipped)

    def _reply(self, work: _Work, fit: SimplexFit, moved: _Moved) -> Reply:
        steps, num_pairs = work.steps, len(work.z)
        require_progress(steps, moved.skipped)
        metrics = {
            **moved.losses,
            "steps_done": float(steps - moved.skipped),
            "skipped_steps": float(moved.skipped),
            "flops": self._flops(num_pairs, steps) + fit.flops,
        }
        weights = {_MAP: moved.place.astype(np.float32), _PROTOTYPES: moved.prototypes.astype(np.float32)}
        return Reply(weights, num_pairs, metrics)

    def _check(self, task: Task) -> None:
        if task.kind != "train":
            raise ConfigurationError(f"client: pal cannot answer a task of kind '{task.kind}'")

    @property
    def _uniform(self) -> np.ndarray:
        return np.full(self.num_prototypes, 1 / self.num_prototypes)

    def workload(self, task: Task, shard: Shard) -> Workload:
        """Operations of map and prototypes; features are taken as kept. A task that is refused is no work.

        Two operations an entry. A pair of a batch takes four products with M, there and back for z and s, and
        the losses before and after two; the mixture takes one Newton direction at least.
        """
        num_pairs, dim = len(shard.pairs), self.backbone.dim
        if task.kind != "train" or num_pairs == 0:
            return Workload(0.0, 0.0)
        flops = self._flops(num_pairs, num_steps(task.settings, self.local_steps))
        if self.precision > 0:
            flops += simplex_fit_flops(num_pairs, self.num_prototypes)
        arrays = 2 * (num_pairs + batch_size(num_pairs, self.batch_pairs)) + 3 * self.latent_dim
        return Workload(flops, 8.0 * dim * arrays)

    def _flops(self, num_pairs: int, steps: int) -> float:
        epochs, rest = epochs_and_rest(num_pairs, self.batch_pairs, steps)
        products = 4 * (epochs * num_pairs + rest) + 4 * num_pairs
        return 2.0 * self.latent_dim * self.backbone.dim * products

    def _mixture(self, place: np.ndarray, prototypes: np.ndarray, z: np.ndarray, s: np.ndarray) -> SimplexFit:
        parts, offset = _sides_of_mixture(place, prototypes, z, s)
        return simplex_fit(parts, self._uniform, self.precision, offset)

    def _mixtures(self, sides: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[SimplexFit]:
        """Of many clients, from what ``_sides_of_mixture`` gives for each."""
        parts, offsets = [own for own, _ in sides], [own for _, own in sides]
        return simplex_fits(parts, [self._uniform] * len(parts), self.precision, offsets)

    def _sides(self, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
        return feature_differences(self.backbone, pairs), feature_sums(self.backbone, pairs)

    def _double(self, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
        latent = self.latent_dim
        expected = {_MAP: (latent, self.backbone.dim), _PROTOTYPES: (self.num_prototypes, latent)}
        found = {key: array.shape for key, array in weights.items()}
        if found != expected:
            raise ConfigurationError(f"client: pal needs weights of {expected}, got {found}")
        return weights[_MAP].astype(np.float64), weights[_PROTOTYPES].astype(np.float64)


class _Work(NamedTuple):
    """A task of training, read: map and prototypes that came, both sides of the pairs, and the steps."""

    place: np.ndarray
    prototypes: np.ndarray
    z: np.ndarray
    s: np.ndarray
    steps: int
    mu: float


class _Moved(NamedTuple):
    """What the steps lead to, the losses as metrics, and how many steps were skipped."""

    place: np.ndarray
    prototypes: np.ndarray
    losses: Mapping[str, float]
    skipped: int


def _sides_of_mixture(
    place: np.ndarray, prototypes: np.ndarray, z: np.ndarray, s: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Margins at each prototype's direction, shape (num_pairs, K), and the part that all share."""
    moved = z @ place.T
    return 2 * moved @ prototypes.T, -((s @ place.T) * moved).sum(1)


def _margins(place: np.ndarray, point: np.ndarray, z: np.ndarray, s: np.ndarray) -> np.ndarray:
    """How much nearer to ``point`` the chosen item is, in squared distance, shape (num_pairs,)."""
    margins: np.ndarray = ((2 * point - s @ place.T) * (z @ place.T)).sum(1)
    return margins


def _gradients(
    place: np.ndarray, point: np.ndarray, z: np.ndarray, s: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of the mean loss by the map, shape (D, H), and by the ideal point, shape (D,)."""
    moved, away = z @ place.T, 2 * point - s @ place.T
    pull = bradley_terry_pull((away * moved).sum(1))[:, None] / len(z)
    by_place: np.ndarray = (pull * moved).T @ s - (pull * away).T @ z
    by_point: np.ndarray = -2 * (pull * moved).sum(0)
    return by_place, by_point
