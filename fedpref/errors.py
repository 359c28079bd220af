"""Everything that fedpref raises on purpose, with the exit code of each.

FedprefError
├── ConfigurationError   2   a key, row or value that the user can mend
├── CheckpointError      3   a checkpoint that is absent, damaged or of another configuration
├── StorageError         4   the run directory is in use, full or not writable
└── FederationError      5   a round that cannot go on: nobody online, every client failed

Exit code 0 is success, 1 a bug, 130 an interrupt.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "ConfigurationError",
    "FederationError",
    "FedprefError",
    "StorageError",
    "did_you_mean",
]


class FedprefError(Exception):
    """Base of all errors with a clear message; ``exit_code`` is what the command line returns."""

    exit_code = 1


class ConfigurationError(FedprefError, ValueError):
    """A key, a row or a value is wrong; the message names it and the mend."""

    exit_code = 2


class CheckpointError(FedprefError):
    """No checkpoint that can be trusted."""

    exit_code = 3


class StorageError(FedprefError, OSError):
    """The run directory is in use, full or not writable."""

    exit_code = 4


class FederationError(FedprefError):
    """A round or the federation failed."""

    exit_code = 5


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` with a leading space, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""
