"""Files that are whole or absent: atomic text and JSON, hashes, and storage errors that name the path."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fedpref.errors import StorageError

__all__ = ["read_json", "sha256_of", "storage_errors", "to_json", "write_json", "write_text"]


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a StorageError that names ``path`` and the free space.

    Raises:
        StorageError: the block raised an OSError.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"cannot write {path}: {reason}{_free_space(path)}") from error


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON with sorted keys; NumPy numbers become plain ones.

    JSON has no NaN and no infinity: a number that is not finite is written as null.

    Raises:
        TypeError: a value has no JSON form.
    """
    return json.dumps(_plain(value), sort_keys=True, ensure_ascii=False, allow_nan=False, indent=indent)


def write_text(path: Path, text: str) -> None:
    """Write a file as a whole: a reader sees the old text or the new one, also after a crash.

    Raises:
        StorageError: the disk is full or the path is not writable; the old file is intact.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with storage_errors(path):
        try:
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, as a whole.

    Raises:
        StorageError: the disk is full or the path is not writable; the old file is intact.
        TypeError: a value has no JSON form.
    """
    write_text(path, to_json(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        StorageError: the file is absent, not readable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise StorageError(f"{path} is damaged: it is not JSON ({error})") from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
        StorageError: the file is not readable.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    return value


def _free_space(path: Path) -> str:
    """`` (… bytes free)`` of the disk that holds ``path``, as far as it can be asked."""
    for folder in path.parents:
        if folder.is_dir():
            return f" ({shutil.disk_usage(folder).free} bytes free)"
    return ""
