"""What loaders of published sets share: their records, from the hub or from a copy, and the way into a table.

A published set has a layout of its own; a loader turns each record into a row of prompt, chosen, rejected
and labels. From there on ``collect`` reads it like any other rows. Records that do not belong are left out
and counted, so a message of ``collect`` numbers the rows that stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from fedpref.data.rows import Columns, Rows, collect
from fedpref.errors import ConfigurationError

__all__ = ["HubFolder", "LeftOut", "Record", "WrongLayout", "collect_published", "entry", "first_or_second"]

Record: TypeAlias = Mapping[str, Any]
"""One record of a published set, as its authors lay it out."""


class LeftOut(Exception):
    """The record is sound but does not belong; says why, in words that count alike records."""


class WrongLayout(Exception):
    """The record is none of this set; says what is wrong."""


@dataclass(frozen=True)
class HubFolder:
    """Where the files of a published set lie on the hub.

    Attributes:
        id: of the repository.
        revision: a commit, tag or branch; None follows the newest.
        folder: of the repository that holds the splits; None is its top.
        splits: which to read, in this order.
    """

    id: str
    revision: str | None
    folder: str | None
    splits: Sequence[str]

    def records(self, path: str | None = None) -> Iterator[Record]:
        """Download them, or read them from the cache of ``datasets``, or from a copy.

        Args:
            path: a copy, in place of the hub: a folder laid out as the repository is, or one file
                (.jsonl, .jsonl.gz, .parquet) that holds records of all splits.

        Raises:
            ConfigurationError: what should be read is not there, or cannot be read.
        """
        if path is None:
            for split in self.splits:
                # A converted branch has no card that names its configurations, but its folders are there.
                options = {"revision": self.revision, "data_dir": self.folder}
                yield from _load(f"data: {self.id}, split {split!r}", self.id, split, **options)
            return
        copy = Path(path).expanduser().resolve()  # a bare name could be that of a file format
        if not copy.exists():
            raise ConfigurationError(f"data.path={path}: no such file or folder")
        if copy.is_file():
            kind = "parquet" if ".parquet" in copy.suffixes else "json"
            yield from _load(f"data.path={path}", kind, "train", data_files=str(copy), streaming=True)
            return
        for split in self.splits:
            where = f"data.path={path}, split {split!r}"
            yield from _load(where, str(copy), split, data_dir=self.folder, streaming=True)


def collect_published(
    records: Iterable[Record], convert: Callable[[Record], Mapping[str, str]], source: str, columns: Columns
) -> Rows:
    """The table of the records that belong.

    Args:
        records: as the set lays them out.
        convert: one record to one row; raises ``LeftOut`` or ``WrongLayout``.
        source: the set, for messages.
        columns: which columns of the rows say what.

    Raises:
        ConfigurationError: a record of another layout, or what ``collect`` refuses.
    """
    left_out: Counter[str] = Counter()

    def rows() -> Iterator[Mapping[str, str]]:
        for number, record in enumerate(records):
            try:
                yield convert(record)
            except LeftOut as reason:
                left_out[str(reason)] += 1
            except WrongLayout as error:
                raise ConfigurationError(
                    f"{source}, record {number}: {error}; give records laid out as the set on the hub is"
                ) from None

    table = collect(rows(), source, columns)
    notes = [f"Records left out: {count} ({reason})." for reason, count in sorted(left_out.items())]
    return replace(table, dropped={**left_out, **table.dropped}, notes=(*table.notes, *notes))


def entry(record: Record, name: str) -> Any:
    """The value under ``name``, which must be there; it may be None.

    Raises:
        WrongLayout: it is not there.
    """
    if name not in record:
        raise WrongLayout(f"no field {name!r} among {', '.join(map(str, record)) or 'none'}")
    return record[name]


def first_or_second(record: Record, name: str) -> int:
    """A label that is 0 or 1.

    Raises:
        WrongLayout: it is anything else.
    """
    label = entry(record, name)
    if isinstance(label, bool) or label not in (0, 1):
        raise WrongLayout(f"{name} is {label!r:.40}, not 0 or 1")
    return int(label)


def _load(where: str, source: str, split: str, **options: Any) -> Iterator[Record]:
    import datasets

    try:
        yield from datasets.load_dataset(source, split=split, **options)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigurationError(f"{where}: cannot be read: {reason}") from error
