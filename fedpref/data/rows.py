"""Preference rows as an immutable table, and the reading of records into it.

A row is one judgement: one person preferred one response to another. Rows know who judged (`clients`),
about what (`topics`), which unordered pair it was (`pair_ids`) and, if the source says so, on which side
of the split it belongs. Row numbers in messages count from 0.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fedpref.data.formats import BadRow, TextPair, read_row
from fedpref.errors import ConfigurationError, did_you_mean
from fedpref.types import Pairs

__all__ = ["EVERYONE", "TEST", "TRAIN", "Columns", "Rows", "collect", "text_pair_id"]

TRAIN, TEST = "train", "test"
"""The two values of a split column."""

EVERYONE = "everyone"
"""The one client of rows that name none, and of a pooled population."""

_COLUMNS = ("prompts", "chosen", "rejected", "clients", "topics", "splits", "pair_ids")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns say what, beside ``prompt``, ``chosen`` and ``rejected``.

    Attributes:
        client_column: who owns the row; must be there. None: all rows belong to one client.
        topic_column: for Dirichlet partitions and reports.
        split_column: ``train`` or ``test``; honoured where it is there. None: split anew.
        pair_id_column: identity of the unordered pair; where absent, a hash of its texts.
            Of these three columns, only a name that differs from the default must be there.
        bad_rows: ``error`` stops at the first row that cannot be used, ``drop`` leaves such rows
            out and counts them by reason.

    Raises:
        ConfigurationError: ``bad_rows`` is neither.
    """

    client_column: str | None = "annotator"
    topic_column: str | None = "domain"
    split_column: str | None = "split"
    pair_id_column: str | None = "source_id"
    bad_rows: str = "error"

    def __post_init__(self) -> None:
        if self.bad_rows not in ("error", "drop"):
            raise ConfigurationError(f"data.bad_rows={self.bad_rows!r}: write 'error' or 'drop'")


@dataclass(frozen=True)
class Rows:
    """Judgements, column by column.

    Attributes:
        prompts: texts; empty where there is no prompt.
        chosen: the preferred responses.
        rejected: the other responses.
        clients: who judged.
        topics: empty strings where unknown.
        splits: ``train`` or ``test``; all empty where the source has no split.
        pair_ids: identity of the unordered pair.
        source: where the rows come from, for messages.
        dropped: number of rows left out, by reason.
        formats: number of rows, by preference format.
        notes: what a reader of the results should know, one sentence each.
    """

    prompts: tuple[str, ...]
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]
    clients: tuple[str, ...]
    topics: tuple[str, ...]
    splits: tuple[str, ...]
    pair_ids: tuple[str, ...]
    source: str = ""
    dropped: Mapping[str, int] = field(default_factory=dict)
    formats: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in _COLUMNS}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of Rows differ in length: {lengths}")

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def has_split(self) -> bool:
        """True if the source says which rows are held out."""
        return any(self.splits)

    def take(self, rows: Sequence[int] | np.ndarray) -> Rows:
        """The rows at ``rows``, in that order."""
        columns: dict[str, Any] = {
            name: tuple(getattr(self, name)[int(row)] for row in rows) for name in _COLUMNS
        }
        return replace(self, **columns)

    @property
    def pairs(self) -> Pairs:
        """The pairs, without their owners."""
        return Pairs(self.prompts, self.chosen, self.rejected, self.pair_ids, self.topics)


def text_pair_id(pair: TextPair) -> str:
    """Identity of an unordered pair by its texts: 64 bits of SHA-256, the same for both orders."""
    texts = json.dumps([pair.prompt, *sorted((pair.chosen, pair.rejected))])
    return hashlib.sha256(texts.encode()).hexdigest()[:16]


def collect(records: Iterable[Mapping[str, object]], source: str, columns: Columns) -> Rows:
    """Read records into a table.

    Args:
        records: one mapping a row; columns that are not named are ignored.
        source: where they come from, for messages: a file, a dataset id.
        columns: which columns say what.

    Raises:
        ConfigurationError: no rows, a column is missing, or a row is bad and ``bad_rows`` is ``error``.
    """
    table = list(records)
    if not table:
        raise ConfigurationError(f"{source} holds no rows; give preference rows with 'chosen' and 'rejected'")
    known = _check_columns(table, source, columns)
    read: list[tuple[str, ...]] = []
    dropped: Counter[str] = Counter()
    formats: Counter[str] = Counter()
    for number, record in enumerate(table):
        try:
            pair = read_row(record)
            labels = (
                _label(record, known.client_column, "client") or EVERYONE,
                _label(record, known.topic_column, "topic"),
                _side_of_split(_label(record, known.split_column, "split"), known.split_column),
                _label(record, known.pair_id_column, "pair id") or text_pair_id(pair),
            )
        except BadRow as bad:
            if columns.bad_rows == "error":
                raise ConfigurationError(
                    f"{source}, row {number}: {bad.reason}; {bad.mend}, or set data.bad_rows=drop"
                ) from None
            dropped[bad.reason] += 1
            continue
        formats[pair.form] += 1
        # Real sets repeat texts heavily; one object a text keeps shards small in memory and on the wire.
        read.append(tuple(sys.intern(text) for text in (*pair[:3], *labels)))
    if not read:
        raise ConfigurationError(f"{source}: all {len(table)} rows were dropped ({_counts(dropped)})")
    notes = [f"{source}: {len(read)} rows ({_counts(formats)})."]
    if dropped:
        notes.append(f"Rows dropped: {sum(dropped.values())} ({_counts(dropped)}).")
    if known.pair_id_column is None:
        notes.append("Pairs are identified by their texts.")
    prompts, chosen, rejected, clients, topics, splits, pair_ids = zip(*read, strict=True)
    return Rows(
        prompts=prompts,
        chosen=chosen,
        rejected=rejected,
        clients=clients,
        topics=topics,
        splits=splits,
        pair_ids=pair_ids,
        source=source,
        dropped=dict(dropped),
        formats=dict(formats),
        notes=tuple(notes),
    )


def _check_columns(table: Sequence[Mapping[str, object]], source: str, columns: Columns) -> Columns:
    """``columns`` without the optional ones that the table lacks."""
    found = list(dict.fromkeys(name for record in table for name in record))
    for name in ("chosen", "rejected"):
        if name not in found:
            raise ConfigurationError(
                f"{source}: no column {name!r}.{did_you_mean(name, found)} "
                f"Columns found: {', '.join(found)}; preference rows need 'chosen' and 'rejected'"
            )
    there: dict[str, str | None] = {}
    for key in ("client_column", "topic_column", "split_column", "pair_id_column"):
        name = getattr(columns, key)
        if name in found or name is None:
            there[key] = name
        elif key != "client_column" and name == getattr(Columns, key):
            there[key] = None
        else:
            raise ConfigurationError(
                f"data.{key}={name}: {source} has no such column.{did_you_mean(name, found)} "
                f"Columns found: {', '.join(found)}; name one of them, or null"
            )
    return Columns(**there, bad_rows=columns.bad_rows)


def _label(record: Mapping[str, object], column: str | None, meaning: str) -> str:
    if column is None:
        return ""
    value = record.get(column)
    if not isinstance(value, (str, int, float)) or not str(value).strip() or value != value:
        raise BadRow(f"the {meaning} is missing (column {column!r})", "fill it in")
    return str(value)


def _side_of_split(side: str, column: str | None) -> str:
    if column is not None and side not in (TRAIN, TEST):
        raise BadRow(
            f"the split is {side!r} (column {column!r})",
            f"write {TRAIN!r} or {TEST!r}, set data.split_column=null to split anew",
        )
    return side


def _counts(counter: Mapping[str, int]) -> str:
    return "; ".join(f"{what}: {number}" for what, number in sorted(counter.items()))
