"""Every random draw has an address: ``generator(seed, "task", number)``.

A generator is counter-based (Philox) and keyed by a hash of its address, so no generator state is
ever saved: resume, retries and other executors repeat the same numbers. Nothing seeds globally.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence

__all__ = ["generator", "number"]


def generator(seed: int, *address: int | str) -> np.random.Generator:
    """The generator at an address.

    Args:
        seed: the run's seed.
        address: words and integers, from the general to the particular; ``("a", 1)`` and
            ``("a", "1")`` differ.

    Raises:
        TypeError: a part of the address is neither an integer nor a string.

    Source: Salmon et al. 2011 (Philox); the key is 128 bits of SHA-256 over the address.
    """
    # The key comes as a ready seed sequence, because Philox(key=…) asks the system for entropy first.
    key = _Key(np.frombuffer(_digest(seed, *address)[:16], "<u8"))
    return np.random.Generator(np.random.Philox(key))  # type: ignore[arg-type]  # the stub knows one class


def number(seed: int, *address: int | str) -> int:
    """A whole number below 2**32 at an address, for libraries that want a seed.

    Raises:
        TypeError: as :func:`generator`.
    """
    return int.from_bytes(_digest(seed, *address)[:4], "little")


class _Key(ISeedSequence):
    """128 bits as they are."""

    def __init__(self, words: np.ndarray) -> None:
        self._words = words

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        return self._words


def _digest(seed: int, *address: int | str) -> bytes:
    parts = []
    for part in (seed, *address):
        if isinstance(part, bool) or not isinstance(part, (int, str, np.integer)):
            raise TypeError(f"an address holds integers and strings, got {part!r}")
        parts.append(f"s{len(part)}:{part}" if isinstance(part, str) else f"i:{int(part)}")
    return hashlib.sha256("/".join(parts).encode()).digest()
