"""JSON lines that survive a crash: a cut last line costs one record, and resume can step back."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpref.errors import StorageError
from fedpref.report.storage import storage_errors, to_json

__all__ = ["JsonLines", "read_jsonl"]

_log = logging.getLogger(__name__)


class JsonLines:
    """Appends records to a file, one JSON object a line, each handed to the operating system at once.

    A line that was cut by a crash is removed when the file is opened again.

    Args:
        path: the file; created if absent.

    Raises:
        StorageError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with storage_errors(path):
            self._file = path.open("ab", buffering=0)
            whole = _end_of_last_line(path)
            if whole < path.stat().st_size:
                _log.warning("%s: the last line was cut and is removed", path)
                self._file.truncate(whole)
        self._offset = whole

    @property
    def offset(self) -> int:
        """Length of the file in bytes: what a checkpoint keeps for ``truncate_to``."""
        return self._offset

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record.

        Raises:
            StorageError: the disk is full; the file ends with the last whole record.
            TypeError: a value has no JSON form.
        """
        line = (to_json(record) + "\n").encode()
        with storage_errors(self.path):
            try:
                rest = memoryview(line)
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError:
                self._file.truncate(self._offset)
                raise
        self._offset += len(line)

    def truncate_to(self, offset: int) -> None:
        """Forget all records after ``offset``, an earlier value of ``offset``.

        Raises:
            StorageError: no record ends at ``offset``: this is not the file that was checkpointed.
        """
        if not 0 <= offset <= self._offset or not _is_line_end(self.path, offset):
            raise StorageError(f"{self.path} has no record that ends at byte {offset}; it was changed")
        with storage_errors(self.path):
            self._file.truncate(offset)
        self._offset = offset

    def sync(self) -> None:
        """Wait until everything is on the disk, as a checkpoint needs it.

        Raises:
            StorageError: the disk does not take it.
        """
        with storage_errors(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All complete records of a file; a cut last line is left out, an absent file has none.

    Raises:
        StorageError: the file is not readable, or a complete line is not a JSON object.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    return [_record(path, number, line) for number, line in enumerate(lines, start=1)]


def _record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise StorageError(f"{path}, line {number}, is damaged: not JSON ({error})") from error
    if not isinstance(record, dict):
        raise StorageError(f"{path}, line {number}, is damaged: not a JSON object")
    return record


def _end_of_last_line(path: Path) -> int:
    return path.read_bytes().rfind(b"\n") + 1


def _is_line_end(path: Path, offset: int) -> bool:
    if offset == 0:
        return True
    with path.open("rb") as file:
        file.seek(offset - 1)
        return file.read(1) == b"\n"
