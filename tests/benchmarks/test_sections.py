"""BENCHMARKS.md: each benchmark replaces its own section and nobody else's."""

import os
from pathlib import Path

from fedpref.benchmarks.sections import conditions, granted_cores, put_section, this_command


def test_a_section_takes_the_place_of_the_older_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["x", "clients=2", f"table={tmp_path}"])
    file = tmp_path / "B.md"
    put_section(file, "One", this_command("a.b"), "first")
    put_section(file, "Two", ["c", "d e"], "second")
    put_section(file, "One", this_command("a.b"), "third")
    text = file.read_text()
    assert text.count("## One") == text.count("## Two") == text.count("# Benchmarks") == 1
    assert "first" not in text and "second" in text and "third" in text
    assert "    python -m a.b clients=2\n" in text and "    c 'd e'\n" in text


def test_all_cores_are_granted_where_the_system_grants_none_singly(monkeypatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 3}, raising=False)
    assert granted_cores() == 2
    monkeypatch.delattr("os.sched_getaffinity")  # as on macOS
    assert granted_cores() == os.cpu_count()
    assert f"{os.cpu_count()} of them granted" in conditions()
