"""Rows become a population: the split says on which side a row is, the partition who owns it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedpref.data.dealing import by_person
from fedpref.data.partition import Partition
from fedpref.data.rows import EVERYONE, Rows
from fedpref.data.split import PairSplit, straddling_texts
from fedpref.types import ClientId, HeldOut, Pairs, Population, Shard

__all__ = ["held_out_people", "pool", "population"]


def population(rows: Rows, partition: Partition, split: PairSplit, seed: int) -> Population:
    """Split rows by pair, give the training rows owners and the held-out rows people.

    Args:
        rows: what a source has read.
        partition: who owns what.
        split: what is held out where the rows do not say so themselves.
        seed: the run's seed; the split and the partition draw at addresses of their own.

    Raises:
        ConfigurationError: the rows' split parts a pair, a side is empty, or a client has too few pairs.
    """
    is_held_out = split.is_held_out(rows, seed)
    train, test = rows.take(np.flatnonzero(~is_held_out)), rows.take(np.flatnonzero(is_held_out))
    owned = partition.shards(train, seed)
    asked = partition.held_out(owned, train, test, seed)
    shards = [
        Shard(client_id, name, train.take(numbers).pairs) for client_id, (name, numbers) in enumerate(owned)
    ]
    held_out = [HeldOut(name, client_id, test.take(numbers).pairs) for name, client_id, numbers in asked]
    notes = (*rows.notes, *_split_notes(rows, is_held_out, split), *_owner_notes(train, shards, held_out))
    return Population(shards, held_out, notes=notes)


def pool(population: Population) -> Population:
    """The same pairs on one client: the centralised baseline of any population.

    Everybody is asked the same pairs as before, so per-person figures and the truth stay comparable. Who has
    shots stays a newcomer.
    """
    everything = Pairs.concatenated([shard.pairs for shard in population.shards])
    return Population(
        shards=[Shard(0, EVERYONE, everything)],
        held_out=[
            HeldOut(asked.name, 0, asked.pairs) if asked.shots is None else asked
            for asked in population.held_out
        ],
        truth=population.truth,
        notes=(*population.notes, f"{len(population)} clients are pooled into one."),
    )


def held_out_people(rows: Rows, client_of: Mapping[str, ClientId]) -> list[HeldOut]:
    """All rows as held-out sets, one a person, for a model that was trained elsewhere.

    Args:
        rows: what to ask; a split column plays no part.
        client_of: clients of the trained population by name; others are newcomers.
    """
    return [HeldOut(name, client_of.get(name), rows.take(numbers).pairs) for name, numbers in by_person(rows)]


def _split_notes(rows: Rows, is_held_out: np.ndarray, split: PairSplit) -> list[str]:
    num_held_out = int(is_held_out.sum())
    rule = "the rows' own split" if rows.has_split else f"{split.held_out_fraction:.0%} of the pairs, drawn"
    notes = [f"Training rows: {len(rows) - num_held_out}; held out: {num_held_out} ({rule})."]
    if twins := straddling_texts(rows, is_held_out):
        notes.append(f"Held-out text pairs that occur in training too, under another pair id: {twins}.")
    return notes


def _owner_notes(train: Rows, shards: Sequence[Shard], held_out: Sequence[HeldOut]) -> list[str]:
    notes = []
    if unused := len(train) - sum(len(shard.pairs) for shard in shards):
        notes.append(f"Training rows not used, of people below partition.min_pairs: {unused}.")
    if newcomers := [asked.name for asked in held_out if asked.client_id is None]:
        notes.append(f"Asked as newcomers, since they train nothing: {_some(newcomers)}.")
    served = {asked.client_id for asked in held_out}
    if untested := [shard.name for shard in shards if shard.client_id not in served]:
        notes.append(f"Clients that train but have no held-out pairs: {_some(untested)}.")
    return notes


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})"
