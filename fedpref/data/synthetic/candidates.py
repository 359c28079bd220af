"""What is compared: pairs of responses and their attributes, in one of three forms.

``text`` writes responses and measures them; ``attributes`` draws psi itself, Gaussian;
``embedding`` shows tanh(A psi) + a topic vector + noise in place of psi.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedpref.data.synthetic.attributes import measure_all
from fedpref.data.synthetic.calibration import calibration
from fedpref.data.synthetic.grammar import write_pairs
from fedpref.data.synthetic.pairing import second_plan
from fedpref.data.synthetic.phrases import phrases
from fedpref.seeds import generator

__all__ = ["FORMS", "Candidates", "delta_covariance", "draw_candidates"]

FORMS = ("text", "embedding", "attributes")

_EMBEDDING_DIM = 64
_EMBEDDING_NOISE_SD = 0.1
# Cov(second - first) in units of the identity, from a₂ = -0.7a₁ + √0.51 ε and a₂ = a₁ + 0.2 ε.
_GAUSSIAN_DELTA_VARIANCE = {"iid": 2.0, "neg": 1.7**2 + 0.51, "near": 0.2**2}


@dataclass(frozen=True, eq=False)
class Candidates:
    """Unjudged pairs, column by column.

    Attributes:
        prompts: one a pair; empty strings in the forms without text.
        topics: topic indices, shape (num_pairs,).
        first: the responses in slot one: texts, or vectors of shape (num_pairs, dim), float32.
        second: the responses in slot two.
        psi_first: attributes of ``first``, shape (num_pairs, num_attributes), float64.
        psi_second: attributes of ``second``.
    """

    prompts: Sequence[str]
    topics: np.ndarray
    first: Sequence[str] | np.ndarray
    second: Sequence[str] | np.ndarray
    psi_first: np.ndarray
    psi_second: np.ndarray

    def __len__(self) -> int:
        return len(self.topics)


def delta_covariance(form: str, mode: str, num_attributes: int) -> np.ndarray:
    """C_Delta = Cov(psi_first - psi_second), shape (num_attributes, num_attributes).

    Exact for Gaussian attributes, from the data card for text.
    """
    if form == "text":
        return np.array(calibration().delta_covariance[mode])[:num_attributes, :num_attributes]
    covariance: np.ndarray = _GAUSSIAN_DELTA_VARIANCE[mode] * np.eye(num_attributes)
    return covariance


def draw_candidates(
    form: str, topics: np.ndarray, mode: str, num_attributes: int, seed: int, rng: np.random.Generator
) -> Candidates:
    """One pair for each topic index.

    Args:
        form: one of ``FORMS``.
        topics: topic indices, shape (num_pairs,).
        mode: one of the candidate modes.
        num_attributes: the first so many attributes count; at most 12 in the text form.
        seed: the population's seed; fixes the embedding.
        rng: the draws of these pairs.
    """
    if form == "text":
        return _text(topics, mode, num_attributes, rng)
    plans = rng.standard_normal((2, len(topics), num_attributes))
    psi_first, psi_second = plans[0], second_plan(plans[0], plans[1], mode)
    # Neither mode "near" nor the position bias is symmetric, so chance decides who stands first.
    swap = rng.random(len(topics))[:, None] < 0.5
    psi_first, psi_second = np.where(swap, psi_second, psi_first), np.where(swap, psi_first, psi_second)
    if form == "attributes":
        first, second = psi_first.astype(np.float32), psi_second.astype(np.float32)
    else:
        first, second = (_embed(psi, topics, seed, rng) for psi in (psi_first, psi_second))
    return Candidates(("",) * len(topics), topics, first, second, psi_first, psi_second)


def _text(topics: np.ndarray, mode: str, num_attributes: int, rng: np.random.Generator) -> Candidates:
    prompts, *sides = write_pairs(topics.tolist(), mode, rng)
    swap = (rng.random(len(topics)) < 0.5).tolist()
    slots = [(b, a) if swapped else (a, b) for swapped, a, b in zip(swap, *sides, strict=True)]
    first, second = zip(*slots, strict=True)
    psi = [calibration().standardise(measure_all(texts))[:, :num_attributes] for texts in (first, second)]
    return Candidates(tuple(prompts), topics, first, second, psi[0], psi[1])


def _embed(psi: np.ndarray, topics: np.ndarray, seed: int, rng: np.random.Generator) -> np.ndarray:
    """E = tanh(A psi) + topic vector + 0.1 noise, shape (num_texts, 64), float32.

    A has variance 1/num_attributes, which keeps A psi at unit variance and tanh away from saturation.
    """
    world = generator(seed, "synthetic", "embedding")
    num_attributes = psi.shape[1]
    projection = world.standard_normal((_EMBEDDING_DIM, num_attributes)) / math.sqrt(num_attributes)
    topic_vectors = world.standard_normal((len(phrases().topics), _EMBEDDING_DIM))
    noise = _EMBEDDING_NOISE_SD * rng.standard_normal((len(psi), _EMBEDDING_DIM))
    embedding: np.ndarray = (np.tanh(psi @ projection.T) + topic_vectors[topics] + noise).astype(np.float32)
    return embedding
