from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from fedpref.errors import StorageError
from fedpref.report.storage import read_json, sha256_of, storage_errors, to_json, write_json, write_text


def test_numpy_numbers_become_plain_and_keys_are_sorted() -> None:
    text = to_json({"b": np.float32(0.5), "a": np.arange(2), "c": (np.bool_(True), None)})
    assert text == '{"a": [0, 1], "b": 0.5, "c": [true, null]}'


def test_a_number_that_is_not_finite_is_null() -> None:
    assert to_json([float("nan"), float("inf"), np.float64("-inf")]) == "[null, null, null]"


def test_a_json_file_ends_with_a_newline_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"name": "Ž", "values": [1, 2.5]})
    assert path.read_bytes().endswith(b"}\n")
    assert read_json(path) == {"name": "Ž", "values": [1, 2.5]}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "status.json"
    write_text(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"status\.json: No space left on device \(\d+ bytes free\)"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["status.json"]


def test_a_storage_error_passes_through_unchanged(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"^mine$"), storage_errors(tmp_path):
        raise StorageError("mine")


@pytest.mark.parametrize("damage", [b"", b'{"a": 1', b"\xff\xfe"])
def test_a_damaged_json_file_is_named(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(damage)
    with pytest.raises(StorageError, match=r"manifest\.json is damaged"):
        read_json(path)


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "artefact"
    path.write_bytes(json.dumps([1]).encode())
    assert sha256_of(path) == hashlib.sha256(b"[1]").hexdigest()
