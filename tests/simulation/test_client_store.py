"""What clients keep: read back, rewound to a checkpoint, and small in memory."""

from pathlib import Path

import numpy as np
import pytest

from fedpref.errors import CheckpointError, StorageError
from fedpref.simulation.client_store import ClientStore


def test_the_newest_state_of_each_client_is_read_back_and_strangers_have_none() -> None:
    store = ClientStore()
    for client, state in [(3, b"old"), (1, b""), (3, b"new")]:
        store.put(client, state)
    assert [store.get(client) for client in (1, 2, 3)] == [b"", None, b"new"]
    assert list(store.clients()) == [(1, b""), (3, b"new")]
    assert (store.num_clients, store.num_bytes) == (2, 3)


@pytest.mark.parametrize("is_reopened", [False, True])
def test_a_rewound_store_is_as_it_was_at_the_mark(tmp_path: Path, is_reopened: bool) -> None:
    store = ClientStore(tmp_path / "clients.db")
    store.put(0, b"a")
    store.put(1, b"b")
    mark = store.mark()
    before = list(store.clients())
    store.put(0, b"c")
    store.put(2, b"d")
    if is_reopened:
        store.close()
        store = ClientStore(tmp_path / "clients.db")
    store.rewind(mark)
    assert list(store.clients()) == before
    store.put(0, b"e")  # and goes on
    assert store.get(0) == b"e" and store.mark() == mark + 1


def test_what_was_not_marked_is_lost_with_the_process_and_the_mark_is_not(tmp_path: Path) -> None:
    store = ClientStore(tmp_path / "clients.db")
    store.put(0, b"kept")
    mark = store.mark()
    store.put(0, b"lost")
    store._database.close()  # as a kill leaves it: without a commit
    survivor = ClientStore(tmp_path / "clients.db")
    survivor.rewind(mark)
    assert survivor.get(0) == b"kept"


def test_forgetting_keeps_what_the_oldest_checkpoint_needs() -> None:
    store = ClientStore()
    marks = []
    for state in (b"1", b"2", b"3"):
        store.put(0, state)
        store.put(1, state) if state == b"1" else None
        marks.append(store.mark())
    store.forget_before(marks[1])
    store.rewind(marks[1])
    assert (store.get(0), store.get(1)) == (b"2", b"1")
    store.rewind(marks[1])
    assert store._database.execute("SELECT COUNT(*) FROM states").fetchone() == (2,)


def test_a_store_that_ends_before_the_checkpoint_is_refused(tmp_path: Path) -> None:
    store = ClientStore(tmp_path / "clients.db")
    store.put(0, b"a")
    with pytest.raises(CheckpointError, match="end at 1, but the checkpoint needs them up to 5"):
        store.rewind(5)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clients.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StorageError, match="cannot be kept there"):
        ClientStore(tmp_path / "clients.db")


@pytest.mark.parametrize("is_reopened", [False, True])
def test_after_forgetting_each_client_has_its_newest_state_alone(tmp_path: Path, is_reopened: bool) -> None:
    store = ClientStore(tmp_path / "clients.db")
    rng = np.random.default_rng(0)
    for step in range(6):  # clients write several times between two marks, once, or never
        for client in rng.integers(0, 8, size=10).tolist():
            store.put(client, f"{client}/{step}/{rng.integers(1000)}".encode())
        mark = store.mark()
        newest = list(store.clients())
        store.put(int(rng.integers(8)), b"after the mark")
        if is_reopened:  # the new process does not know what was forgotten
            store.close()
            store = ClientStore(tmp_path / "clients.db")
        store.forget_before(mark)
        rows = store._database.execute(
            "SELECT client, state FROM states WHERE moment <= ? ORDER BY client", (mark,)
        )
        assert rows.fetchall() == newest


def test_forgetting_takes_steps_for_new_states_and_not_for_clients() -> None:
    def steps(num_clients: int) -> int:
        store, count = ClientStore(), 0
        for client in range(num_clients):
            store.put(client, b"state")
        store.forget_before(store.mark())
        for client in range(50):
            store.put(client, b"newer")
        mark = store.mark()

        def tick() -> int:
            nonlocal count
            count += 1
            return 0

        store._database.set_progress_handler(tick, 10)  # every ten steps of SQLite's machine
        store.forget_before(mark)
        return count

    assert steps(4000) < 2 * steps(200)
