"""Client code behind a fence: it may use the global random streams, but never move anybody else's.

A client that calls ``np.random.seed(0)`` would otherwise make the server's next noise repeat. Inside the
fence the global streams start from the task's own address, so that code which draws from them all the
same (dropout in torch) is reproducible and equal on every executor.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
from collections.abc import Iterator

import numpy as np

__all__ = ["rng_fence"]


# The global streams belong to the process: where clients run in threads, two fences must not overlap.
_one_at_a_time = threading.RLock()


@contextlib.contextmanager
def rng_fence(rng: np.random.Generator) -> Iterator[None]:
    """Seed ``random``, ``numpy.random`` and torch from ``rng``; put their states back at the end.

    Args:
        rng: the only source of the seed; one number is drawn from it.
    """
    with _one_at_a_time:
        yield from _fenced(rng)


def _fenced(rng: np.random.Generator) -> Iterator[None]:
    torch = sys.modules.get("torch")  # never imported here: a federation may live without it
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch_state = torch.get_rng_state() if torch else None
    cuda_states = torch.cuda.get_rng_state_all() if torch and torch.cuda.is_initialized() else None
    seed = int(rng.integers(2**32))
    random.seed(seed)
    np.random.seed(seed)
    if torch:
        torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        if torch:
            torch.set_rng_state(torch_state)
        if torch and cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)
