"""Where preference rows come from: a local file, or a dataset of the Hugging Face hub."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from fedpref.data.rows import TEST, TRAIN, Columns, Rows, collect
from fedpref.errors import ConfigurationError

__all__ = ["HubDataset", "PreferenceFile", "Source"]

_GZIP_MAGIC, _PARQUET_MAGIC = b"\x1f\x8b", b"PAR1"


class Source(Protocol):
    """Where rows come from."""

    def rows(self) -> Rows:
        """Read them all.

        Raises:
            ConfigurationError: they cannot be read, or a column or row is wrong.
        """
        ...


@dataclass(frozen=True)
class PreferenceFile(Columns):
    """Rows of a file: JSON lines, gzipped JSON lines or Parquet, recognised by its first bytes.

    Attributes:
        path: the file.
    """

    path: str

    def rows(self) -> Rows:
        """Read the file.

        Raises:
            ConfigurationError: the file cannot be read, or a column or row is wrong.
        """
        return collect(self.records(), Path(self.path).name, self)

    def records(self) -> list[Mapping[str, object]]:
        """The rows as the file has them.

        Raises:
            ConfigurationError: the file cannot be read.
        """
        path = Path(self.path).expanduser()
        try:
            with path.open("rb") as file:
                magic = file.read(4)
            if magic == _PARQUET_MAGIC:
                return _parquet(path)
            return list(_json_lines(path, is_gzip=magic.startswith(_GZIP_MAGIC)))
        except FileNotFoundError:
            raise ConfigurationError(f"data.path={self.path}: no such file") from None
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise ConfigurationError(f"data.path={self.path}: cannot be read: {error}") from error


@dataclass(frozen=True)
class HubDataset(Columns):
    """Rows of a dataset of the Hugging Face hub, or of a local folder in that layout.

    Code that a dataset may carry is never run.

    Attributes:
        id: such as ``trl-lib/ultrafeedback_binarized``.
        revision: a commit or tag; None follows the newest, which a note then says.
        config: the configuration, for datasets that have several.
        split: the split to read.
        test_split: a second split, held out whole; None: hold out by ``split_column`` or by pair.
    """

    id: str
    revision: str | None = None
    config: str | None = None
    split: str = "train"
    test_split: str | None = None

    def rows(self) -> Rows:
        """Download, or read from the cache of ``datasets``.

        Raises:
            ConfigurationError: the dataset cannot be loaded, or a column or row is wrong.
        """
        rows = collect(self._records(), self.id, self)
        if self.revision is None:
            return replace(rows, notes=(*rows.notes, "No revision is pinned: the newest was read."))
        return rows

    def _records(self) -> Iterable[Mapping[str, object]]:
        if self.test_split is None:
            return self._load(self.split)
        if self.split_column is None:
            raise ConfigurationError(
                f"data.test_split={self.test_split}: "
                "its rows are marked in data.split_column, which must not be null"
            )
        sides = {TRAIN: self.split, TEST: self.test_split}
        return [{**row, self.split_column: side} for side, name in sides.items() for row in self._load(name)]

    def _load(self, split: str) -> Iterable[Mapping[str, object]]:
        import datasets

        try:
            return datasets.load_dataset(  # type: ignore[no-any-return]
                self.id, name=self.config, split=split, revision=self.revision
            )
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ConfigurationError(
                f"data.id={self.id}, split {split!r}: cannot be loaded: {reason}"
            ) from error


def _json_lines(path: Path, is_gzip: bool) -> Iterator[Mapping[str, object]]:
    with gzip.open(path, "rt", encoding="utf-8") if is_gzip else path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ConfigurationError(
                    f"{path.name}, line {number}: no JSON ({error}); write one JSON object a line"
                ) from None
            if not isinstance(row, dict):
                raise ConfigurationError(
                    f"{path.name}, line {number}: a {type(row).__name__}; write one JSON object a line"
                )
            yield row


def _parquet(path: Path) -> list[Mapping[str, object]]:
    import datasets

    try:
        # Streaming reads the file in place; otherwise datasets copies it into its cache first.
        return list(datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True))
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigurationError(f"data.path={path}: no valid Parquet file: {error}") from error
