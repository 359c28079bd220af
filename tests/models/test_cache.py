from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from fedpref.errors import StorageError
from fedpref.models.cache import ActivationCache, recall


def value_of(text: str) -> np.ndarray:
    return np.full((3, 2), len(text), dtype=np.float32)


def fill(folder: Path, barrier: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    cache = ActivationCache("shared", folder)
    for turn in range(60):
        text = "x" * (turn % 6 + 1)
        cache.write(text, value_of(text))
        read = cache.read(text)
        assert read is not None and (read == value_of(text)).all()


def test_a_value_comes_back_bit_for_bit_and_read_only(tmp_path: Path) -> None:
    cache = ActivationCache("f", tmp_path)
    assert cache.read("a") is None
    cache.write("a", value_of("a"))
    read = cache.read("a")
    assert read is not None and read.dtype == np.float32
    np.testing.assert_array_equal(read, value_of("a"))
    with pytest.raises(ValueError, match="read-only"):
        read[0] = 1


def test_text_and_fingerprint_both_address_a_value(tmp_path: Path) -> None:
    paths = {ActivationCache(name, tmp_path).path(text) for name in "fg" for text in "ab"}
    assert len(paths) == 4
    assert ActivationCache("f", tmp_path).path("a") in paths


def test_equal_texts_are_computed_once(tmp_path: Path) -> None:
    seen: list[str] = []

    def compute(text: str) -> np.ndarray:
        seen.append(text)
        return value_of(text)

    cache = ActivationCache("once", tmp_path)
    values = cache.recall(["long text", "a", "a", "long text"], compute)
    assert seen == ["a", "long text"]
    assert set(values) == set(seen)
    cache.recall(["a"], compute)
    assert seen == ["a", "long text"]


@pytest.mark.parametrize("position", [0, 60, -1])
def test_a_damaged_file_is_computed_again(tmp_path: Path, position: int) -> None:
    cache = ActivationCache(f"damage {position}", tmp_path)
    cache.write("a", value_of("a"))
    content = bytearray(cache.path("a").read_bytes())
    content[position] ^= 1
    cache.path("a").write_bytes(content)
    assert cache.read("a") is None
    np.testing.assert_array_equal(cache.recall(["a"], value_of)["a"], value_of("a"))
    assert cache.read("a") is not None


@pytest.mark.parametrize("size", [0, 10, 100])
def test_a_truncated_file_is_not_read(tmp_path: Path, size: int) -> None:
    cache = ActivationCache("cut", tmp_path)
    cache.write("a", value_of("a"))
    os.truncate(cache.path("a"), size)
    assert cache.read("a") is None


def test_the_oldest_files_go_when_the_bound_is_passed(tmp_path: Path) -> None:
    cache = ActivationCache("bound", tmp_path)
    for age, text in enumerate(["old", "mid", "new"]):
        cache.write(text, value_of(text))
        os.utime(cache.path(text), (age, age))
    size = cache.path("old").stat().st_size
    ActivationCache("bound", tmp_path, max_bytes=2 * size).trim()
    assert [cache.read(text) is None for text in ("old", "mid", "new")] == [True, False, False]


def test_processes_that_write_the_same_texts_do_not_harm_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    workers = [context.Process(target=fill, args=(tmp_path, barrier)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert not list(tmp_path.glob("*/*.partial"))


def test_a_folder_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="FEDPREF_CACHE"):
        ActivationCache("f", tmp_path / "file").write("a", value_of("a"))


def test_values_in_memory_are_kept_by_fingerprint() -> None:
    assert recall("memory one", ["a"], value_of)["a"] is recall("memory one", ["a"], value_of)["a"]
    assert recall("memory two", ["a"], lambda _: np.zeros(1))["a"].shape == (1,)
