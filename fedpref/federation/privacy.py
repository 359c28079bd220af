"""The privacy card of a run: what left its clients, what others learn of it, and what stays at home."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

from fedpref.flower.exchange import Exchange
from fedpref.flower.rounds import Rounds
from fedpref.maths.weights import digest
from fedpref.simulation.client_store import ClientStore
from fedpref.types import ClientId, Weights

__all__ = ["privacy_card"]

_MOST_EXAMINED = 1000
_SHARED = -1
"""In place of the one client that a tensor serves."""


def privacy_card(rounds: Rounds, store: ClientStore) -> dict[str, Any]:
    """All sides of a run, as plain data.

    Returns:
        ``sent``, what the exchange counted in the replies; ``passed_on``, tensors that the server sent to
        others as one client had sent them; ``held``, tensors with which at the end the server serves one
        client alone, by name; and ``kept``: how many clients keep something in how many bytes as stored,
        states that await acceptance included; and, of the first thousand of them, the arrays and the names
        of the numbers.
    """
    exchange = rounds.exchange
    return {
        "sent": exchange.disclosed,
        "passed_on": exchange.passed_on,
        "held": _held(rounds),
        "kept": _kept(exchange, store),
    }


def _held(rounds: Rounds) -> list[dict[str, Any]]:
    """Tensors that serve one client alone, and of how many clients there is such a one.

    Who is served by a vote of several models, as newcomers often are, owns none of them.
    """
    owners: dict[tuple[str, str], ClientId] = {}
    digests: dict[int, str] = {}  # by identity: most clients are served the very same arrays
    alive: list[Weights] = []  # or identities would be used again
    for client in (*rounds.clients, None) if len(rounds.clients) > 1 else ():
        owner = _SHARED if client is None else client
        models = rounds.strategy.serve(rounds.state, client)
        for name, array in models[0].items() if len(models) == 1 else ():
            if id(array) not in digests:
                digests[id(array)] = digest({"": {"": array}})
                alive.append({name: array})
            key = name, digests[id(array)]
            owners[key] = owner if owners.get(key, owner) == owner else _SHARED
    counts = Counter(name for (name, _), owner in owners.items() if owner != _SHARED)
    return [{"name": name, "clients": count} for name, count in sorted(counts.items())]


def _kept(exchange: Exchange, store: ClientStore) -> dict[str, Any]:
    clients = [client for client, _ in islice(store.clients(), _MOST_EXAMINED)]
    arrays: Counter[tuple[str, str, tuple[int, ...]]] = Counter()
    numbers: Counter[str] = Counter()
    for client in clients:
        state = exchange.kept(client)
        arrays.update((name, str(array.dtype), array.shape) for name, array in state.arrays.items())
        numbers.update(state.numbers.keys())
    return {
        "clients": store.num_clients,
        "bytes": store.num_bytes,
        "examined": len(clients),
        "arrays": [
            {"name": name, "dtype": dtype, "shape": list(shape), "clients": count}
            for (name, dtype, shape), count in sorted(arrays.items())
        ],
        "numbers": [{"name": name, "clients": count} for name, count in sorted(numbers.items())],
    }
