"""Stanford Human Preferences, read from small files of the published layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedpref.data import Dirichlet, Natural, PairSplit, Rows, population
from fedpref.data.published import WrongLayout
from fedpref.data.shp import StanfordPreferences, shp_row
from fedpref.errors import ConfigurationError


def pair(post: str, domain: str, labels: int, a: str = "of A", b: str = "of B") -> dict[str, Any]:
    """A record as the repository's files hold it."""
    return {
        "post_id": post,
        "domain": domain,
        "upvote_ratio": 0.99,
        "history": f"A question, {post}?",
        "c_root_id_A": f"{post}a",
        "c_root_id_B": f"{post}b",
        "created_at_utc_A": 1593535113,
        "created_at_utc_B": 1593535824,
        "score_A": 52,
        "score_B": 54,
        "human_ref_A": f"Answer {a}",
        "human_ref_B": f"Answer {b}",
        "labels": labels,
        "seconds_difference": 711.0,
        "score_ratio": 1.04,
    }


TRAINING = [
    pair("p1", "askbaking_train", 1),
    pair("p1", "askbaking_train", 0, b="of C"),
    pair("p2", "askvet_train", 0),
    pair("p3", "legal_advice_train", 1),
]
VALIDATION = [pair("p4", "askbaking_validation", 1), pair("p5", "askvet_validation", 1)]
TEST = [pair("p6", "askbaking_test", 0)]
EVERYTHING = [*TRAINING, *VALIDATION, *TEST]


def write_lines(path: Path, records: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(record) for record in records))
    return str(path)


def write_repository(folder: Path) -> str:
    """As on the hub: a folder a subreddit, a file of JSON lines a split."""
    splits = (("train", TRAINING), ("validation", VALIDATION), ("test", TEST))
    for subreddit in ("askbaking", "askvet"):
        for split, records in splits:
            mine = [record for record in records if record["domain"].startswith(subreddit)]
            write_lines(folder / subreddit / f"{split}.json", mine or records[:1])
    return str(folder)


def read(tmp_path: Path, records: list[dict[str, Any]] = EVERYTHING, **options: Any) -> Rows:
    return StanfordPreferences(path=write_lines(tmp_path / "shp.jsonl", records), **options).rows()


def test_label_one_prefers_a_and_the_question_is_the_prompt(tmp_path: Path) -> None:
    rows = read(tmp_path, TRAINING[:2])
    assert rows.prompts == ("A question, p1?",) * 2
    assert rows.chosen == ("Answer of A", "Answer of C")
    assert rows.rejected == ("Answer of B", "Answer of A")


def test_the_domain_gives_the_topic_and_the_side_of_the_split(tmp_path: Path) -> None:
    rows = read(tmp_path)
    assert rows.topics == ("askbaking", "askbaking", "askvet", "legal_advice", "askbaking")
    assert rows.splits == ("train", "train", "train", "train", "test")


def test_the_split_that_is_not_held_out_is_left_out_and_counted(tmp_path: Path) -> None:
    assert read(tmp_path).dropped == {"of the validation split": 2}
    assert read(tmp_path, held_out_split="validation").dropped == {"of the test split": 1}


def test_no_person_is_named_but_a_domain_can_be_the_client(tmp_path: Path) -> None:
    assert set(read(tmp_path).clients) == {"everyone"}
    rows = read(tmp_path, client_column="domain")
    people = population(rows, Natural(), PairSplit(), seed=0)
    assert [shard.name for shard in people.shards] == ["askbaking", "askvet", "legal_advice"]


def test_a_small_alpha_gives_clients_of_one_domain(tmp_path: Path) -> None:
    records = [pair(f"{domain}{i}", f"{domain}_train", 1) for domain in ("sea", "sky") for i in range(20)]
    rows = read(tmp_path, [*records, *TEST])
    people = population(rows, Dirichlet(num_clients=4, alpha=1e-6), PairSplit(), seed=0)
    assert [len(shard.pairs) for shard in people.shards] == [10] * 4
    assert all(len(set(shard.pairs.topics)) == 1 for shard in people.shards)


def test_pairs_of_one_post_stay_on_one_side_when_the_set_is_split_anew(tmp_path: Path) -> None:
    records = [pair(f"p{post}", "askvet_train", 1, b=f"{i}") for post in range(10) for i in range(4)]
    rows = read(tmp_path, records, split_column=None)
    held_out = PairSplit(0.3).is_held_out(rows, seed=0)
    sides = {
        prompt: {bool(held_out[i]) for i, p in enumerate(rows.prompts) if p == prompt}
        for prompt in rows.prompts
    }
    assert all(len(side) == 1 for side in sides.values())
    assert sum(held_out) == 0.3 * len(rows)


def test_the_limit_counts_question_and_both_answers(tmp_path: Path) -> None:
    first = TRAINING[0]
    length = len(first["history"]) + len(first["human_ref_A"]) + len(first["human_ref_B"])
    assert "longer than" not in " ".join(read(tmp_path, max_chars=length).dropped)
    dropped = read(tmp_path, [*TRAINING, pair("p7", "askvet_train", 1, a="off A")], max_chars=length).dropped
    assert dropped == {f"longer than {length} characters": 1}


def test_a_folder_laid_out_as_the_hub_reads_the_training_and_the_held_out_files(tmp_path: Path) -> None:
    rows = StanfordPreferences(path=write_repository(tmp_path / "hub")).rows()
    assert sorted(rows.splits) == ["test"] * 2 + ["train"] * 3
    assert not rows.dropped


def test_without_a_copy_the_hub_is_asked_at_the_pinned_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    folder, load, asked = write_repository(tmp_path / "hub"), datasets.load_dataset, []

    def load_from_folder(source: str, **options: Any) -> Any:
        asked.append((source, options["split"], options["revision"], options["data_dir"]))
        return load(folder, cache_dir=str(tmp_path / "cache"), **options)

    of_the_copy = StanfordPreferences(path=folder).rows()
    monkeypatch.setattr(datasets, "load_dataset", load_from_folder)
    rows = StanfordPreferences().rows()

    assert (rows.prompts, rows.chosen, rows.splits) == (
        of_the_copy.prompts,
        of_the_copy.chosen,
        of_the_copy.splits,
    )
    pinned = "e94b5f32602712d78ed494fe79105b1959396686"
    assert asked == [("stanfordnlp/SHP", split, pinned, None) for split in ("train", "test")]
    assert not any("pinned" in note for note in rows.notes)
    assert any("pinned" in note for note in StanfordPreferences(revision=None).rows().notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": 2}, "labels is 2, not 0 or 1"),
        ({"labels": True}, "labels is True"),
        ({"domain": "askvet"}, "domain is 'askvet', not a subreddit and a split"),
        ({"domain": "askvet_dev"}, "domain is 'askvet_dev'"),
    ],
)
def test_a_record_of_another_layout_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(WrongLayout, match=message):
        shp_row({**TRAINING[0], **change})


def test_a_file_of_another_layout_is_named_with_the_record(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"shp\.jsonl, record 0: no field 'labels' among chosen"):
        read(tmp_path, [{"chosen": "A", "rejected": "B"}])


def test_wrong_options_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"data\.held_out_split='dev'"):
        StanfordPreferences(held_out_split="dev")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"data\.max_chars=0"):
        StanfordPreferences(max_chars=0)
    with pytest.raises(ConfigurationError, match=r"data\.bad_rows='skip'"):
        StanfordPreferences(bad_rows="skip")
