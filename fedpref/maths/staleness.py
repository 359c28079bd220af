"""How much a late update counts: discounts s(tau) in (0, 1] with s(0) = 1.

Source: Xie et al. 2019, "Asynchronous Federated Optimization", arXiv:1903.03934.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fedpref.errors import ConfigurationError

__all__ = ["Constant", "Hinge", "Polynomial", "Staleness", "check_max_staleness", "check_staleness"]


class Staleness(Protocol):
    """A discount: frozen, never rising, 1 for a fresh update."""

    def __call__(self, staleness: int) -> float:
        """Factor of an update whose model is ``staleness`` versions old, at least 0."""
        ...


@dataclass(frozen=True)
class Constant:
    """``s = 1``: a late update counts in full."""

    def __call__(self, staleness: int) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True)
class Polynomial:
    """``s = (1 + tau)^-exponent``.

    Some released code has the exponent's sign the other way round and so makes stale work count more.

    Attributes:
        exponent: 0 is no discount.
    """

    exponent: float = 0.5

    def __post_init__(self) -> None:
        _require_at_least_0("exponent", self.exponent)

    def __call__(self, staleness: int) -> float:
        """The discount."""
        return float((1.0 + staleness) ** -self.exponent)


@dataclass(frozen=True)
class Hinge:
    """``s = 1`` up to ``delay`` versions, then ``1 / (slope (tau - delay) + 1)``.

    Attributes:
        slope: how fast it falls; 0 is no discount.
        delay: versions that cost nothing.
    """

    slope: float = 10.0
    delay: float = 4.0

    def __post_init__(self) -> None:
        _require_at_least_0("slope", self.slope)
        _require_at_least_0("delay", self.delay)

    def __call__(self, staleness: int) -> float:
        """The discount."""
        return 1.0 / (self.slope * max(0.0, staleness - self.delay) + 1.0)


def check_staleness(staleness: Staleness) -> None:
    """Refuse what is no discount, such as the name of one.

    Raises:
        ConfigurationError: it is none.
    """
    if not callable(staleness):
        raise ConfigurationError(
            f"strategy.staleness={staleness!r} is no discount; set strategy.staleness._target_="
            f"{__name__}.Polynomial, or .Hinge, or .Constant"
        )


def check_max_staleness(max_staleness: int | None) -> None:
    """Refuse a bound on staleness that not even a fresh update meets.

    Raises:
        ConfigurationError: it is below 0.
    """
    if max_staleness is not None and max_staleness < 0:
        raise ConfigurationError(f"strategy.max_staleness={max_staleness} must be 0 or more, or null")


def _require_at_least_0(name: str, value: float) -> None:
    if not 0 <= value < float("inf"):
        raise ConfigurationError(f"strategy.staleness.{name}={value} must be 0 or more")
