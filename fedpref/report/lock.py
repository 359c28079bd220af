"""One writer for a run directory: the second one fails at once and is told who the first is.

The operating system holds the lock and drops it when its process dies; a JSON file beside it says whose
it is, so that a stale one is recognised.
"""

from __future__ import annotations

import logging
import os
import platform
from datetime import datetime
from pathlib import Path
from typing import Any

import filelock
import psutil

from fedpref.errors import StorageError
from fedpref.report.storage import read_json, storage_errors, write_json

__all__ = ["RunLock", "is_in_use"]

_LOCK, _OWNER = ".lock", ".lock.json"
# The system knows start times of processes to a second or so, less after its clock was set.
_CLOCK_SLACK_S = 60.0
_log = logging.getLogger(__name__)


class RunLock:
    """The right to write into a run directory; held from construction to ``release``.

    Args:
        directory: an existing run directory.

    Raises:
        StorageError: another process has it, or the file system cannot lock.
    """

    def __init__(self, directory: Path) -> None:
        self._owner = directory / _OWNER
        self._lock = filelock.FileLock(directory / _LOCK, timeout=0, thread_local=False)
        with storage_errors(directory / _LOCK):
            try:
                self._lock.acquire()
            except filelock.Timeout as error:
                raise StorageError(f"{directory} is in use{_whose(self._owner)}") from error
        self.took_over = self._owner.exists()
        if self.took_over:
            _log.warning("%s: the lock of a dead process is taken over%s", directory, _whose(self._owner))
        write_json(self._owner, _myself())

    def release(self) -> None:
        """Let others write."""
        self._owner.unlink(missing_ok=True)
        self._lock.release()


def is_in_use(directory: Path) -> bool:
    """True if the process that locked ``directory`` may still be alive.

    A process on another host cannot be asked and counts as alive.
    """
    owner = _read_owner(directory / _OWNER)
    if owner is None:
        return False
    if owner["host"] != platform.node():
        return True
    try:
        began_s = psutil.Process(owner["pid"]).create_time()
    except psutil.NoSuchProcess:
        return False
    # A younger process with the same number is somebody else.
    return bool(began_s <= datetime.fromisoformat(owner["start"]).timestamp() + _CLOCK_SLACK_S)


def _myself() -> dict[str, Any]:
    start = datetime.now().astimezone().isoformat(timespec="milliseconds")
    return {"pid": os.getpid(), "host": platform.node(), "start": start}


def _read_owner(path: Path) -> dict[str, Any] | None:
    """The owner as written; None while nobody has signed."""
    if not path.exists():
        return None
    try:
        owner = read_json(path)
    except StorageError:
        # Released or being rewritten in this very moment: nobody can be named.
        return None
    return owner if isinstance(owner, dict) and {"pid", "host", "start"} <= set(owner) else None


def _whose(path: Path) -> str:
    owner = _read_owner(path)
    if owner is None:
        return " by another process"
    return f" by pid {owner['pid']} on {owner['host']} since {owner['start']}"
