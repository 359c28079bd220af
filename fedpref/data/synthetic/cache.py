"""Arrays kept on disk by content: one safetensors file an entry, written atomically, checked on reading."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fedpref.errors import StorageError

__all__ = ["default_cache_dir", "entry_name", "read", "write"]


def default_cache_dir() -> Path:
    """``$FEDPREF_CACHE``, else ``~/.cache/fedpref``."""
    return Path(os.environ.get("FEDPREF_CACHE") or Path.home() / ".cache" / "fedpref")


def entry_name(identity: Mapping[str, Any]) -> str:
    """File name of an entry: SHA-256 of its identity, a mapping of plain values."""
    text = json.dumps(identity, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return f"{hashlib.sha256(text.encode()).hexdigest()}.safetensors"


def read(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of an entry, or None if it is damaged.

    Raises:
        StorageError: there is no such entry, or it cannot be read.
    """
    try:
        with safe_open(path, framework="numpy") as entry:
            arrays = {key: entry.get_tensor(key) for key in entry.keys()}
            recorded = (entry.metadata() or {}).get("sha256")
    except SafetensorError:
        return None
    except OSError as error:
        raise StorageError(f"{path}: {error}; mend its permissions or set data.cache_dir") from error
    return arrays if recorded == _digest(arrays) else None


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an entry; other processes see the old entry, none, or the whole new one.

    Raises:
        StorageError: the folder is not writable or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
            whole = Path(folder) / path.name
            save_file(dict(arrays), whole, metadata={"sha256": _digest(arrays)})
            os.replace(whole, path)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{path.parent}: {error}; free space there or set data.cache_dir") from error


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for key in sorted(arrays):
        array = np.ascontiguousarray(arrays[key])
        digest.update(f"{key} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
