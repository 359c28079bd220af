"""What text backbones share: prompt and response joined, features of length, one scale for all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fedpref.errors import ConfigurationError

__all__ = ["NUM_LENGTH_FEATURES", "join", "length_features", "require_text", "scaled"]

NUM_LENGTH_FEATURES = 2


def require_text(backbone: str, responses: Sequence[str] | np.ndarray) -> Sequence[str]:
    """The responses, if they are strings.

    Raises:
        ConfigurationError: they are feature vectors.
    """
    if isinstance(responses, np.ndarray):
        raise ConfigurationError(
            f"backbone: '{backbone}' reads text, but the responses are feature vectors of shape "
            f"{responses.shape}; use backbone=given"
        )
    return responses


def join(prompt: str, response: str) -> str:
    """Prompt and response with an empty line between; the response alone where there is no prompt."""
    return f"{prompt}\n\n{response}" if prompt else response


def length_features(response: str) -> np.ndarray:
    """Scaled logarithm of the number of characters and its square, shape (2,), float32.

    People care about length, and not in one direction: the square lets a linear head prefer a middle.
    The constants centre ordinary responses (a few words to a few pages) on values of order one.
    """
    log_length = math.log1p(len(response)) - 5.0
    return np.array([log_length, log_length**2 / 3], dtype=np.float32)


def scaled(vector: np.ndarray) -> np.ndarray:
    """The vector at Euclidean norm 8, float32; zeros stay zeros.

    One norm for every backbone and every dimension lets one step size serve all of them: the curvature
    of the Bradley-Terry loss grows with the squared norm, not with the dimension.
    """
    norm = float(np.linalg.norm(vector))
    result: np.ndarray = (vector * (8.0 / norm if norm > 0 else 0.0)).astype(np.float32)
    return result
