"""The benchmark of aggregation measures what it says, at sizes that take no time."""

from pathlib import Path

import pytest

from fedpref.benchmarks import aggregation


def test_folding_takes_as_much_memory_for_forty_replies_as_for_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregation, "MODEL_BYTES", 10**6)
    few, many = (aggregation.memory(number) for number in (4, 40))
    assert many["folding_mb"] < few["folding_mb"] + 1  # the deltas of 36 more would take 72
    assert many["kept_mb"] < 1 and many["judging_mb"] < 3


def test_both_tables_are_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(aggregation, "MODEL_BYTES", 4000)
    monkeypatch.setattr(aggregation, "SIZES", (500, 1000))
    table, found = tmp_path / "BENCHMARKS.md", tmp_path / "found.json"
    options = {"updates": "3", "clients": "10", "repeats": "1", "table": str(table), "json": str(found)}
    aggregation.main(options)
    text = table.read_text()
    assert "## Aggregation" in text and "| 3 of 0.004 MB |" in text and "| 10 of 0.004 MB |" in text
    assert "| 1 of 0.004 MB |" in capsys.readouterr().out and found.exists()
