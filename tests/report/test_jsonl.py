from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest

from fedpref.errors import StorageError
from fedpref.report.jsonl import JsonLines, read_jsonl


def write(path: Path, *numbers: int) -> JsonLines:
    lines = JsonLines(path)
    for number in numbers:
        lines.append({"round": number})
    return lines


def rounds(path: Path) -> list[int]:
    return [record["round"] for record in read_jsonl(path)]


def test_records_read_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, 2, 3).close()
    assert rounds(path) == [1, 2, 3]


def test_a_record_can_be_read_before_the_writer_closes(tmp_path: Path) -> None:
    lines = write(tmp_path / "metrics.jsonl", 1)
    assert rounds(lines.path) == [1]
    assert lines.offset == lines.path.stat().st_size
    lines.close()


def test_a_line_break_in_a_value_breaks_no_line(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "events.jsonl")
    lines.append({"detail": "a\nb\u2028c"})
    lines.close()
    assert read_jsonl(lines.path) == [{"detail": "a\nb\u2028c"}]


@pytest.mark.parametrize("num_bytes", range(1, len('{"round": 3}\n') + 1))
def test_a_cut_last_line_costs_one_record(tmp_path: Path, num_bytes: int) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, 2, 3).close()
    path.write_bytes(path.read_bytes()[:-num_bytes])
    assert rounds(path) == [1, 2]


def test_opening_again_removes_a_cut_line_before_it_appends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, 2).close()
    path.write_bytes(path.read_bytes()[:-7])
    with caplog.at_level(logging.WARNING):
        write(path, 3).close()
    assert rounds(path) == [1, 3]
    assert "the last line was cut" in caplog.text


def test_truncation_goes_back_to_the_checkpoint(tmp_path: Path) -> None:
    lines = write(tmp_path / "metrics.jsonl", 1, 2)
    offset = lines.offset
    lines.append({"round": 3})
    lines.truncate_to(offset)
    lines.append({"round": 33})
    lines.close()
    assert rounds(lines.path) == [1, 2, 33]


@pytest.mark.parametrize("offset", [-1, 5, 10_000])
def test_an_offset_where_no_record_ends_is_refused(tmp_path: Path, offset: int) -> None:
    lines = write(tmp_path / "metrics.jsonl", 1, 2)
    with pytest.raises(StorageError, match=f"no record that ends at byte {offset}"):
        lines.truncate_to(offset)
    lines.close()
    assert rounds(lines.path) == [1, 2]


def test_a_full_disk_leaves_whole_records_and_can_be_overcome(tmp_path: Path) -> None:
    lines = write(tmp_path / "metrics.jsonl", 1)
    lines._file = FullDisk(lines._file)  # type: ignore[assignment]
    with pytest.raises(StorageError, match=r"metrics\.jsonl: No space left on device"):
        lines.append({"round": 2})
    assert lines.path.read_bytes() == b'{"round": 1}\n'
    lines._file = lines._file.file  # type: ignore[attr-defined]
    lines.append({"round": 3})
    lines.close()
    assert rounds(lines.path) == [1, 3]


class FullDisk:
    """Takes four bytes and then no more."""

    def __init__(self, file: object) -> None:
        self.file = file
        self.room = 4

    def write(self, data: memoryview) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken, self.room = self.room, 0
        return self.file.write(data[:taken])  # type: ignore[attr-defined,no-any-return]

    def truncate(self, size: int) -> None:
        self.file.truncate(size)  # type: ignore[attr-defined]


def test_an_absent_file_has_no_records(tmp_path: Path) -> None:
    assert read_jsonl(tmp_path / "events.jsonl") == []


@pytest.mark.parametrize(("line", "reason"), [(b"{1}", "not JSON"), (b"[1]", "not a JSON object")])
def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"round": 1}\n' + line + b'\n{"round": 3}\n')
    with pytest.raises(StorageError, match=f"line 2, is damaged: {reason}"):
        read_jsonl(path)
