"""Which client owns which training pairs, and who is asked at evaluation: one dataclass a rule.

``Natural`` and ``Pooled`` keep the people of the data: each person's held-out pairs are a set of their
own. The other rules make up clients; a held-out pair then goes to the client of some training pair of
the same topic, so that every client is tested on the mix of topics that it trains on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fedpref.data.dealing import (
    Asked,
    Named,
    Table,
    apportion,
    by_person,
    client_name,
    cut,
    deal_like_training,
    equal_sizes,
)
from fedpref.data.rows import EVERYONE
from fedpref.errors import ConfigurationError
from fedpref.seeds import generator

__all__ = ["Dirichlet", "Iid", "Natural", "Partition", "Pooled", "SizeSkew"]


class Partition(Protocol):
    """A partition rule."""

    def shards(self, train: Table, seed: int) -> list[Named]:
        """Clients in order, each with the numbers of its training rows; no row has two owners.

        Raises:
            ConfigurationError: a client would have too few pairs.
        """
        ...

    def held_out(self, shards: Sequence[Named], train: Table, test: Table, seed: int) -> list[Asked]:
        """Who is asked at evaluation, each with the numbers of its held-out rows, at least one.

        Args:
            shards: what ``shards`` returned for ``train``.
            train: training rows.
            test: held-out rows.
            seed: the run's seed.
        """
        ...


@dataclass(frozen=True)
class Natural:
    """One client a person: everybody keeps their own pairs.

    Attributes:
        min_pairs: people with fewer training pairs train nothing; they are newcomers at evaluation.
    """

    min_pairs: int = 1

    def __post_init__(self) -> None:
        _at_least_one("min_pairs", self.min_pairs)

    def shards(self, train: Table, seed: int) -> list[Named]:
        """People with at least ``min_pairs`` training pairs, by name."""
        people = by_person(train)
        shards = [(name, rows) for name, rows in people if len(rows) >= self.min_pairs]
        if not shards:
            most = max((len(rows) for _, rows in people), default=0)
            raise ConfigurationError(
                f"partition.min_pairs={self.min_pairs}: no client has that many training pairs; "
                f"the largest has {most}"
            )
        return shards

    def held_out(self, shards: Sequence[Named], train: Table, test: Table, seed: int) -> list[Asked]:
        """Everybody by name, served by their own client, or as a newcomer if they have none."""
        client_of = {name: client_id for client_id, (name, _) in enumerate(shards)}
        return [Asked(name, client_of.get(name), rows) for name, rows in by_person(test)]


@dataclass(frozen=True)
class Pooled:
    """One client that holds all: the centralised baseline. Evaluation still asks every person."""

    def shards(self, train: Table, seed: int) -> list[Named]:
        """A single shard."""
        return [(EVERYONE, np.arange(len(train.clients)))]

    def held_out(self, shards: Sequence[Named], train: Table, test: Table, seed: int) -> list[Asked]:
        """Everybody by name, served by the one client."""
        return [Asked(name, 0, rows) for name, rows in by_person(test)]


@dataclass(frozen=True)
class Iid:
    """Training pairs dealt at random to clients of equal size.

    Attributes:
        num_clients: number of clients.
        min_pairs: fewest training pairs of a client; fewer are an error.
    """

    num_clients: int = 100
    min_pairs: int = 1

    def __post_init__(self) -> None:
        _at_least_one("num_clients", self.num_clients)
        _at_least_one("min_pairs", self.min_pairs)

    def shards(self, train: Table, seed: int) -> list[Named]:
        """Clients whose sizes differ by at most one pair."""
        order = generator(seed, "partition", "order").permutation(len(train.clients))
        return cut(order, equal_sizes(len(order), self.num_clients, self.min_pairs))

    def held_out(self, shards: Sequence[Named], train: Table, test: Table, seed: int) -> list[Asked]:
        """Held-out pairs by topic, as training pairs lie."""
        return deal_like_training(shards, train, test, seed)


@dataclass(frozen=True)
class SizeSkew:
    """Training pairs dealt at random to clients of log-normal size.

    Attributes:
        num_clients: number of clients.
        sigma: standard deviation of the logarithm of the sizes; 0 gives equal sizes.
        min_pairs: what every client gets before the rest is dealt by size.
    """

    num_clients: int = 100
    sigma: float = 1.0
    min_pairs: int = 1

    def __post_init__(self) -> None:
        _at_least_one("num_clients", self.num_clients)
        _at_least_one("min_pairs", self.min_pairs)
        if not 0 <= self.sigma < math.inf:
            raise ConfigurationError(f"partition.sigma={self.sigma}: choose a number from 0 on")

    def shards(self, train: Table, seed: int) -> list[Named]:
        """Clients of very different sizes, none below ``min_pairs``."""
        order = generator(seed, "partition", "order").permutation(len(train.clients))
        equal_sizes(len(order), self.num_clients, self.min_pairs)
        logarithms = self.sigma * generator(seed, "partition", "sizes").standard_normal(self.num_clients)
        rest = len(order) - self.num_clients * self.min_pairs
        sizes = self.min_pairs + apportion(rest, np.exp(logarithms - logarithms.max()))
        return cut(order, sizes)

    def held_out(self, shards: Sequence[Named], train: Table, test: Table, seed: int) -> list[Asked]:
        """Held-out pairs by topic, as training pairs lie."""
        return deal_like_training(shards, train, test, seed)


@dataclass(frozen=True)
class Dirichlet:
    """Clients of equal size whose mixes of topics are drawn from a Dirichlet distribution.

    Client after client draws its mix q ~ Dir(alpha p), p being the shares of the topics not yet dealt
    out, and its pairs from q; where a topic runs out, the mix is drawn anew for the rest. So small
    ``alpha`` gives one topic a client, but for at most one client a topic that runs out under it;
    large ``alpha`` gives every client the mix of the whole.

    Attributes:
        num_clients: number of clients.
        alpha: concentration, above 0.
        min_pairs: fewest training pairs of a client; fewer are an error.

    Source: Hsu, Qi and Brown 2019, arXiv:1909.06335, section 3; here p follows the supply.
    """

    num_clients: int = 100
    alpha: float = 0.3
    min_pairs: int = 1

    def __post_init__(self) -> None:
        _at_least_one("num_clients", self.num_clients)
        _at_least_one("min_pairs", self.min_pairs)
        if not 0 < self.alpha < math.inf:
            raise ConfigurationError(f"partition.alpha={self.alpha}: choose a number above 0")

    def shards(self, train: Table, seed: int) -> list[Named]:
        """Clients of equal size, by topic."""
        if not any(train.topics):
            raise ConfigurationError(
                "partition.alpha: the rows have no topics; name their column in data.topic_column"
            )
        topics, topic_of = np.unique(np.asarray(train.topics, dtype=object), return_inverse=True)
        stacks = [
            generator(seed, "partition", "topic", str(topic)).permutation(np.flatnonzero(topic_of == k))
            for k, topic in enumerate(topics)
        ]
        supply = np.array([len(stack) for stack in stacks])
        sizes = equal_sizes(len(topic_of), self.num_clients, self.min_pairs)
        shards = []
        for client_id, size in enumerate(sizes):
            taken = self._draw(supply, int(size), generator(seed, "partition", "mix", client_id))
            start = [len(stack) - left for stack, left in zip(stacks, supply, strict=True)]
            rows = [stacks[k][start[k] : start[k] + taken[k]] for k in range(len(topics))]
            shards.append((client_name(client_id, self.num_clients), np.concatenate(rows)))
            supply = supply - taken
        return shards

    def held_out(self, shards: Sequence[Named], train: Table, test: Table, seed: int) -> list[Asked]:
        """Held-out pairs by topic, as training pairs lie."""
        return deal_like_training(shards, train, test, seed)

    def _draw(self, supply: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
        """How many pairs of each topic one client takes, shape (num_topics,)."""
        taken = np.zeros_like(supply)
        while (missing := size - int(taken.sum())) > 0:
            left = supply - taken
            there = np.flatnonzero(left)
            mix = rng.dirichlet(self.alpha * left[there] / left.sum())
            taken[there] += np.minimum(rng.multinomial(missing, mix), left[there])
        return taken


def _at_least_one(key: str, value: int) -> None:
    if value < 1:
        raise ConfigurationError(f"partition.{key}={value}: choose at least 1")
