"""Pools of Ray actors as settings: what one may ask for, and whether a cluster can give it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from fedpref.errors import ConfigurationError, did_you_mean

__all__ = ["Pool", "check_fit", "check_pool", "pool_of", "total_demand"]

_LEAST_SHARE = 0.0001  # Ray counts in these


@dataclass(frozen=True)
class Pool:
    """Actors that are alike.

    Attributes:
        num_workers: actors.
        num_cpus: CPUs that an actor reserves; may be a fraction.
        num_gpus: GPUs that an actor reserves, and all that it sees; may be a fraction of one, of which the
            memory is the actors' own to share out.
        resources: custom Ray resources that an actor reserves.
    """

    num_workers: int = 2
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)

    @property
    def demand(self) -> dict[str, float]:
        """What one actor reserves, by the names that Ray gives to resources; without zeros."""
        amounts = {"CPU": self.num_cpus, "GPU": self.num_gpus, **self.resources}
        return {name: amount for name, amount in amounts.items() if amount > 0}


def pool_of(name: str, given: Pool | Mapping[str, Any], default: Pool) -> Pool:
    """The pool of device class ``name``; options that are not given are those of ``default``.

    Raises:
        ConfigurationError: an option that no pool has.
    """
    if isinstance(given, Pool):
        return given
    key, options = f"executor.pools.{name}", [option.name for option in fields(Pool)]
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{key}={given!r:.80} must hold options; set {key}.num_workers=2")
    for option in given:
        if option not in options:
            raise ConfigurationError(
                f"unknown option '{key}.{option}'.{did_you_mean(str(option), options)} "
                f"A pool takes {', '.join(options)}"
            )
    return Pool(**{option: given.get(option, getattr(default, option)) for option in options})


def check_pool(key: str, pool: Pool, least_workers: int = 1) -> None:
    """Raise ConfigurationError if no cluster could ever hold this pool; ``key`` is its configuration key."""
    if not isinstance(pool.num_workers, int) or pool.num_workers < least_workers:
        raise ConfigurationError(f"{key}.num_workers={pool.num_workers!r} must be at least {least_workers}")
    if not isinstance(pool.resources, Mapping):
        raise ConfigurationError(
            f"{key}.resources={pool.resources!r:.80} must name resources; set {key}.resources.NAME=1"
        )
    amounts = {"num_cpus": pool.num_cpus, "num_gpus": pool.num_gpus}
    amounts |= {f"resources.{name}": amount for name, amount in pool.resources.items()}
    for name, amount in amounts.items():
        if not isinstance(amount, (int, float)) or not 0 <= amount < math.inf:
            raise ConfigurationError(f"{key}.{name}={amount!r} must be a number, 0 or more")
        if 0 < amount < _LEAST_SHARE:
            raise ConfigurationError(
                f"{key}.{name}={amount!r} is below {_LEAST_SHARE}, the least of Ray's shares"
            )
    if pool.num_gpus > 1 and pool.num_gpus != int(pool.num_gpus):
        raise ConfigurationError(f"{key}.num_gpus={pool.num_gpus} above 1 must be whole: Ray splits one GPU")


def total_demand(pools: Mapping[str, Pool]) -> dict[str, float]:
    """What all actors of all pools reserve, by the names that Ray gives to resources."""
    total: dict[str, float] = {}
    for pool in pools.values():
        for name, amount in pool.demand.items():
            total[name] = total.get(name, 0.0) + amount * pool.num_workers
    return total


def check_fit(pools: Mapping[str, Pool], nodes: Sequence[Mapping[str, float]]) -> None:
    """Check that a cluster has what all pools together reserve.

    Args:
        pools: by configuration key.
        nodes: resources of each living node, by name.

    Raises:
        ConfigurationError: it has too little in all, or no node has room for an actor.
    """
    for name, amount in total_demand(pools).items():
        available = sum(node.get(name, 0.0) for node in nodes)
        if amount > available + 1e-9:
            key = max(pools, key=lambda key: total_demand({key: pools[key]}).get(name, 0.0))
            raise ConfigurationError(
                f"{key}.num_workers={pools[key].num_workers}: the actors need {amount:g} {name} in all "
                f"and the cluster has {available:g}; ask for fewer or less"
            )
    for key, pool in pools.items():
        _check_shares(key, pool, sum(node.get("GPU", 0.0) for node in nodes))
        if not any(all(node.get(n, 0.0) >= amount for n, amount in pool.demand.items()) for node in nodes):
            needs = " and ".join(f"{amount:g} {name}" for name, amount in pool.demand.items())
            raise ConfigurationError(
                f"{key}: an actor needs {needs} on one node and no node of the cluster has that; ask for less"
            )


def _check_shares(key: str, pool: Pool, num_gpus: float) -> None:
    """An actor's share is of one GPU: what is left of several is no share, so two of 0.6 need two GPUs."""
    if not 0 < pool.num_gpus < 1:
        return
    on_one = math.floor(1 / pool.num_gpus + 1e-9)
    if pool.num_workers > on_one * num_gpus:
        raise ConfigurationError(
            f"{key}.num_gpus={pool.num_gpus:g}: a GPU has room for {on_one} such actors, the cluster has "
            f"{num_gpus:g} GPUs, and {key}.num_workers={pool.num_workers}; ask for fewer or less"
        )
