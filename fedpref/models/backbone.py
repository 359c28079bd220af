"""What every backbone is: a frozen function from (prompt, response) to a feature vector.

``linear_reward`` needs no more than this; rules that train inside a transformer ask for the
subclass of behaviour in ``transformer.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

__all__ = ["Backbone"]


class Backbone(Protocol):
    """A frozen backbone. Instances are cheap to build and to pickle; weights load on first use."""

    @property
    def dim(self) -> int:
        """Length H of a feature vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identity of the function (model, revision, options): the key of every cache."""
        ...

    def features(self, prompts: Sequence[str], responses: Sequence[str] | np.ndarray) -> np.ndarray:
        """Frozen features psi(x, y), shape (n, H), float32; each distinct text is computed once."""
        ...
