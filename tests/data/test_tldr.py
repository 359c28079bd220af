"""TL;DR comparisons, read from small files of the published layout."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpref.data import Natural, PairSplit, Rows, population
from fedpref.data import tldr as module
from fedpref.data.tldr import TldrComparisons, tldr_row
from fedpref.errors import ConfigurationError


def comparison(post: str, texts: tuple[str, str], choice: int, worker: str, split: str) -> dict[str, Any]:
    """A record as the hub's converted files hold it; a reddit post has no article."""
    info = {
        "id": post,
        "post": f"What happened in {post}. ",
        "title": f"About {post}",
        "subreddit": "relationships",
        "site": None,
        "article": None,
    }
    summaries = [{"text": f" {text}", "policy": "sup2", "note": None} for text in texts]
    return {
        "info": info,
        "summaries": summaries,
        "choice": choice,
        "worker": worker,
        "batch": "batch9",
        "split": split,
        "extra": {"confidence": 7},
    }


def article(worker: str) -> dict[str, Any]:
    record = comparison("a news story", ("x", "y"), 0, worker, "valid2")
    record["info"] |= {"post": None, "title": None, "subreddit": None, "site": "cnn", "article": "News."}
    return record


TRAINING = [
    comparison("t1", ("long", "short"), 0, "ann", "train"),
    comparison("t1", ("short", "long"), 0, "bob", "train"),
    comparison("t2", ("long", "short"), 1, "ann", "train"),
]
VALIDATION = [
    comparison("v1", ("good", "bad"), 1, "bob", "valid1"),
    article("ann"),
    comparison("v2", ("good", "bad"), 0, "eve", "valid2"),
]
EVERYTHING = [*TRAINING, *VALIDATION]


def write_lines(path: Path, records: list[dict[str, Any]]) -> str:
    text = "\n".join(json.dumps(record) for record in records).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return str(path)


def write_parquet(path: Path, records: list[dict[str, Any]]) -> str:
    import datasets

    path.parent.mkdir(parents=True, exist_ok=True)
    # All files of the set have one schema, also where a column of a file holds nothing but None.
    features = datasets.Dataset.from_list(EVERYTHING).features if "info" in records[0] else None
    datasets.Dataset.from_list(records, features=features).to_parquet(path)
    return str(path)


def columns(rows: Rows) -> list[tuple[str, ...]]:
    return [rows.prompts, rows.chosen, rows.rejected, rows.clients, rows.topics, rows.splits, rows.pair_ids]


def write_repository(folder: Path) -> str:
    """The hub's branch of converted files, in small: every configuration is a folder, none is named."""
    write_parquet(folder / "comparisons" / "train" / "0000.parquet", TRAINING)
    write_parquet(folder / "comparisons" / "validation" / "0000.parquet", VALIDATION)
    write_parquet(folder / "axis" / "validation" / "0000.parquet", [{"summary": "of another layout"}])
    return str(folder)


@pytest.fixture
def everything(tmp_path: Path) -> Rows:
    return TldrComparisons(path=write_lines(tmp_path / "comparisons.jsonl", EVERYTHING)).rows()


def test_the_worker_is_the_client_and_the_subreddit_the_topic(everything: Rows) -> None:
    assert everything.clients == ("ann", "bob", "ann", "bob", "eve")
    assert set(everything.topics) == {"relationships"}
    assert everything.prompts[0] == "Subreddit: r/relationships\nTitle: About t1\nPost: What happened in t1."


def test_the_choice_counts_from_zero(everything: Rows) -> None:
    assert everything.chosen == ("long", "short", "short", "bad", "good")
    assert everything.rejected == ("short", "long", "long", "good", "bad")


def test_the_same_summaries_of_a_post_are_one_pair_whatever_their_order_and_whoever_judged(
    everything: Rows,
) -> None:
    first, swapped, other_post = everything.pair_ids[:3]
    assert first == swapped != other_post


def test_both_validation_parts_are_held_out_and_the_split_is_honoured(everything: Rows) -> None:
    assert everything.splits == ("train", "train", "train", "test", "test")
    people = population(everything, Natural(), PairSplit(), seed=0)
    assert [shard.name for shard in people.shards] == ["ann", "bob"]
    assert [(asked.name, asked.client_id) for asked in people.held_out] == [("bob", 1), ("eve", None)]


def test_news_articles_are_left_out_and_counted(everything: Rows) -> None:
    assert everything.dropped == {"about a news article": 1}
    assert "Records left out: 1 (about a news article)." in everything.notes


def test_equal_or_empty_summaries_are_dropped_and_counted_unless_they_shall_stop_the_reading(
    tmp_path: Path,
) -> None:
    equal = comparison("t3", ("same", "same "), 0, "ann", "train")
    empty = comparison("t4", ("text", ""), 0, "ann", "train")
    path = write_lines(tmp_path / "comparisons.jsonl", [*EVERYTHING, equal, empty])

    assert TldrComparisons(path=path).rows().dropped == {
        "about a news article": 1,
        "chosen and rejected are equal": 1,
        "rejected is empty": 1,
    }
    with pytest.raises(ConfigurationError, match="chosen and rejected are equal"):
        TldrComparisons(path=path, bad_rows="error").rows()


def test_lines_gzipped_lines_parquet_and_a_folder_laid_out_as_the_hub_give_equal_rows(
    tmp_path: Path, everything: Rows
) -> None:
    copies = [
        write_lines(tmp_path / "comparisons.jsonl.gz", EVERYTHING),
        write_parquet(tmp_path / "comparisons.parquet", EVERYTHING),
        write_repository(tmp_path / "repository"),
    ]
    for copy in copies:
        assert columns(TldrComparisons(path=copy).rows()) == columns(everything), copy


def test_without_a_copy_the_hub_is_asked_for_its_converted_folder(
    tmp_path: Path, everything: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    folder, load, asked = write_repository(tmp_path / "hub"), datasets.load_dataset, []

    def load_from_folder(source: str, **options: Any) -> Any:
        asked.append((source, options))
        return load(folder, cache_dir=str(tmp_path / "cache"), **options)

    monkeypatch.setattr(datasets, "load_dataset", load_from_folder)
    rows = TldrComparisons().rows()

    assert columns(rows) == columns(everything)
    where = {"revision": "refs/convert/parquet", "data_dir": "comparisons"}
    assert asked == [
        ("openai/summarize_from_feedback", {"split": split, **where}) for split in ("train", "validation")
    ]
    assert "No commit is pinned" in rows.notes[-1]
    assert "No commit is pinned" not in TldrComparisons(revision="0123abc").rows().notes[-1]


def test_a_hub_that_cannot_be_reached_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(ConfigurationError, match=r"openai/.*, split 'train': cannot be read: Couldn't reach"):
        TldrComparisons().rows()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choice": 2}, "choice is 2, not 0 or 1"),
        ({"choice": None}, "choice is None"),
        ({"split": "dev"}, "split is 'dev', not train, valid1 or valid2"),
        ({"summaries": [{"text": "one"}]}, "summaries is not a list of two"),
        ({"summaries": [{"text": "one"}, {"txt": "two"}]}, "no field 'text' among txt"),
        ({"info": "t1"}, "info is a str"),
        ({"info": {"id": "t1"}}, "no field 'post' among id"),
    ],
)
def test_a_record_of_another_layout_is_named_by_its_number(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = write_lines(tmp_path / "x.jsonl", [*EVERYTHING, {**TRAINING[0], **change}])
    with pytest.raises(ConfigurationError) as caught:
        TldrComparisons(path=path).rows()
    assert f"x.jsonl, record {len(EVERYTHING)}: {message}" in str(caught.value)


def test_a_missing_field_and_a_missing_copy_are_named(tmp_path: Path) -> None:
    with pytest.raises(module.WrongLayout, match="no field 'worker'"):
        tldr_row({name: value for name, value in TRAINING[0].items() if name != "worker"})
    with pytest.raises(ConfigurationError, match=r"data\.path=nowhere\.jsonl: no such file or folder"):
        TldrComparisons(path="nowhere.jsonl").rows()
    (tmp_path / "broken.jsonl").write_text("{not json\n")
    with pytest.raises(ConfigurationError, match=r"broken\.jsonl: cannot be read"):
        TldrComparisons(path=str(tmp_path / "broken.jsonl")).rows()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match=r"empty, split 'train': cannot be read"):
        TldrComparisons(path=str(tmp_path / "empty")).rows()


def test_a_post_without_title_has_no_empty_line_for_it() -> None:
    record = comparison("t1", ("long", "short"), 0, "ann", "train")
    record["info"]["title"] = None
    assert tldr_row(record)["prompt"] == "Subreddit: r/relationships\nPost: What happened in t1."


def test_shards_hold_all_training_rows_once(everything: Rows) -> None:
    shards = population(everything, Natural(), PairSplit(), seed=0).shards
    assert np.sum([len(shard.pairs) for shard in shards]) == len(TRAINING)
