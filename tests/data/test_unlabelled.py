from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fedpref.data.unlabelled import unlabelled_rows
from fedpref.errors import ConfigurationError


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def row(prompt: str, first: Any, second: Any) -> dict[str, Any]:
    return {"prompt": prompt, "response_a": first, "response_b": second, "id": 7}


def test_responses_keep_the_order_of_the_file(tmp_path: Path) -> None:
    rows = unlabelled_rows(write(tmp_path / "u.jsonl", [row("p", "z", "a"), row("q", "b", "c")]))
    assert (rows.prompts, rows.chosen, rows.rejected) == (("p", "q"), ("z", "b"), ("a", "c"))


def test_a_label_has_no_say_in_the_order(tmp_path: Path) -> None:
    one = [{"prompt": "p", "chosen": "z", "rejected": "a"}, {"prompt": "q", "chosen": "b", "rejected": "c"}]
    other = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in one]
    tables = [unlabelled_rows(write(tmp_path / f"{i}.jsonl", rows)) for i, rows in enumerate((one, other))]
    assert tables[0].chosen == tables[1].chosen == ("a", "b")
    assert tables[0].rejected == tables[1].rejected == ("z", "c")
    assert any("labels were ignored" in note for note in tables[0].notes)


def test_unlabelled_columns_go_before_labelled_ones(tmp_path: Path) -> None:
    both = {**row("p", "z", "a"), "chosen": "m", "rejected": "n"}
    assert unlabelled_rows(write(tmp_path / "u.jsonl", [both])).chosen == ("z",)


def test_conversations_become_the_texts_that_training_sees(tmp_path: Path) -> None:
    turns = [row([{"role": "user", "content": "p"}], *([{"role": "assistant", "content": c}] for c in "ab"))]
    rows = unlabelled_rows(write(tmp_path / "u.jsonl", turns))
    assert (rows.prompts, rows.chosen, rows.rejected) == (("p",), ("a",), ("b",))


def test_columns_of_clients_are_not_asked_for(tmp_path: Path) -> None:
    rows = unlabelled_rows(write(tmp_path / "u.jsonl", [{**row("p", "z", "a"), "split": "", "domain": None}]))
    assert len(rows) == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "p", "response_a": "x"}], r"no column 'response_b'"),
        ([{"prompt": "p", "responseA": "x", "response_b": "y"}], r"no column 'response_a'.* Columns found"),
        ([{"prompt": "p", "text": "x"}], r"need 'response_a' and 'response_b', or 'chosen' and 'rejected'"),
        ([row("p", "x", "y"), row("p", "x", "x ")], "row 1: chosen and rejected are equal"),
        ([row("p", "x", None)], "row 0: rejected is missing"),
        ([], "holds no rows"),
    ],
)
def test_a_file_that_cannot_be_labelled_is_refused(
    tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        unlabelled_rows(write(tmp_path / "u.jsonl", rows))


def test_rows_that_cannot_be_used_are_dropped_and_counted_on_request(tmp_path: Path) -> None:
    path = write(tmp_path / "u.jsonl", [row("p", "x", "y"), row("p", "x", "x")])
    rows = unlabelled_rows(path, bad_rows="drop")
    assert len(rows) == 1 and sum(rows.dropped.values()) == 1
