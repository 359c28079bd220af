"""A selector of two layers: a shared one, and a classifier of one's own; both are sent to the server.

All clients learn together which features of a response matter; each has two rows of weights, one an answer,
that say what it thinks of them. First the rows alone are fitted, then rows and layer move at once. Both
orders of a pair are in every step, so that no liking for a slot arises.

Source: Liu et al. 2024 (FLUTE), arXiv:2406.04596, the variant for classifiers. Different here: one tanh layer
on frozen features, plain SGD, steps instead of epochs, and the penalty on features is a mean over pairs.
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
from fedpref.models.kept import kept
from fedpref.objectives.batches import batch_size, epochs_and_rest
from fedpref.objectives.local import reported_loss, require, require_progress, steps_and_mu
from fedpref.objectives.low_rank import Phase, phases_within
from fedpref.objectives.selector import right_margins, scores
from fedpref.objectives.two_layer import (
    Classifier,
    Layer,
    Network,
    Penalties,
    activations,
    both_logits,
    fitted,
    trained,
)
from fedpref.types import ClientState, Pairs, Reply, Settings, Shard, Task, Weights, Workload

__all__ = ["FluteSelector"]

_LAYER, _OFFSETS = "representation.weight", "representation.bias"
_ROWS, _BIASES = "head.weight", "head.bias"


@dataclass(frozen=True)
class FluteSelector:
    """Trains ``representation`` (k, H) and ``head`` (2, k), weights and biases; keeps nothing.

    All of it leaves the client: the server of strategy=flute stores the heads and draws their rows apart, and
    so learns what the client likes along the k shared features. Where a client is served, its head first
    takes ``final_steps`` on all its pairs at home; a newcomer's starts from the head that the server gives.

    A task's settings may give ``local_steps``, which cut the phases or prolong the last one, and
    ``proximal_mu``, which holds the representation. The work is done in float64 and sent in float32.

    Attributes:
        backbone: gives the frozen features of a response.
        width: k, the number of shared features; may be above the dimension of the frozen ones.
        head_steps: first phase: steps on the head; published: nine epochs.
        joint_steps: second phase: steps on everything; published: one epoch.
        final_steps: steps on the head alone, on whole shards, before it serves; they are never sent.
        batch_pairs: pairs a step, each in both orders; None means the whole shard.
        lr: step size of everything.
        collapse: weight of NC, the distance of the head's two rows from opposite ones. No answer depends on
            what it penalises; the published weight.
        head_decay: weight of the head's squared norm; published: 0.0025.
        feature_decay: weight of the mean squared norm of a pair's features, in the second phase; published:
            0.0005 for the sum over a batch of ten.
        init_std: standard deviation of the initial weights; biases start at zero.

    Raises:
        ConfigurationError: a value out of range.
    """

    backbone: Backbone
    width: int = 8
    head_steps: int = 12
    joint_steps: int = 4
    final_steps: int = 20
    batch_pairs: int | None = 16
    lr: float = 0.3
    collapse: float = 0.25
    head_decay: float = 0.1
    feature_decay: float = 0.02
    init_std: float = 0.03

    def __post_init__(self) -> None:
        require(self.width >= 1, "width", self.width, "at least 1")
        for name in ("head_steps", "joint_steps", "final_steps"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        require(
            self.batch_pairs is None or self.batch_pairs >= 1, "batch_pairs", self.batch_pairs, "at least 1"
        )
        require(math.isfinite(self.lr) and self.lr > 0, "lr", self.lr, "positive and finite")
        for name in ("collapse", "head_decay", "feature_decay"):
            value = getattr(self, name)
            require(math.isfinite(value) and value >= 0, name, value, "at least 0, and finite")
        require(self.init_std > 0, "init_std", self.init_std, "above 0: two zero layers have no gradient")

    @property
    def penalties(self) -> Penalties:
        """The weights of the regularisers."""
        return Penalties(self.collapse, self.head_decay, self.feature_decay)

    def fresh(self, rng: np.random.Generator) -> Weights:
        """Initial weights, float32."""
        layer = rng.standard_normal((self.width, self.backbone.dim))
        rows = rng.standard_normal((2, self.width))
        return {
            _LAYER: (self.init_std * layer).astype(np.float32),
            _OFFSETS: np.zeros(self.width, np.float32),
            _ROWS: (self.init_std * rows).astype(np.float32),
            _BIASES: np.zeros(2, np.float32),
        }

    def warm(self, populations: Sequence[Pairs]) -> None:
        """Compute and keep the frozen features of all these pairs, so that no worker has to."""
        for pairs in populations:
            self._sides(pairs)

    def both_orders(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        """Logits ``l(chosen, rejected)`` and ``l(rejected, chosen)``, shape (num_pairs, 2), float64."""
        network = self._network(weights)
        return both_logits(network.classifier, self._features(network.layer, pairs))

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        """Symmetrised score ``s(chosen, rejected)`` of each pair, shape (num_pairs,), float64."""
        return scores(self.both_orders(weights, pairs))

    def export(self, weights: Weights, folder: Path) -> None:
        """Write layer and head, and the identity of the frozen features psi that the layer is for.

        The logits of (a, b) are ``head(tanh(representation(psi(a))) - tanh(representation(psi(b))))``.
        """
        write_head(folder, weights, self.backbone)

    def personalise(self, weights: Weights, shard: Shard | None, state: ClientState) -> Weights:
        """The weights, the head after ``final_steps`` on the client's pairs; as they are without pairs."""
        if shard is None or len(shard.pairs) == 0 or self.final_steps == 0:
            return weights
        network = self._network(weights)
        features = self._features(network.layer, shard.pairs)
        no_draws = np.random.default_rng(0)  # whole shards are in their own order
        own, _ = fitted(
            network.classifier, features, self.final_steps, None, self.lr, self.penalties, no_draws
        )
        return {**weights, **_head(own)}

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        """Train the head, then all, on the shard.

        Metrics: ``loss_before`` and ``loss_after`` on both orders of all training pairs, ``position_bias``
        after, in logits, ``steps_done``, ``skipped_steps`` (their gradient was not finite) and ``flops``
        (what ``workload`` says, exactly).

        Raises:
            ConfigurationError: another kind of task, or weights that do not fit.
            FederationError: every step was skipped.
        """
        if task.kind != "train":
            raise ConfigurationError(f"client: this rule cannot answer a task of kind '{task.kind}'")
        pairs = shard.pairs
        if len(pairs) == 0:
            return Reply(dict(task.weights), 0, {}), state
        received, (head_steps, joint_steps) = self._network(task.weights), self._phases(task.settings)
        steps, mu = steps_and_mu(task.settings, head_steps + joint_steps, self.lr)
        features = self._features(received.layer, pairs)
        own, first = fitted(
            received.classifier, features, head_steps, self.batch_pairs, self.lr, self.penalties, rng
        )
        found, then = trained(
            Network(received.layer, own),
            *self._sides(pairs),
            joint_steps,
            self.batch_pairs,
            self.lr,
            self.penalties,
            mu,
            rng,
        )
        skipped = first.skipped + then.skipped
        require_progress(steps, skipped)
        before = both_logits(received.classifier, features)
        after = both_logits(found.classifier, self._features(found.layer, pairs))
        metrics = {
            **reported_loss("loss_before", right_margins(before)),
            **reported_loss("loss_after", right_margins(after)),
            "position_bias": float(found.classifier.biases[0] - found.classifier.biases[1]),
            "steps_done": float(steps - skipped),
            "skipped_steps": float(skipped),
            "flops": self._flops(len(pairs), first.seen_pairs, then.seen_pairs),
        }
        layer = {_LAYER: found.layer.weight.astype(np.float32), _OFFSETS: found.layer.bias.astype(np.float32)}
        return Reply({**layer, **_head(found.classifier)}, len(pairs), metrics), state

    def workload(self, task: Task, shard: Shard) -> Workload:
        """Operations of both layers; frozen features are taken as kept. A task that is refused is no work.

        Memory, float64: the frozen features of the shard and of a batch, what the layer makes of them, and of
        all weights what was received, what they are now, their gradients and the new ones.
        """
        num_pairs = len(shard.pairs)
        if task.kind != "train" or num_pairs == 0:
            return Workload(0.0, 0.0)
        cuts = [epochs_and_rest(num_pairs, self.batch_pairs, steps) for steps in self._phases(task.settings)]
        seen = [epochs * num_pairs + rest for epochs, rest in cuts]
        dim, rows = self.backbone.dim, num_pairs + batch_size(num_pairs, self.batch_pairs)
        num_weights = self.width * (dim + 3) + 2
        memory = 8.0 * (2 * rows * (dim + self.width) + 4 * num_weights)
        return Workload(self._flops(num_pairs, *seen), memory)

    def _flops(self, num_pairs: int, head_pairs: int, joint_pairs: int) -> float:
        # The layer takes two products of H k a pair, once before and once after, and in the second phase one
        # way and back; the head one way for losses, and both ways in each step. Two operations an entry.
        layer, head = 4.0 * self.backbone.dim * self.width, 2.0 * self.width
        return 2 * num_pairs * (layer + head) + head_pairs * 2 * head + joint_pairs * (2 * layer + 2 * head)

    def _phases(self, settings: Settings) -> tuple[int, int]:
        """Steps on the head, and on everything."""
        both = [Phase(self.head_steps, "head"), Phase(self.joint_steps, "both")]
        head, joint = phases_within(settings, both)
        return head.steps, joint.steps

    def _sides(self, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
        """Psi of the chosen and of the rejected responses, shape (num_pairs, H) each, float64, read-only."""

        def compute() -> tuple[np.ndarray, np.ndarray]:
            chosen, rejected = (
                self.backbone.features(pairs.prompts, side).astype(np.float64)
                for side in (pairs.chosen, pairs.rejected)
            )
            for side in (chosen, rejected):
                side.setflags(write=False)
            return chosen, rejected

        return kept(pairs, ("sides", self.backbone), compute)

    def _features(self, layer: Layer, pairs: Pairs) -> np.ndarray:
        chosen, rejected = self._sides(pairs)
        with np.errstate(invalid="ignore", over="ignore"):  # not finite: the steps on it are skipped
            features: np.ndarray = activations(layer, chosen) - activations(layer, rejected)
        return features

    def _network(self, weights: Weights) -> Network:
        shapes = {key: array.shape for key, array in weights.items()}
        width = self.width
        expected = {_LAYER: (width, self.backbone.dim), _OFFSETS: (width,), _ROWS: (2, width), _BIASES: (2,)}
        if shapes != expected:
            raise ConfigurationError(f"client: weights of shapes {expected} are needed, got {shapes}")
        layer, offsets, rows, biases = (weights[key].astype(np.float64) for key in expected)
        return Network(Layer(layer, offsets), Classifier(rows, biases))


def _head(classifier: Classifier) -> Weights:
    return {_ROWS: classifier.rows.astype(np.float32), _BIASES: classifier.biases.astype(np.float32)}
