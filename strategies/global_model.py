"""One global model and the one way to step it: synchronous and asynchronous strategies share every bit.

Equal updates with equal shares and factors move the model equally, whichever strategy asks; that is why
FedBuff, FedFix and the others equal FedAvg bit for bit where their theory says that they equal it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.maths.weights import add_delta
from fedpref.types import ClientId, Combine, Fresh, Update, Weights

__all__ = ["GlobalModel", "Share", "check_server_lr", "check_share", "first_model", "share_of", "stepped"]

Share = Literal["pairs", "sqrt", "clients"]


@dataclass(frozen=True, eq=False)
class GlobalModel:
    """State of a strategy with one model: its weights, and what its combine remembers."""

    weights: Weights
    memory: Any


def first_model(fresh: Fresh, combine: Combine, clients: Sequence[ClientId]) -> GlobalModel:
    """The initial model at the address ("global",), which all strategies start from.

    Raises:
        ConfigurationError: the combine is none, or cannot work with these weights; better now than after a
            round.
    """
    if not callable(combine):
        raise ConfigurationError(
            f"strategy.combine={combine!r} is no combine; name one with combine={combine}"
        )
    model = GlobalModel(fresh("global"), combine.init(clients))
    trial = Update(model.weights, model.weights, 1, {}, clients[0])
    combine(model.weights, [trial], [1.0], [clients[0]], np.random.default_rng(0), model.memory)
    return model


def check_share(share: str) -> None:
    """Refuse an unknown share.

    Raises:
        ConfigurationError: it is none of ``Share``.
    """
    if share not in get_args(Share):
        raise ConfigurationError(f"strategy.share={share!r} must be pairs, sqrt or clients")


def check_server_lr(server_lr: float) -> None:
    """Refuse a server step that leads nowhere or away from the clients' models.

    Raises:
        ConfigurationError: it is not a finite number above 0.
    """
    if not 0 < server_lr < math.inf:
        raise ConfigurationError(f"strategy.server_lr={server_lr} must be above 0, and finite")


def share_of(update: Update, share: Share) -> float:
    """Weight of an update before normalisation: n_i, sqrt(n_i) or 1; clients without pairs weigh nothing."""
    if share == "pairs":
        return float(update.num_pairs)
    return float(np.sqrt(update.num_pairs)) if share == "sqrt" else float(update.num_pairs > 0)


def stepped(
    model: GlobalModel,
    updates: Sequence[Update],
    share: Share,
    server_lr: float,
    combine: Combine,
    cohort: Sequence[ClientId],
    rng: np.random.Generator,
) -> tuple[GlobalModel, Mapping[str, float]]:
    """``w + server_lr * combine(delta_i)`` and the combine's numbers; the same model where nothing weighs.

    Args:
        model: before the step.
        updates: in task order; may be empty.
        share: weight of a client.
        server_lr: step along the combined delta.
        combine: how the deltas become one.
        cohort: every client that was planned for this step.
        rng: the draws of this fold.
    """
    shares = [share_of(update, share) for update in updates]
    if not any(shares):
        return model, {}
    combined = combine(model.weights, updates, shares, cohort, rng, model.memory)
    weights = add_delta(model.weights, combined.delta, server_lr)
    return GlobalModel(weights, combined.memory), combined.metrics
