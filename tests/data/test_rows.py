"""Sources, columns and bad rows."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedpref.data import HubDataset, PreferenceFile, Rows
from fedpref.data.formats import TextPair
from fedpref.data.rows import Columns, collect, text_pair_id
from fedpref.errors import ConfigurationError

GOOD = [
    {"prompt": "Q", "chosen": "A", "rejected": "B", "annotator": "ann", "domain": "sky"},
    {"prompt": "Q", "chosen": "B", "rejected": "A", "annotator": "bob", "domain": "sky"},
    {"prompt": "R", "chosen": "C", "rejected": "D", "annotator": "ann", "domain": "sea"},
]
EQUAL = {"prompt": "Q", "chosen": "A", "rejected": "A", "annotator": "ann", "domain": "sky"}


def read(records: list[dict[str, Any]], **columns: Any) -> Rows:
    return collect(records, "rows.jsonl", Columns(**columns))


def as_lines(records: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(record) for record in records).encode()


def as_parquet(records: list[dict[str, Any]], path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(records).to_parquet(path)


def test_plain_gzipped_and_parquet_files_give_equal_rows(tmp_path: Path) -> None:
    talk = [
        {
            **row,
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
        }
        for row in GOOD
    ]
    for number, records in enumerate((GOOD, talk)):
        files = [tmp_path / str(number) / form / "rows" for form in ("plain", "gzip", "parquet")]
        for file in files:
            file.parent.mkdir(parents=True)
        files[0].write_bytes(as_lines(records))
        files[1].write_bytes(gzip.compress(as_lines(records)))
        as_parquet(records, files[2])

        plain, gzipped, parquet = (PreferenceFile(str(file)).rows() for file in files)

        assert plain.clients == ("ann", "bob", "ann")
        assert plain == gzipped == parquet


def test_plain_text_and_conversation_differ_only_in_the_format_that_is_reported() -> None:
    talk = {
        "chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}],
        "rejected": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "B"}],
        "annotator": "ann",
        "domain": "sky",
    }
    assert read([talk]).pairs.chosen == read(GOOD[:1]).pairs.chosen
    assert read([talk]).pair_ids == read(GOOD[:1]).pair_ids
    assert read([talk, *GOOD]).formats == {"explicit prompt, text": 3, "implicit prompt, conversation": 1}


def test_swapped_pairs_are_one_pair_and_another_prompt_makes_another() -> None:
    first, swapped, other = read(GOOD).pair_ids

    assert first == swapped != other
    assert text_pair_id(TextPair("P", "A", "B", "")) != first


def test_a_pair_id_column_decides_where_it_is_there() -> None:
    named = [{**row, "source_id": f"s{number}"} for number, row in enumerate(GOOD)]

    assert read(named).pair_ids == ("s0", "s1", "s2")
    assert read(named, pair_id_column=None).pair_ids == read(GOOD).pair_ids


def test_any_column_can_name_the_client_and_numbers_are_names_too() -> None:
    numbered = [{**row, "worker": number % 2} for number, row in enumerate(GOOD)]

    assert read(GOOD, client_column="domain").clients == ("sky", "sky", "sea")
    assert read(numbered, client_column="worker").clients == ("0", "1", "0")
    assert set(read(GOOD, client_column=None).clients) == {"everyone"}


def test_a_missing_client_column_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(ConfigurationError, match=r"data\.client_column=annotater.*'annotator'.*Columns"):
        read(GOOD, client_column="annotater")


def test_an_optional_column_may_be_absent_unless_it_was_asked_for() -> None:
    bare = [{key: row[key] for key in ("prompt", "chosen", "rejected", "annotator")} for row in GOOD]

    assert set(read(bare).topics) == {""}
    assert not read(bare).has_split
    with pytest.raises(ConfigurationError, match=r"data\.topic_column=category"):
        read(bare, topic_column="category")


def test_a_missing_response_column_lists_what_was_found() -> None:
    with pytest.raises(ConfigurationError, match=r"no column 'rejected'.*chosen, reject"):
        read([{"chosen": "A", "reject": "B", "annotator": "ann"}])


def test_a_bad_row_is_named_by_its_number_and_stops_the_reading() -> None:
    with pytest.raises(
        ConfigurationError, match=r"rows\.jsonl, row 3: chosen and rejected are equal; .*data\.bad_rows=drop"
    ):
        read([*GOOD, EQUAL])


def test_dropped_rows_are_counted_by_reason() -> None:
    empty = {**EQUAL, "rejected": " "}

    rows = read([EQUAL, *GOOD, empty, EQUAL], bad_rows="drop")

    assert rows.pairs.chosen == read(GOOD).pairs.chosen
    assert rows.dropped == {"chosen and rejected are equal": 2, "rejected is empty": 1}
    assert any(note.startswith("Rows dropped: 3") for note in rows.notes)


def test_a_row_without_client_or_with_an_unknown_side_is_bad() -> None:
    with pytest.raises(ConfigurationError, match=r"row 1: the client is missing \(column 'annotator'\)"):
        read([GOOD[0], {**GOOD[1], "annotator": None}])
    with pytest.raises(ConfigurationError, match=r"row 1: the split is 'dev'"):
        read([{**GOOD[0], "split": "train"}, {**GOOD[1], "split": "dev"}])


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="holds no rows"):
        read([])
    with pytest.raises(ConfigurationError, match=r"all 1 rows were dropped .*are equal: 1"):
        read([EQUAL], bad_rows="drop")


def test_bad_rows_is_error_or_drop() -> None:
    with pytest.raises(ConfigurationError, match=r"data\.bad_rows='skip'"):
        PreferenceFile("rows.jsonl", bad_rows="skip")


def test_equal_texts_are_one_object_so_that_shards_stay_small() -> None:
    rows = read([json.loads(json.dumps(row)) for row in GOOD])

    assert rows.chosen[0] is rows.rejected[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"chosen": "A"}\n\nnot json', "line 3: no JSON"),
        (b"[1]", "line 1: a list; write one JSON object a line"),
        (b"\xff\xfe{}", r"data\.path=.*cannot be read.*utf-8"),
        (gzip.compress(as_lines(GOOD), mtime=0)[:30], r"data\.path=.*cannot be read: Compressed file ended"),
        (b"PAR1 and no more", r"data\.path=.*no valid Parquet file"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "rows"
    file.write_bytes(content)

    with pytest.raises(ConfigurationError, match=message):
        PreferenceFile(str(file)).rows()


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"data\.path=.*nowhere\.jsonl: no such file"):
        PreferenceFile(str(tmp_path / "nowhere.jsonl")).rows()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """A hub of one dataset: ``train`` is GOOD, ``test`` its last row in other words; records the calls."""
    datasets = pytest.importorskip("datasets")
    calls: list[dict[str, Any]] = []

    def load_dataset(path: str, **options: Any) -> Any:
        calls.append({"path": path, **options})
        if path != "acme/pairs":
            raise FileNotFoundError(f"Dataset '{path}' doesn't exist on the Hub.\nMore lines follow.")
        test = [{**GOOD[2], "chosen": "E"}]
        return datasets.Dataset.from_list({"train": GOOD, "test": test}[options["split"]])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return lambda: calls


def test_a_hub_dataset_reads_the_same_rows_at_the_revision_that_was_asked_for(
    hub: Callable[[], list[dict[str, Any]]],
) -> None:
    rows = HubDataset("acme/pairs", revision="abc123").rows()

    assert rows.pairs.chosen == read(GOOD).pairs.chosen
    assert hub() == [{"path": "acme/pairs", "name": None, "split": "train", "revision": "abc123"}]


def test_a_second_split_of_a_hub_dataset_is_held_out_and_an_open_revision_noted(
    hub: Callable[[], list[dict[str, Any]]],
) -> None:
    rows = HubDataset("acme/pairs", test_split="test").rows()

    assert rows.splits == ("train", "train", "train", "test")
    assert rows.chosen[-1] == "E"
    assert any("revision" in note for note in rows.notes)


def test_an_absent_hub_dataset_is_one_line(hub: Callable[[], list[dict[str, Any]]]) -> None:
    with pytest.raises(ConfigurationError, match=r"^data\.id=acme/nothing.*doesn't exist on the Hub\.$"):
        HubDataset("acme/nothing").rows()
