"""What a frozen model computes for a text is computed once: in memory, on disk, for all processes.

A file is named by the SHA-256 of fingerprint and text, and ends with the SHA-256 of its content. Writers
replace whole files, so readers and other writers never meet half of one; a damaged file is recomputed.
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

__all__ = ["ActivationCache", "cache_folder", "recall"]

_DIGEST_BYTES = 32
_MEMORY_ENTRIES = 50_000  # also bounds the memory maps held open; Linux allows about 65,000 a process
_memory: dict[tuple[str, str], np.ndarray] = {}


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
        value = _memory.get(key)
        if value is None:
            value = compute(text)
            while len(_memory) >= _MEMORY_ENTRIES:
                del _memory[next(iter(_memory))]
            _memory[key] = value
        values[text] = value
    return values


@dataclass(frozen=True)
class ActivationCache:
    """Arrays on disk by the content of the text that gave them.

    Attributes:
        fingerprint: identity of the function whose values are kept.
        folder: where; shared by all processes and runs of a machine.
        max_bytes: the oldest files go when all of them together exceed this.
    """

    fingerprint: str
    folder: Path = field(default_factory=lambda: cache_folder() / "activations")
    max_bytes: int = 16 * 2**30

    def path(self, text: str) -> Path:
        """Where the value of ``text`` is kept."""
        name = hashlib.sha256(f"{self.fingerprint}\0{text}".encode(errors="surrogatepass")).hexdigest()
        return self.folder / name[:2] / f"{name}.npy"

    def read(self, text: str) -> np.ndarray | None:
        """The value, mapped into memory read-only; None if it is absent or damaged."""
        path = self.path(text)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            return None
        try:
            mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:  # trimmed by another process since
            return None
        return mapped

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

    def recall(self, texts: Sequence[str], compute: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
        """The value of every distinct text: from memory, else from disk, else from ``compute``.

        ``compute`` sees one text at a time, so that a value cannot depend on its neighbours; it sees
        them in order of length, so that buffers of one size are used again.
        """
        wrote = False

        def load(text: str) -> np.ndarray:
            nonlocal wrote
            value = self.read(text)
            if value is None:
                value = compute(text)
                self.write(text, value)
                wrote = True
            return value

        values = recall(self.fingerprint, sorted(texts, key=lambda text: (len(text), text)), load)
        if wrote:
            self.trim()
        return values

    def trim(self) -> None:
        """Delete the oldest files until at most ``max_bytes`` are left."""
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
