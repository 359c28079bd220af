"""The privacy card of a run: what left its clients, and what they keep to themselves."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

from fedpref.flower.exchange import Exchange
from fedpref.simulation.client_store import ClientStore

__all__ = ["privacy_card"]

_MOST_EXAMINED = 1000


def privacy_card(exchange: Exchange, store: ClientStore) -> dict[str, Any]:
    """Both sides of a run, as plain data.

    Returns:
        ``sent``, what the exchange counted in the replies; and ``kept``: how many clients keep something in
        how many bytes as stored, states that await acceptance included; and, of the first thousand of them,
        the arrays and the names of the numbers.
    """
    return {"sent": exchange.disclosed, "kept": _kept(exchange, store)}


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
