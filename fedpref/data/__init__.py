"""Rows in, a population out.

A source reads rows (``PreferenceFile``, ``HubDataset``), a ``PairSplit`` holds pairs out, a partition
rule gives the rest to clients, ``population`` puts them together; ``fedpref.data.synthetic`` makes up
a population with a known truth. This room may import ``datasets``, late, because that takes seconds
and only Parquet and the hub need it; it knows no torch, since shards are plain texts and arrays.
"""

from __future__ import annotations

from fedpref.data.assembly import held_out_people, pool, population
from fedpref.data.inspection import Inspection, inspect
from fedpref.data.partition import Dirichlet, Iid, Natural, Partition, Pooled, SizeSkew
from fedpref.data.rows import Rows
from fedpref.data.sources import HubDataset, PreferenceFile
from fedpref.data.split import PairSplit

__all__ = [
    "Dirichlet",
    "HubDataset",
    "Iid",
    "Inspection",
    "Natural",
    "PairSplit",
    "Partition",
    "Pooled",
    "PreferenceFile",
    "Rows",
    "SizeSkew",
    "held_out_people",
    "inspect",
    "pool",
    "population",
]
