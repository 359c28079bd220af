import json
from pathlib import Path

import numpy as np
import pytest

from fedpref.errors import CheckpointError, StorageError
from fedpref.federation import checkpoint

ARRAYS = {"000000": np.arange(6, dtype=np.float32).reshape(2, 3)}
FILES = ["manifest.json", "state.json", "arrays.safetensors"]


def save_rounds(root: Path, rounds: list[int], keep: int = 2) -> None:
    for round_ in rounds:
        checkpoint.save(root, round_, {"round": round_}, {"000000": ARRAYS["000000"] + round_}, keep)


def test_the_newest_checkpoint_comes_back_to_the_bit(tmp_path: Path) -> None:
    save_rounds(tmp_path, [1, 2])
    found, warnings = checkpoint.latest(tmp_path)
    assert (found.round, found.tree, warnings) == (2, {"round": 2}, [])
    np.testing.assert_array_equal(found.arrays["000000"], ARRAYS["000000"] + 2)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    save_rounds(tmp_path, [1, 2, 3, 10], keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round_00003", "round_00010"]


def test_the_newest_is_the_one_of_the_largest_round_however_many_digits_it_has(tmp_path: Path) -> None:
    save_rounds(tmp_path, [99_998, 99_999, 100_000, 100_001], keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round_100000", "round_100001"]
    assert checkpoint.latest(tmp_path)[0].round == 100_001


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut one byte", "cut half", "empty", "flip a bit", "missing"])
def test_a_damaged_file_never_loads_and_the_previous_checkpoint_does(
    tmp_path: Path, name: str, damage: str
) -> None:
    save_rounds(tmp_path, [1, 2])
    path = tmp_path / "round_00002" / name
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    else:
        if damage == "flip a bit":
            position = data.find(b"sha256") + 20 if name == "manifest.json" else len(data) - 2
            data[position] ^= 1
        kept = {"cut one byte": len(data) - 2, "cut half": len(data) // 2, "empty": 0}.get(damage, len(data))
        path.write_bytes(bytes(data[:kept]))
    found, warnings = checkpoint.latest(tmp_path)
    assert found.round == 1
    assert len(warnings) == 1 and "round_00002" in warnings[0]


def test_without_a_valid_checkpoint_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no valid checkpoint"):
        checkpoint.latest(tmp_path)
    save_rounds(tmp_path, [1])
    (tmp_path / "round_00001" / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.latest(tmp_path)


def test_a_half_written_checkpoint_is_not_a_checkpoint(tmp_path: Path) -> None:
    save_rounds(tmp_path, [1])
    (tmp_path / "round_00002.tmp").mkdir()
    (tmp_path / "round_00002.tmp" / "manifest.json").write_text(json.dumps({"round": 2}))
    assert checkpoint.latest(tmp_path)[0].round == 1


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_rounds(tmp_path, [1])

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(StorageError, match=r"round_00002 .*bytes.*No space left"):
        save_rounds(tmp_path, [2])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round_00001"]
    assert checkpoint.latest(tmp_path)[0].round == 1
