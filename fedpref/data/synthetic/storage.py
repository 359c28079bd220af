"""Candidates as arrays and back, so that written texts can be kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

import numpy as np

from fedpref.data.synthetic.candidates import Candidates

__all__ = ["generator_version", "pack", "unpack"]

_SEPARATOR = "\0"


@cache
def generator_version() -> str:
    """SHA-256 over the sources, phrases and constants of this room and NumPy's version.

    So texts of an older generator are never served, and nobody has to remember to raise a number.
    """
    digest = hashlib.sha256(np.__version__.encode())
    for file in sorted(resources.files(__package__).iterdir(), key=lambda file: file.name):
        if file.name.endswith((".py", ".json")):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def pack(parts: Sequence[Candidates]) -> dict[str, np.ndarray]:
    """One set of arrays for all ``parts``, which are text."""
    arrays = {
        key: np.concatenate([getattr(part, key) for part in parts])
        for key in ("topics", "psi_first", "psi_second")
    }
    for key in ("prompts", "first", "second"):
        column = _SEPARATOR.join(text for part in parts for text in getattr(part, key))
        arrays[key] = np.frombuffer(column.encode("utf-8"), dtype=np.uint8)
    return {**arrays, "sizes": np.array([len(part) for part in parts], dtype=np.int64)}


def unpack(arrays: Mapping[str, np.ndarray]) -> list[Candidates]:
    """The parts that ``pack`` was given."""
    texts = {
        key: arrays[key].tobytes().decode("utf-8").split(_SEPARATOR) for key in ("prompts", "first", "second")
    }
    parts, start = [], 0
    for size in arrays["sizes"].tolist():
        rows = slice(start, start + size)
        parts.append(
            Candidates(
                prompts=tuple(texts["prompts"][rows]),
                topics=arrays["topics"][rows],
                first=tuple(texts["first"][rows]),
                second=tuple(texts["second"][rows]),
                psi_first=arrays["psi_first"][rows],
                psi_second=arrays["psi_second"][rows],
            )
        )
        start += size
    return parts
