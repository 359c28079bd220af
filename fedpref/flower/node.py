"""Which client a Flower node is, and what it owns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flwr.app import Context

from fedpref.errors import ConfigurationError
from fedpref.types import ClientId, Shard

__all__ = ["Shards", "partition_of", "shard_of"]

Shards = Sequence[Shard] | Callable[[ClientId], Shard]
"""Shard i of a sequence belongs to client i; a callable loads the shard of a partition id."""


def partition_of(context: Context) -> ClientId:
    """The client of a node, from ``partition-id`` in its node config.

    Raises:
        ConfigurationError: there is none, or it is no client.
    """
    partition = context.node_config.get("partition-id")
    if not isinstance(partition, int) or partition < 0:
        raise ConfigurationError(
            f"partition-id={partition!r} in the node config: give each node its shard's number, "
            "for a SuperNode with --node-config 'partition-id=0 num-partitions=10'"
        )
    return partition


def shard_of(shards: Shards, client_id: ClientId) -> Shard:
    """The shard of a client.

    Raises:
        ConfigurationError: there are fewer shards, or the shard is another client's.
    """
    if callable(shards):
        return shards(client_id)
    if client_id >= len(shards):
        raise ConfigurationError(f"partition-id={client_id}, but there are {len(shards)} shards")
    shard = shards[client_id]
    if shard.client_id != client_id:
        raise ConfigurationError(f"shard {client_id} is that of client {shard.client_id}")
    return shard
