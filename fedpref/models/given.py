"""The backbone of populations whose responses are feature vectors already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedpref.errors import ConfigurationError

__all__ = ["Given"]


@dataclass(frozen=True)
class Given:
    """Passes feature vectors through.

    Attributes:
        dim: length of a vector.
    """

    dim: int

    @property
    def fingerprint(self) -> str:
        """Identity of the function."""
        return f"given-{self.dim}"

    def features(self, prompts: Sequence[str], responses: Sequence[str] | np.ndarray) -> np.ndarray:
        """The responses themselves, shape (num_responses, dim), float32.

        Raises:
            ConfigurationError: responses are text, or vectors of another length.
        """
        if not isinstance(responses, np.ndarray):
            raise ConfigurationError(
                "backbone: 'given' passes feature vectors through, but the responses are text; "
                "use backbone=hashing or backbone=minilm"
            )
        if responses.ndim != 2 or responses.shape[1] != self.dim:
            raise ConfigurationError(
                f"backbone.dim: {self.dim} does not fit responses of shape {responses.shape}"
            )
        return np.asarray(responses, dtype=np.float32)
