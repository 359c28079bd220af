"""What the local objectives share: the settings of a task, the loss to report, checks of options."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedpref.errors import ConfigurationError, FederationError
from fedpref.objectives.margin import mean_loss
from fedpref.types import Settings

__all__ = ["num_steps", "reported_loss", "reported_losses", "require", "require_progress", "steps_and_mu"]


def require(holds: bool, key: str, value: object, must: str) -> None:
    """Check an option of a client rule.

    Raises:
        ConfigurationError: it does not hold.
    """
    if not holds:
        raise ConfigurationError(f"client.{key}: {value} must be {must}")


def num_steps(settings: Settings, local_steps: int) -> int:
    """Local steps of a task: what its settings say, else the rule's own number.

    Raises:
        ConfigurationError: there are less than none.
    """
    steps = int(settings.get("local_steps", local_steps))
    if steps < 0:
        raise ConfigurationError(f"local_steps: {steps} must be at least 0")
    return steps


def steps_and_mu(settings: Settings, local_steps: int, lr: float) -> tuple[int, float]:
    """Local steps and weight of the proximal term for a task.

    Args:
        settings: of the task; ``local_steps`` and ``proximal_mu`` are read.
        local_steps: the rule's own number, where the settings have none.
        lr: the rule's step size.

    Raises:
        ConfigurationError: negative steps, or a ``mu`` for which gradient steps on the proximal term diverge.
    """
    steps, mu = num_steps(settings, local_steps), float(settings.get("proximal_mu", 0.0))
    if not 0 <= mu * lr < 2:
        raise ConfigurationError(
            f"strategy.mu: {mu} with client.lr {lr} must satisfy 0 <= mu * lr < 2, or local steps diverge"
        )
    return steps, mu


def require_progress(steps: int, skipped: int) -> None:
    """Check that some step was taken: weights that nobody trained must not weigh in an average.

    Raises:
        FederationError: there were steps and all of them were skipped.
    """
    if steps > 0 and skipped == steps:
        raise FederationError(f"client: none of {steps} steps had a finite gradient; lower client.lr")


def reported_loss(name: str, margins: np.ndarray) -> dict[str, float]:
    """The mean loss over finite margins, under a name; no entry where there is none."""
    finite = margins[np.isfinite(margins)]
    return {name: mean_loss(finite)} if len(finite) else {}


def reported_losses(name: str, margins: Sequence[np.ndarray]) -> list[dict[str, float]]:
    """``reported_loss`` of each of several, to rounding; each has at least one pair."""
    starts = np.cumsum([0, *map(len, margins)])[:-1]
    together = np.concatenate(margins).astype(np.float64)
    is_finite = np.isfinite(together)
    losses = np.logaddexp(0.0, -np.where(is_finite, together, np.inf))
    sums, counts = np.add.reduceat(losses, starts), np.add.reduceat(is_finite.astype(int), starts)
    pairs = zip(sums.tolist(), counts.tolist(), strict=True)
    return [{name: total / count} if count else {} for total, count in pairs]
