"""Hashed n-grams through a frozen dense layer: a backbone without download, in microseconds a text."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.models.cache import recall
from fedpref.models.text import NUM_LENGTH_FEATURES, length_features, require_text, scaled
from fedpref.seeds import generator

__all__ = ["Hashing"]

_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Hashing:
    """Word n-grams of the response, hashed into buckets, damped, projected, and two length features.

    The prompt is not read: words of the prompt are the same on both sides of a pair, so a linear head
    cannot use them.

    Attributes:
        dense_dim: outputs of the dense layer.
        ngrams: lengths of the n-grams, in words.
        buckets: inputs of the dense layer.
        seed: address of the dense layer's Gaussian weights; clients must share it.

    Raises:
        ConfigurationError: a size below 1, or no n-grams.

    Source: Weinberger et al. 2009, arXiv:0902.2206 (hashing); Johnson and Lindenstrauss 1984 (projection).
    """

    dense_dim: int = 1024
    ngrams: tuple[int, ...] = (1, 2)
    buckets: int = 8192
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "ngrams", tuple(self.ngrams))  # a list, when it comes from YAML
        for name, value in (("dense_dim", self.dense_dim), ("buckets", self.buckets)):
            if value < 1:
                raise ConfigurationError(f"backbone.{name}: {value} must be at least 1")
        if not self.ngrams or min(self.ngrams) < 1:
            raise ConfigurationError(
                f"backbone.ngrams: {list(self.ngrams)} must be lengths of at least 1, such as [1, 2]"
            )

    @property
    def dim(self) -> int:
        """Length of a feature vector."""
        return self.dense_dim + NUM_LENGTH_FEATURES

    @property
    def fingerprint(self) -> str:
        """Identity of the function."""
        lengths = "+".join(map(str, self.ngrams))
        return f"hashing-{self.dense_dim}-{lengths}-{self.buckets}-{self.seed}"

    def features(self, prompts: Sequence[str], responses: Sequence[str] | np.ndarray) -> np.ndarray:
        """Features of the responses, shape (num_responses, dim), float32.

        Raises:
            ConfigurationError: the responses are feature vectors.
        """
        texts = require_text("hashing", responses)
        vectors = recall(self.fingerprint, texts, self._one)
        return np.stack([vectors[text] for text in texts]) if texts else np.empty((0, self.dim), np.float32)

    def _one(self, response: str) -> np.ndarray:
        words = _TOKEN.findall(response.lower())
        grams = [
            " ".join(words[start : start + length])
            for length in self.ngrams
            for start in range(len(words) - length + 1)
        ]
        hashed = np.array([zlib.crc32(gram.encode(errors="surrogatepass")) for gram in grams], dtype=np.int64)
        counts = np.bincount(hashed % self.buckets, minlength=self.buckets)
        buckets = np.flatnonzero(counts)
        damped = np.log1p(counts[buckets]).astype(np.float32)
        # einsum without optimize is NumPy's own loop: the same bits whatever BLAS and thread count.
        dense = np.einsum("k,kd->d", damped, _dense_layer(self.seed, self.buckets, self.dense_dim)[buckets])
        return np.concatenate([scaled(dense), length_features(response)])


@lru_cache(maxsize=4)
def _dense_layer(seed: int, buckets: int, dense_dim: int) -> np.ndarray:
    rng = generator(seed, "hashing", buckets, dense_dim)
    return rng.standard_normal((buckets, dense_dim), dtype=np.float32)
