"""Who joins which selector: FedBiscuit's balanced assignment, and the plain choice of the lowest loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["balanced_assignment", "lowest_loss"]


def balanced_assignment(losses: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """Assign clients to selectors by loss, at most ``ceil(N / U)`` to each.

    All clients join the selector of their lowest loss that is still open, in the order of arrival; the
    fullest selector keeps its first ``ceil(clients left / selectors open)`` members and closes; only
    its overflow chooses again. Overflow is decided by the order of arrival, not by loss.

    Args:
        losses: shape (N, U); NaN counts as infinity; ties go to the lower index.
        order: a permutation of the clients 0 … N - 1, the order of their arrival.

    Returns:
        Selector of each client, shape (N,), int64.

    Raises:
        ValueError: ``order`` is no permutation of the clients.

    Source: Wu et al. 2024 (FedBiscuit), arXiv:2407.03038, algorithm 2, as in the released code.
    """
    num_clients, num_selectors = losses.shape
    if sorted(order) != list(range(num_clients)):
        raise ValueError(f"order is no permutation of {num_clients} clients")
    costs = np.where(np.isnan(losses), np.inf, losses)
    members: dict[int, list[int]] = {selector: [] for selector in range(num_selectors)}
    assigned = np.full(num_clients, -1)
    waiting, left = list(order), num_clients
    while left > 0:
        open_selectors = sorted(members)
        capacity = math.ceil(left / len(open_selectors))
        for client in waiting:
            members[open_selectors[int(np.argmin(costs[client, open_selectors]))]].append(client)
        fullest = min(open_selectors, key=lambda u: (-len(members[u]), u))
        kept, waiting = members[fullest][:capacity], members[fullest][capacity:]
        assigned[kept] = fullest
        del members[fullest]
        left -= len(kept)
    return assigned


def lowest_loss(losses: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Selector of the lowest loss of each client, ties at random.

    Args:
        losses: shape (N, U); NaN counts as infinity.
        rng: breaks ties.

    Returns:
        Selector of each client, shape (N,), int64.

    Source: Ghosh et al. 2020 (IFCA), arXiv:2006.04088, algorithm 1.
    """
    costs = np.where(np.isnan(losses), np.inf, losses)
    is_lowest = costs == costs.min(axis=1, keepdims=True)
    return np.asarray(np.argmax(is_lowest * rng.uniform(0.5, 1.0, size=costs.shape), axis=1))
