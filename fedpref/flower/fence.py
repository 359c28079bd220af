"""Client code behind a fence: it may use the global random streams, but never move anybody else's.

A client that calls ``np.random.seed(0)`` would otherwise make the server's next noise repeat. Inside the
fence the global streams start from the task's own address, so that code which draws from them all the
same (dropout in torch) is reproducible and equal on every executor.

Putting the streams back costs as much as a small client's training. A loop that seeds them itself before
every use may therefore stand in one :func:`streams_kept`: the fences inside it seed, and leave the rest
to its end.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
from collections.abc import Iterator

import numpy as np

__all__ = ["rng_fence", "streams_kept"]


# The global streams belong to the process: where clients run in threads, two fences must not overlap.
_one_at_a_time = threading.RLock()
_thread = threading.local()


@contextlib.contextmanager
def rng_fence(seed: int) -> Iterator[None]:
    """Seed ``random``, ``numpy.random`` and torch with ``seed``; put their states back at the end.

    Args:
        seed: below 2**32.
    """
    with _one_at_a_time:
        if getattr(_thread, "is_kept", False):
            _seed(seed)
            yield
        else:
            with streams_kept():
                _seed(seed)
                yield


@contextlib.contextmanager
def streams_kept() -> Iterator[None]:
    """Put the global random streams back at the end; fences of this thread need not.

    Code inside must not draw from the global streams outside of a fence.
    """
    if getattr(_thread, "is_kept", False):
        yield
        return
    torch = sys.modules.get("torch")  # never imported here: a federation may live without it
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch_state = torch.get_rng_state() if torch else None
    cuda_states = torch.cuda.get_rng_state_all() if torch and torch.cuda.is_initialized() else None
    _thread.is_kept = True
    try:
        yield
    finally:
        _thread.is_kept = False
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        if torch:
            torch.set_rng_state(torch_state)
        if torch and cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch = sys.modules.get("torch")
    if torch and torch.accelerator.is_available() and not torch.cuda.is_initialized():
        torch.manual_seed(seed)
    elif torch:
        # The same in a hundredth of the time: for accelerators that are not there, torch notes the whole
        # call stack each time.
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
