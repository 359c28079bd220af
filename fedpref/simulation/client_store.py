"""What clients keep between their tasks, on disk: a hundred thousand personal heads in little memory.

One row is one client's state from some moment on; newer rows do not overwrite older ones. A checkpoint is
therefore a number: everything up to it is on disk, and going back to it means to delete what came after.
Rows that no checkpoint can need any more are deleted when older checkpoints are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from fedpref.errors import CheckpointError, StorageError
from fedpref.types import ClientId

__all__ = ["ClientStore"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS states (
    moment INTEGER PRIMARY KEY,
    client INTEGER NOT NULL,
    state BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS by_client ON states (client, moment);
"""


class ClientStore:
    """States by client, as bytes.

    Args:
        path: of the database; None keeps it in a temporary file that ends with the store.

    Raises:
        StorageError: the file cannot be written, or is no database.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        try:
            # An empty name is SQLite's temporary file: on disk, and gone when it is closed.
            self._database = sqlite3.connect("" if path is None else path, isolation_level=None)
            self._database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + _SCHEMA)
            self._database.execute("BEGIN")
        except sqlite3.Error as error:
            raise StorageError(f"{path}: the clients' states cannot be kept there: {error}") from error
        self._moment = self._newest()
        self._forgotten = 0  # up to here only the newest state of each client is left
        self._is_open = True

    def get(self, client_id: ClientId, mark: int | None = None) -> bytes | None:
        """The client's state at ``mark``, by default the newest; None if it never kept one."""
        if not self._moment:
            return None
        query = "SELECT state FROM states WHERE client = ? AND moment <= ? ORDER BY moment DESC LIMIT 1"
        row = self._database.execute(query, (client_id, self._moment if mark is None else mark)).fetchone()
        return None if row is None else row[0]

    def put(self, client_id: ClientId, state: bytes) -> None:
        """Keep a state.

        Raises:
            StorageError: the disk is full.
        """
        self._moment += 1
        self._execute("INSERT INTO states VALUES (?, ?, ?)", (self._moment, client_id, state))

    def clients(self) -> Iterator[tuple[ClientId, bytes]]:
        """Every client that keeps something, ascending, with its newest state."""
        newest = "SELECT MAX(moment) FROM states GROUP BY client"
        query = f"SELECT client, state FROM states WHERE moment IN ({newest}) ORDER BY client"
        yield from self._database.execute(query)

    @property
    def num_clients(self) -> int:
        """How many clients keep something."""
        return int(self._database.execute("SELECT COUNT(DISTINCT client) FROM states").fetchone()[0])

    @property
    def num_bytes(self) -> int:
        """Bytes of the newest states of all clients."""
        newest = "SELECT MAX(moment) FROM states GROUP BY client"
        query = f"SELECT COALESCE(SUM(LENGTH(state)), 0) FROM states WHERE moment IN ({newest})"
        return int(self._database.execute(query).fetchone()[0])

    # -------------------------------------------------------------------------- checkpoint

    def mark(self) -> int:
        """Make everything so far durable; the number that :meth:`rewind` takes.

        Raises:
            StorageError: the disk is full.
        """
        self._execute("COMMIT")
        self._execute("BEGIN")
        return self._moment

    def rewind(self, mark: int) -> None:
        """Forget what came after ``mark``.

        Raises:
            CheckpointError: the store ends before it, so that states of the checkpoint are missing.
        """
        if self._newest() < mark:
            raise CheckpointError(
                f"the clients' states end at {self._newest()}, but the checkpoint needs them up to {mark}; "
                "their file was replaced or is damaged"
            )
        self._execute("DELETE FROM states WHERE moment > ?", (mark,))
        self._moment = mark
        self._forgotten = min(self._forgotten, mark)

    def forget_before(self, mark: int) -> None:
        """Delete states that were replaced before ``mark``: nobody will rewind beyond it.

        Takes as long as there are states since the last call, not as there are clients.
        """
        self._execute(
            "DELETE FROM states WHERE moment IN ("
            "SELECT older.moment FROM states AS newer "
            "JOIN states AS older ON older.client = newer.client AND older.moment < newer.moment "
            "WHERE newer.moment > ? AND newer.moment <= ?)",
            (self._forgotten, mark),
        )
        self._forgotten = mark

    def close(self) -> None:
        """Make everything durable and close the file. Closing twice is fine."""
        if self._is_open:
            self._is_open = False
            self._execute("COMMIT")
            self._database.close()

    def _newest(self) -> int:
        return int(self._database.execute("SELECT COALESCE(MAX(moment), 0) FROM states").fetchone()[0])

    def _execute(self, statement: str, values: tuple[object, ...] = ()) -> None:
        try:
            self._database.execute(statement, values)
        except sqlite3.Error as error:
            raise StorageError(f"the clients' states cannot be kept: {error}") from error
