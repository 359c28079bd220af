"""Which options are best is asked on training pairs, part of which is held out for that; never on test pairs.

A pair that several people judged, or one person in both orders, is asked of all of them or of nobody: what is
asked was trained on by no one.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.seeds import generator
from fedpref.types import ClientId, HeldOut, Pairs, Population, Shard

__all__ = ["for_choice"]

_Place: TypeAlias = tuple[ClientId, int]
"""A client, and a row of its shard."""


def for_choice(population: Population, *, seed: int, share: float = 0.25) -> Population:
    """The same clients, each asked about a part of what it would train on.

    Of n pairs a client is asked at most n times ``share``, rounded, and keeps at least one to train on; so
    who has too few is left whole and not asked. Groups of equal pairs are taken in random order, each if all
    its owners have room: so where people share pairs, some are asked a little less than the share.

    The evaluation sets of ``population``, newcomers among them, and its truth are left out. All shards are
    made, lazy ones too.

    Args:
        population: whose training pairs are divided.
        seed: of the draw; equal seeds give equal parts, in whatever order the clients stand.
        share: of each client's training pairs, in (0, 1).

    Raises:
        ConfigurationError: the share is not in (0, 1), or nobody has a pair to spare.
    """
    if not 0 < share < 1:
        raise ConfigurationError(f"share={share}: choose a share between 0 and 1")
    shards = tuple(population.shards)
    room = [min(math.floor(share * len(shard.pairs) + 0.5), len(shard.pairs) - 1) for shard in shards]
    is_asked = [np.zeros(len(shard.pairs), dtype=bool) for shard in shards]
    groups = _equal_pairs(shards)
    for index in generator(seed, "validation").permutation(len(groups)):
        wanted: dict[ClientId, list[int]] = {}
        for client, row in groups[index]:
            wanted.setdefault(client, []).append(row)
        if all(len(rows) <= room[client] for client, rows in wanted.items()):
            for client, rows in wanted.items():
                is_asked[client][rows] = True
                room[client] -= len(rows)
    held_out = [
        HeldOut(shard.name, shard.client_id, shard.pairs.take(np.flatnonzero(asked)))
        for shard, asked in zip(shards, is_asked, strict=True)
        if asked.any()
    ]
    if not held_out:
        raise ConfigurationError(
            f"no pair of {len(shards)} clients can be held out to choose options on: everybody, or somebody "
            "who shares the pair, has too few; give clients more pairs, as with partition.min_pairs=4"
        )
    kept = [
        replace(shard, pairs=shard.pairs.take(np.flatnonzero(~asked)))
        for shard, asked in zip(shards, is_asked, strict=True)
    ]
    note = (
        f"To choose options, {sum(len(asked.pairs) for asked in held_out)} of "
        f"{sum(len(shard.pairs) for shard in shards)} training pairs are held out, of {len(held_out)} of "
        f"{len(shards)} clients; test pairs are not touched."
    )
    return Population(kept, held_out, notes=(*population.notes, note))


def _equal_pairs(shards: Sequence[Shard]) -> list[list[_Place]]:
    """Where each pair stands: places with one ``pair_id``, or one content, are one pair.

    The groups are in the order of their smallest ``pair_id``, whatever the order of the shards.
    """
    parent: dict[str, str] = {}

    def root(pair_id: str) -> str:
        while parent[pair_id] != pair_id:
            parent[pair_id] = pair_id = parent[parent[pair_id]]
        return pair_id

    first_with: dict[Hashable, str] = {}
    for shard in shards:
        for row, pair_id in enumerate(shard.pairs.pair_ids):
            parent.setdefault(pair_id, pair_id)
            other = first_with.setdefault(_content(shard.pairs, row), pair_id)
            low, high = sorted((root(pair_id), root(other)))
            parent[high] = low
    groups: dict[str, list[_Place]] = {}
    for shard in shards:
        for row, pair_id in enumerate(shard.pairs.pair_ids):
            groups.setdefault(root(pair_id), []).append((shard.client_id, row))
    return [groups[pair_id] for pair_id in sorted(groups)]


def _content(pairs: Pairs, row: int) -> Hashable:
    """The same for both orders of a pair, and for no other pair."""
    sides = (pairs.chosen[row], pairs.rejected[row])
    return pairs.prompts[row], frozenset(
        side.tobytes() if isinstance(side, np.ndarray) else side for side in sides
    )
