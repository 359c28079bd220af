"""The arithmetic of dealing rows to clients, free of any rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.seeds import generator
from fedpref.types import ClientId

__all__ = [
    "Asked",
    "Named",
    "Table",
    "apportion",
    "by_person",
    "client_name",
    "cut",
    "deal_like_training",
    "equal_sizes",
]

Named: TypeAlias = tuple[str, np.ndarray]
"""A name and the numbers of its rows."""


class Table(Protocol):
    """What a rule needs to know of the rows."""

    @property
    def clients(self) -> Sequence[str]:
        """Who judged, row by row."""
        ...

    @property
    def topics(self) -> Sequence[str]:
        """About what, row by row."""
        ...


class Asked(NamedTuple):
    """Held-out rows of one person or client, and the client whose models serve them."""

    name: str
    client_id: ClientId | None
    rows: np.ndarray


def by_person(rows: Table) -> list[Named]:
    """The people of the rows, sorted by name, each with their row numbers in order."""
    owned: dict[str, list[int]] = {}
    for row, person in enumerate(rows.clients):
        owned.setdefault(person, []).append(row)
    return [(name, np.array(owned[name])) for name in sorted(owned)]


def apportion(total: int, weights: np.ndarray) -> np.ndarray:
    """Whole numbers proportional to ``weights`` that sum to ``total``, by largest remainders.

    Args:
        total: what is to be shared out, at least 0.
        weights: non-negative, not all zero, shape (n,).

    Source: Hamilton's method.
    """
    exact = total * weights / weights.sum()
    shares: np.ndarray = np.floor(exact).astype(np.int64)
    largest_first = np.argsort(-(exact - shares), kind="stable")
    shares[largest_first[: total - int(shares.sum())]] += 1
    return shares


def equal_sizes(num_pairs: int, num_clients: int, min_pairs: int) -> np.ndarray:
    """Sizes that differ by at most one pair, larger ones first, shape (num_clients,).

    Raises:
        ConfigurationError: a client would have fewer than ``min_pairs``.
    """
    sizes = apportion(num_pairs, np.ones(num_clients))
    poor = np.flatnonzero(sizes < min_pairs)
    if len(poor):
        raise ConfigurationError(
            f"partition {poor[0]} has {sizes[poor[0]]} pairs: there are {num_pairs} training pairs for "
            f"partition.num_clients={num_clients} and partition.min_pairs={min_pairs}; lower one of them"
        )
    return sizes


def cut(order: np.ndarray, sizes: np.ndarray) -> list[Named]:
    """Cut row numbers into clients of the given sizes, shape (num_clients,)."""
    pieces = np.split(order, np.cumsum(sizes)[:-1])
    return [(client_name(client_id, len(pieces)), np.sort(piece)) for client_id, piece in enumerate(pieces)]


def client_name(client_id: ClientId, num_clients: int) -> str:
    """Name of a made-up client; names sort as their ids do."""
    return f"client-{client_id:0{len(str(num_clients - 1))}d}"


def deal_like_training(shards: Sequence[Named], train: Table, test: Table, seed: int) -> list[Asked]:
    """Deal held-out rows to clients, topic by topic, as the training rows of that topic lie.

    A topic that nobody trains on is dealt as all training rows lie.

    Returns:
        One entry a client that got any row.
    """
    owner_of = np.empty(len(train.clients), dtype=np.int64)
    for client_id, (_, rows) in enumerate(shards):
        owner_of[rows] = client_id
    topics_of_train, topics_of_test = np.asarray(train.topics, object), np.asarray(test.topics, object)
    served_by = np.empty(len(topics_of_test), dtype=np.int64)
    for topic in sorted(set(test.topics)):
        alike = np.flatnonzero(topics_of_train == topic)
        models = alike if len(alike) else np.arange(len(topics_of_train))
        asked = np.flatnonzero(topics_of_test == topic)
        order = generator(seed, "partition", "held out", topic).permutation(models)
        served_by[asked] = owner_of[np.resize(order, len(asked))]
    asked_rows = [np.flatnonzero(served_by == client_id) for client_id in range(len(shards))]
    return [
        Asked(name, client_id, rows)
        for client_id, ((name, _), rows) in enumerate(zip(shards, asked_rows, strict=True))
        if len(rows)
    ]
