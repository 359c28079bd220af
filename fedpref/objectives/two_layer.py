"""A selector in two layers: shared features of a response, and two rows of weights, one for each answer.

A response x has the features ``phi(x) = tanh(V psi(x) + c)``. Shown (a, b), the selector answers A with
logit ``W_A.f + beta_A`` and B with ``W_B.f + beta_B``, where ``f = phi(a) - phi(b)``. Swapping the responses
negates f, so the score of a pair is ``(W_A - W_B).f`` and its position bias ``beta_A - beta_B``; gradients
are those of both orders of every pair, in closed form.

Source: Liu et al. 2024 (FLUTE), arXiv:2406.04596, the variant for classifiers and its three regularisers; the
layer is ours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fedpref.objectives.batches import batches
from fedpref.objectives.selector import pulls

__all__ = [
    "Classifier",
    "Layer",
    "Network",
    "Penalties",
    "Steps",
    "activations",
    "both_logits",
    "classifier_gradient",
    "collapse_gradient",
    "fitted",
    "network_gradient",
    "trained",
]


class Layer(NamedTuple):
    """V, shape (k, H), and c, shape (k,), float64."""

    weight: np.ndarray
    bias: np.ndarray


class Classifier(NamedTuple):
    """Rows W, shape (2, k), and biases beta, shape (2,), of the answers A and B, float64."""

    rows: np.ndarray
    biases: np.ndarray


class Network(NamedTuple):
    """What is shared, and what is a client's own."""

    layer: Layer
    classifier: Classifier


class Penalties(NamedTuple):
    """Weights of the three regularisers.

    Attributes:
        collapse: of ``NC(W) = |W W^T / |W W^T|_F - T|_F``, T = [[1/2, -1/2], [-1/2, 1/2]]: zero where the
            rows are opposite.
        rows: of ``|W|_F^2``.
        features: of the mean ``|f|^2`` over pairs; counts only where the layer moves.
    """

    collapse: float
    rows: float
    features: float


class Steps(NamedTuple):
    """How many steps were skipped, and the pairs that all batches held together."""

    skipped: int
    seen_pairs: int


def activations(layer: Layer, psi: np.ndarray) -> np.ndarray:
    """The features phi of each response, shape (n, k), from its frozen features, shape (n, H)."""
    phi: np.ndarray = np.tanh(psi @ layer.weight.T + layer.bias)
    return phi


def both_logits(classifier: Classifier, features: np.ndarray) -> np.ndarray:
    """``l(chosen, rejected)`` and ``l(rejected, chosen)``, logit of A minus B's, shape (num_pairs, 2).

    Args:
        classifier: W and beta.
        features: f of each pair in the order (chosen, rejected), shape (num_pairs, k).
    """
    score, bias = _score_and_bias(classifier, features)
    return np.stack([bias + score, bias - score], axis=1)


def collapse_gradient(rows: np.ndarray) -> np.ndarray:
    """Gradient of NC for two rows; zero where NC is, and where it is not defined or stationary.

    With the rows' common part s = (W_A + W_B)/2 and d = (W_A - W_B)/2, ``NC^2 = 2 - 2 |d|^2 / sqrt(q)``,
    where ``q = |s|^4 + |d|^4 + 2 (s.d)^2``: what is penalised is the common part, which no answer depends on.
    In this form nothing cancels where s is small.

    Args:
        rows: W, shape (2, k).
    """
    common, apart = (rows[0] + rows[1]) / 2, (rows[0] - rows[1]) / 2
    ss, dd, sd = common @ common, apart @ apart, common @ apart
    surplus = ss**2 + 2 * sd**2
    root = np.sqrt(surplus + dd**2)
    if surplus == 0 or dd == 0:
        return np.zeros_like(rows)
    collapse = np.sqrt(2 * surplus / (root * (root + dd)))
    scale = 1 / (root**3 * collapse)
    by_common = scale * dd * (ss * common + sd * apart)
    by_apart = scale * (dd * sd * common - surplus * apart)
    return np.stack([by_common + by_apart, by_common - by_apart])


def classifier_gradient(classifier: Classifier, features: np.ndarray, penalties: Penalties) -> Classifier:
    """Gradient of the two-order loss and the penalties on the rows; arguments as in ``both_logits``."""
    by_score, by_bias = _mean_pulls(classifier, features)
    return _classifier_gradient(classifier, by_score @ features, by_bias.sum(), penalties)


def network_gradient(
    network: Network, chosen: np.ndarray, rejected: np.ndarray, penalties: Penalties
) -> Network:
    """Gradient of the two-order loss and all penalties.

    Args:
        network: the point.
        chosen: frozen features of the chosen responses, shape (num_pairs, H); at least one pair.
        rejected: of the others, same shape.
        penalties: weights of the regularisers.
    """
    layer, classifier = network
    phi = activations(layer, chosen), activations(layer, rejected)
    features = phi[0] - phi[1]
    by_score, by_bias = _mean_pulls(classifier, features)
    by_features = np.outer(by_score, classifier.rows[0] - classifier.rows[1])
    by_features += 2 * penalties.features / len(features) * features
    # f falls with phi of the rejected response; tanh' is 1 - tanh^2.
    into = by_features * (1 - phi[0] ** 2), -by_features * (1 - phi[1] ** 2)
    by_layer = Layer(into[0].T @ chosen + into[1].T @ rejected, (into[0] + into[1]).sum(axis=0))
    by_rows = _classifier_gradient(classifier, by_score @ features, by_bias.sum(), penalties)
    return Network(by_layer, by_rows)


def fitted(
    classifier: Classifier,
    features: np.ndarray,
    steps: int,
    batch_pairs: int | None,
    lr: float,
    penalties: Penalties,
    rng: np.random.Generator,
) -> tuple[Classifier, Steps]:
    """Take steps on the classifier alone; one whose gradient is not finite is skipped.

    Args:
        classifier: where they start; not changed.
        features: f of each pair, shape (num_pairs, k); at least one pair.
        steps: how many.
        batch_pairs: pairs a step; None is the whole shard.
        lr: step size.
        penalties: weights of the regularisers.
        rng: the draws of the batches.
    """
    skipped = seen_pairs = 0
    for rows in batches(len(features), batch_pairs, steps, rng):
        seen_pairs += len(rows)
        gradient = classifier_gradient(classifier, features[rows], penalties)
        if _is_finite(*gradient):
            classifier = _moved(classifier, gradient, lr)
        else:
            skipped += 1
    return classifier, Steps(skipped, seen_pairs)


def trained(
    network: Network,
    chosen: np.ndarray,
    rejected: np.ndarray,
    steps: int,
    batch_pairs: int | None,
    lr: float,
    penalties: Penalties,
    mu: float,
    rng: np.random.Generator,
) -> tuple[Network, Steps]:
    """Take steps on layer and classifier at once; one whose gradient is not finite is skipped.

    Args:
        network: where they start; not changed.
        chosen: frozen features of the chosen responses, shape (num_pairs, H); at least one pair.
        rejected: of the others, same shape.
        steps: how many.
        batch_pairs: pairs a step; None is the whole shard.
        lr: step size.
        penalties: weights of the regularisers.
        mu: pull of the layer to where it started, FedProx's.
        rng: the draws of the batches.
    """
    start, skipped, seen_pairs = network.layer, 0, 0
    for rows in batches(len(chosen), batch_pairs, steps, rng):
        seen_pairs += len(rows)
        by_layer, by_classifier = network_gradient(network, chosen[rows], rejected[rows], penalties)
        if not _is_finite(*by_layer, *by_classifier):
            skipped += 1
            continue
        if mu > 0:
            pulled = zip(by_layer, network.layer, start, strict=True)
            by_layer = Layer(*(by + mu * (now - then) for by, now, then in pulled))
        layer = Layer(network.layer.weight - lr * by_layer.weight, network.layer.bias - lr * by_layer.bias)
        network = Network(layer, _moved(network.classifier, by_classifier, lr))
    return network, Steps(skipped, seen_pairs)


def _moved(classifier: Classifier, gradient: Classifier, lr: float) -> Classifier:
    return Classifier(classifier.rows - lr * gradient.rows, classifier.biases - lr * gradient.biases)


def _is_finite(*arrays: np.ndarray) -> bool:
    return all(np.isfinite(array).all() for array in arrays)


def _score_and_bias(classifier: Classifier, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    score = features @ (classifier.rows[0] - classifier.rows[1])
    return score, np.full_like(score, classifier.biases[0] - classifier.biases[1])


def _mean_pulls(classifier: Classifier, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives of the mean loss by each pair's score and position bias."""
    by_score, by_bias = pulls(*_score_and_bias(classifier, features))
    return by_score / len(features), by_bias / len(features)


def _classifier_gradient(
    classifier: Classifier, by_apart: np.ndarray, by_bias: float, penalties: Penalties
) -> Classifier:
    """From the derivatives by ``W_A - W_B`` and ``beta_A - beta_B``."""
    by_rows = np.stack([by_apart, -by_apart]) + 2 * penalties.rows * classifier.rows
    if penalties.collapse > 0:
        by_rows += penalties.collapse * collapse_gradient(classifier.rows)
    return Classifier(by_rows, np.array([by_bias, -by_bias]))
