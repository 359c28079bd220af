"""How far one model moves towards another whose age differs, with coefficients that learn from the loss.

Versions are counted from 1 here, as in the paper, and ages too: a model that is tau versions old has
age tau + 1.

Source: Liu et al. 2024, "FedASMU: Efficient Asynchronous Federated Learning with Dynamic Staleness-aware
Model Update", arXiv:2312.05770, equations 1, 2, 7 and 8. The paper's updates of the coefficients need
gradients that a server has not; here they follow ``slope``, how fast a loss rises along the way, which
loss differences estimate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["AnswerWeight", "RefreshWeight"]

_LEAST = 1e-6  # of coefficients that must stay above 0


@dataclass(frozen=True)
class AnswerWeight:
    """How far the server goes towards a client's answer, ``alpha = mu xi / (1 + mu xi)``.

    ``xi = scale / (sqrt(version) age^decay) + offset``; all three belong to one client.

    Attributes:
        scale: lambda, above 0.
        decay: sigma, at least 0; 0 ignores age.
        offset: iota, at least 0.
    """

    scale: float
    decay: float
    offset: float

    def share(self, mu: float, version: int, age: int) -> float:
        """Alpha in (0, 1).

        Args:
            mu: strength, above 0.
            version: t, of the global model now.
            age: s, of the model that the client had: t - o + 1.
        """
        return _share(mu, self._xi(version, age))

    def adapted(self, mu: float, version: int, age: int, slope: float, lr: float) -> AnswerWeight:
        """The coefficients after one gradient step of size ``lr``, held in their ranges.

        Args:
            mu: strength.
            version: t.
            age: s.
            slope: of the client's loss on the way from the old model to the answer; below 0 the answer
                is better and the next one will count more. Beyond 1 it counts as 1.
            lr: size of the step; 0 leaves all as it is.
        """
        step = lr * _bounded(slope) * _share_slope(mu, self._xi(version, age))
        fade = self._fade(version, age)
        return AnswerWeight(
            scale=_lowered(self.scale, step * fade),
            decay=max(0.0, self.decay + step * self.scale * math.log(age) * fade),
            offset=max(0.0, self.offset - step),
        )

    def _xi(self, version: int, age: int) -> float:
        return self.scale * self._fade(version, age) + self.offset

    def _fade(self, version: int, age: int) -> float:
        return math.pow(age, -self.decay) / math.sqrt(version)


@dataclass(frozen=True)
class RefreshWeight:
    """How far a client goes towards the fresh model in the middle of its work.

    ``beta = mu phi / (1 + mu phi)`` with ``phi = scale / sqrt(version) (1 - caution / sqrt(age))``, and 0
    where that is negative; both coefficients belong to one client.

    Attributes:
        scale: gamma, above 0.
        caution: upsilon, at least 0.
    """

    scale: float
    caution: float

    def share(self, mu: float, version: int, age: int) -> float:
        """Beta in [0, 1).

        Args:
            mu: strength, at least 0; 0 ignores the fresh model.
            version: g, of the fresh model.
            age: of the model that the client had, g - o + 1.
        """
        return _share(mu, self._phi(version, age))

    def adapted(self, mu: float, version: int, age: int, slope: float, lr: float) -> RefreshWeight:
        """The coefficients after one gradient step of size ``lr``, held in their ranges.

        Args:
            mu: strength.
            version: g.
            age: g - o + 1.
            slope: of the client's loss on the way from its own model to the fresh one. Beyond 1 it counts
                as 1.
            lr: size of the step; 0 leaves all as it is.
        """
        phi = self._phi(version, age)
        if phi == 0:
            return self
        step = lr * _bounded(slope) * _share_slope(mu, phi)
        return RefreshWeight(
            scale=_lowered(self.scale, step * phi / self.scale),
            caution=max(0.0, self.caution + step * self.scale / math.sqrt(version * age)),
        )

    def _phi(self, version: int, age: int) -> float:
        return max(0.0, self.scale / math.sqrt(version) * (1.0 - self.caution / math.sqrt(age)))


def _bounded(slope: float) -> float:
    """At most 1 either way: losses are the client's word, and one answer must not decide all later ones."""
    return max(-1.0, min(1.0, slope))


def _lowered(scale: float, by: float) -> float:
    """A coefficient that stays above 0; one that began below the least is not raised to it."""
    return max(min(_LEAST, scale), scale - by)


def _share(mu: float, strength: float) -> float:
    return mu * strength / (1.0 + mu * strength)


def _share_slope(mu: float, strength: float) -> float:
    """Derivative of :func:`_share` by ``strength``."""
    return float(mu / (1.0 + mu * strength) ** 2)
