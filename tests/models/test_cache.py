from __future__ import annotations

import multiprocessing
import os
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedpref.errors import StorageError
from fedpref.models import cache as module
from fedpref.models.cache import ActivationCache, Recent, recall


def value_of(text: str) -> np.ndarray:
    return np.full((3, 2), len(text), dtype=np.float32)


def large(text: str) -> np.ndarray:
    return np.full((100, 100), len(text), dtype=np.float32)


def fill(folder: Path, barrier: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    cache = ActivationCache("shared", folder)
    for turn in range(60):
        text = "x" * (turn % 6 + 1)
        cache.write(text, value_of(text))
        read = cache.read(text)
        assert read is not None and (read == value_of(text)).all()


@pytest.mark.parametrize("compute", [value_of, large])
def test_a_value_comes_back_bit_for_bit_and_read_only(
    tmp_path: Path, compute: Callable[[str], np.ndarray]
) -> None:
    cache = ActivationCache("f", tmp_path)
    assert cache.read("a") is None
    cache.write("a", compute("a"))
    read = cache.read("a")
    assert read is not None and read.dtype == np.float32
    np.testing.assert_array_equal(read, compute("a"))
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


def test_a_process_looks_at_once_and_then_whenever_it_wrote_a_64th(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ActivationCache("before", tmp_path).write("a", value_of("a"))
    size = ActivationCache("before", tmp_path).path("a").stat().st_size
    monkeypatch.setattr(module, "_written_bytes", {})  # another process starts
    written, looks, trim = list[str](), list[int](), ActivationCache.trim

    def noted(self: ActivationCache) -> None:
        looks.append(len(written))
        trim(self)

    monkeypatch.setattr(ActivationCache, "trim", noted)
    cache = ActivationCache("bound", tmp_path, max_bytes=64 * 3 * size)
    for number in range(256):
        written.append(f"{number:03}")
        cache.write(written[-1], value_of("abc"))
        assert sum(path.stat().st_size for path in tmp_path.glob("*/*.npy")) <= cache.max_bytes + 4 * size
    assert looks[:3] == [1, 5, 9]  # after 4 files: more than 3, and these without their digest
    assert cache.read("255") is not None and cache.read("000") is None


def test_what_is_computed_is_mapped_from_its_file_and_not_held(tmp_path: Path) -> None:
    computed: list[weakref.ref[np.ndarray]] = []

    def compute(text: str) -> np.ndarray:
        value = large(text)
        computed.append(weakref.ref(value))
        return value

    values = ActivationCache("mapped", tmp_path).recall(["a", "bc"], compute)
    assert all(isinstance(value, np.memmap) and not value.flags.writeable for value in values.values())
    assert [reference() for reference in computed] == [None, None]


def test_a_small_value_takes_no_memory_map(tmp_path: Path) -> None:
    found = ActivationCache("small", tmp_path).recall(["a"], value_of)["a"]
    assert not isinstance(found, np.memmap)


def test_a_value_larger_than_the_folder_may_be_is_returned_all_the_same(tmp_path: Path) -> None:
    found = ActivationCache("too large", tmp_path, max_bytes=10).recall(["a"], value_of)
    np.testing.assert_array_equal(found["a"], value_of("a"))
    assert not list(tmp_path.glob("*/*.npy"))


def test_filling_writes_everything_and_holds_what_memory_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = value_of("a").nbytes
    monkeypatch.setattr(module, "_recent", Recent(max_bytes=2 * size))
    cache, texts = ActivationCache("fill", tmp_path), ["a", "bc", "def", "ghij", "a"]
    cache.fill(texts, value_of)
    assert all(cache.read(text) is not None for text in texts)
    held = [text for text in texts if module._recent.get(("fill", text)) is not None]
    assert held == ["def", "ghij"]


@pytest.mark.parametrize("recent", [Recent(max_bytes=50), Recent(max_entries=2)])
def test_memory_is_bounded_and_what_was_asked_for_last_stays(recent: Recent) -> None:
    for name in "abc":
        recent.keep(("f", name), np.zeros(3))  # 24 bytes
        if name == "b":
            assert recent.get(("f", "a")) is not None
    assert [recent.get(("f", name)) is not None for name in "abc"] == [True, False, True]


def test_what_leaves_memory_makes_room_for_as_much() -> None:
    recent = Recent(max_bytes=100)
    for number, size in enumerate((100, 10, 90, 200, 40, 40)):  # the fourth is too large to be kept
        recent.keep(("f", str(number)), np.zeros(size, np.uint8))
    assert [recent.get(("f", str(number))) is not None for number in range(6)] == [False] * 4 + [True] * 2


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
