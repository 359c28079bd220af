"""What a frozen model computes for a text is computed once: in memory, on disk, for all processes.

A file is named by the SHA-256 of fingerprint and text, and ends with the SHA-256 of its content. Writers
replace whole files, so readers and other writers never meet half of one; a damaged file is recomputed.
Large arrays are mapped from their files, never held: the system drops their pages when it needs the room.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedpref.errors import StorageError

__all__ = ["ActivationCache", "Recent", "cache_folder", "recall"]

_DIGEST_BYTES = 32
_LEAST_MAPPED_BYTES = 16 * 2**10
"""A map takes whole pages, and Linux allows about 65,000 a process: too few for feature vectors."""

_LOOKS = 64
"""How often the folder is looked through while as much is written as may be there."""


@dataclass
class Recent:
    """The values that were asked for last.

    Attributes:
        max_bytes: of all of them together; those of mapped files count, too.
        max_entries: each may be a memory map.
    """

    max_bytes: int = 2 * 2**30
    max_entries: int = 50_000
    _values: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    _bytes: int = 0

    def get(self, key: tuple[str, str]) -> np.ndarray | None:
        """The value, if it is still there; it is now the last to go."""
        value = self._values.pop(key, None)
        if value is not None:
            self._values[key] = value
        return value

    def keep(self, key: tuple[str, str], value: np.ndarray) -> None:
        """Keep a new value; the oldest go."""
        self._values[key] = value
        self._bytes += value.nbytes
        while self._bytes > self.max_bytes or len(self._values) > self.max_entries:
            oldest = self._values.pop(next(iter(self._values)))
            self._bytes -= oldest.nbytes


_recent = Recent()
_written_bytes: dict[Path, int] = {}  # since this process last looked through the folder


def cache_folder() -> Path:
    """``$FEDPREF_CACHE``, or ``~/.cache/fedpref``."""
    return Path(os.environ.get("FEDPREF_CACHE") or Path.home() / ".cache" / "fedpref")


def recall(
    fingerprint: str, texts: Sequence[str], compute: Callable[[str], np.ndarray]
) -> dict[str, np.ndarray]:
    """The value of every distinct text, from the memory of this process or from ``compute``.

    Args:
        fingerprint: identity of ``compute``.
        texts: may repeat.
        compute: a pure function of one text.
    """
    values = {}
    for text in dict.fromkeys(texts):
        key = (fingerprint, text)
        value = _recent.get(key)
        if value is None:
            value = compute(text)
            _recent.keep(key, value)
        values[text] = value
    return values


@dataclass(frozen=True)
class ActivationCache:
    """Arrays on disk by the content of the text that gave them.

    Attributes:
        fingerprint: identity of the function whose values are kept.
        folder: where; shared by all processes and runs of a machine.
        max_bytes: the oldest files go when all of them together exceed this; a process may be late by 1/64.
    """

    fingerprint: str
    folder: Path = field(default_factory=lambda: cache_folder() / "activations")
    max_bytes: int = 16 * 2**30

    def path(self, text: str) -> Path:
        """Where the value of ``text`` is kept."""
        name = hashlib.sha256(f"{self.fingerprint}\0{text}".encode(errors="surrogatepass")).hexdigest()
        return self.folder / name[:2] / f"{name}.npy"

    def read(self, text: str) -> np.ndarray | None:
        """The value, read-only, mapped into memory unless it is small; None if it is absent or damaged."""
        path = self.path(text)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            return None
        value: np.ndarray
        if len(body) < _LEAST_MAPPED_BYTES:
            value = np.load(io.BytesIO(body), allow_pickle=False)
            value.setflags(write=False)
            return value
        try:
            value = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:  # trimmed by another process since
            return None
        return value

    def write(self, text: str, value: np.ndarray) -> None:
        """Keep a value; concurrent writers of one text replace each other whole.

        Raises:
            StorageError: the folder cannot be written.
        """
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(value), allow_pickle=False)
        body = buffer.getvalue()
        path = self.path(text)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(body + hashlib.sha256(body).digest())
                os.replace(partial, path)
            except BaseException:
                Path(partial).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise StorageError(
                f"the activation cache {self.folder} cannot be written ({error}); "
                "set FEDPREF_CACHE to a writable folder with room"
            ) from error
        written = _written_bytes.get(self.folder, self.max_bytes) + len(body)  # a first look at once
        _written_bytes[self.folder] = written
        if written > self.max_bytes // _LOOKS:
            self.trim()

    def recall(self, texts: Sequence[str], compute: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
        """The value of every distinct text: from memory, else from disk, else from ``compute``.

        ``compute`` sees one text at a time, so that a value cannot depend on its neighbours; it sees
        them in order of length, so that buffers of one size are used again.
        """
        return recall(self.fingerprint, _by_length(texts), lambda text: self._load(text, compute))

    def fill(self, texts: Sequence[str], compute: Callable[[str], np.ndarray]) -> None:
        """As ``recall`` for texts of which memory may not hold all values at once: it ends with the last."""
        for text in _by_length(texts):
            self.recall([text], compute)

    def trim(self) -> None:
        """Delete the oldest files until at most ``max_bytes`` are left."""
        _written_bytes[self.folder] = 0
        found = []
        for path in self.folder.glob("*/*.npy"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another process trims too
                continue
            found.append((status.st_mtime_ns, path, status.st_size))
        total = sum(size for _, _, size in found)
        for _, path, size in sorted(found):
            if total <= self.max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size

    def _load(self, text: str, compute: Callable[[str], np.ndarray]) -> np.ndarray:
        value = self.read(text)
        if value is None:
            computed = compute(text)
            self.write(text, computed)
            value = self.read(text)
            if value is None:  # trimmed at once
                return computed
        return value


def _by_length(texts: Sequence[str]) -> list[str]:
    return sorted(set(texts), key=lambda text: (len(text), text))
