"""Every random draw has an address: ``generator(seed, "task", number)``.

A generator is counter-based (Philox) and keyed by a hash of its address, so no generator state is
ever saved: resume, retries and other executors repeat the same numbers. Nothing seeds globally.
"""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["generator"]


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
    parts = []
    for part in (seed, *address):
        if isinstance(part, bool) or not isinstance(part, (int, str, np.integer)):
            raise TypeError(f"an address holds integers and strings, got {part!r}")
        parts.append(f"s{len(part)}:{part}" if isinstance(part, str) else f"i:{int(part)}")
    digest = hashlib.sha256("/".join(parts).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
