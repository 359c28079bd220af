"""The features of a backbone and nothing else: rules that would train a transformer take a linear head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedpref.models.backbone import Backbone

__all__ = ["Frozen"]


@dataclass(frozen=True)
class Frozen:
    """A backbone of which only the features are used.

    Attributes:
        inner: whose features.
    """

    inner: Backbone

    @property
    def dim(self) -> int:
        """Length of a feature vector."""
        return self.inner.dim

    @property
    def fingerprint(self) -> str:
        """Identity of the function: that of the backbone."""
        return self.inner.fingerprint

    def features(self, prompts: Sequence[str], responses: Sequence[str] | np.ndarray) -> np.ndarray:
        """Those of the backbone, shape (num_texts, dim), float32."""
        return self.inner.features(prompts, responses)
