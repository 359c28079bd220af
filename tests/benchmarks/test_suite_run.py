"""A suite from its words to its tables: newcomers, runs that fail, names that change, a second process."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from fedpref.benchmarks.suite.declared import DataSet, Method, Suite, Tier
from fedpref.benchmarks.suite.results import SHOTS, records_of
from fedpref.benchmarks.suite.run import Outcome, Setting, run_suite
from fedpref.benchmarks.suite.show import text
from fedpref.errors import ConfigurationError, StorageError
from fedpref.report.lock import RunLock

WORDS = (
    "data=synthetic",
    "data.preset=tiny",
    "data.form=attributes",
    "checkpoint.every=9",
)
TIER = Tier("smoke", ("tiny",), ("fedavg", "ridge"), (0, 1), ("rounds=2",), "nothing")
SUITE = Suite(
    "mine",
    "T",
    "A",
    "fedavg",
    WORDS,
    {"tiny": DataSet("tiny", ("data.unseen=3",))},
    {
        "fedavg": Method("fedavg", ("client=linear_reward",)),
        "ridge": Method("ridge", ("client=personal_ridge", "client.local_steps=2")),
    },
    {"smoke": TIER},
)


def outcome(out: Path, suite: Suite = SUITE, tier: Tier = TIER, tune: bool = False) -> Outcome:
    def find(name: str) -> str:
        raise ConfigurationError(f"{name}: no file")

    return run_suite(suite, tier, Setting(out, 1, find, lambda line: None, tune=tune))


def test_newcomers_have_tables_of_their_own_in_which_the_base_serves_them_alike(tmp_path: Path) -> None:
    found = outcome(tmp_path)
    seen, *newcomers = found.tables
    assert [row.name for row in seen.rows] == ["fedavg", "ridge"]
    assert [table.data for table in newcomers] == [
        f"tiny, newcomers with {shots}" for shots in ("0 pairs", "1 pair", "5 pairs", "20 pairs", "100 pairs")
    ]
    assert all([row.name for row in table.rows] == ["fedavg", "ridge"] for table in newcomers)
    plain, ridge = (
        [table.rows[row].cells["user_accuracy"].estimate for table in newcomers] for row in (0, 1)
    )
    assert all(own.by_seed == plain[0].by_seed for own in plain)
    assert len({own.mean for own in ridge}) == len(ridge)


@pytest.mark.parametrize(("accuracy", "expected"), [(0.0, 0.0), (1.0, None)])
def test_k_star_counts_the_pairs_that_beat_what_the_base_serves(
    tmp_path: Path, accuracy: float, expected: float | None
) -> None:
    found = outcome(tmp_path)
    for job, path in zip(found.jobs, found.paths, strict=True):
        if job.method == "fedavg":
            curve = json.loads((path / "few_shot.json").read_text())
            for person in curve["people"]:
                person["reference"] = accuracy
            (path / "few_shot.json").write_text(json.dumps(curve))
    records, _ = records_of(SUITE, found.jobs, found.paths)
    numbers = [record.numbers for record in records if record.data == "tiny" and record.name == "ridge"]
    assert len(numbers) == 2 and all(of_run.get("k_star") == expected for of_run in numbers)
    assert not any("k_star" in record.numbers for record in records if record.name == "fedavg")


def test_a_method_that_fails_is_listed_and_the_others_stay(tmp_path: Path) -> None:
    spoilt = Method("fedavg", ("client=linear_reward", "client.lr=1e300", "client.local_steps=3"))
    found = outcome(tmp_path, replace(SUITE, methods={**SUITE.methods, "fedavg": spoilt}))
    assert [(one.data, one.method, one.seed) for one in found.failures] == [
        ("tiny", "fedavg", 0),
        ("tiny", "fedavg", 1),
    ]
    assert [row.name for row in found.tables[0].rows] == ["ridge"]
    assert all("There is no run of fedavg: differences are to ridge." in one.notes for one in found.tables)


def test_each_table_says_where_seeds_ask_other_people_and_how_many(tmp_path: Path) -> None:
    alone, both = (
        outcome(tmp_path, tier=replace(TIER, methods=("fedavg",), seeds=seeds)) for seeds in ((0,), (0, 1))
    )
    assert not any("Each seed asks" in note for table in alone.tables for note in table.notes)
    seen, *newcomers = both.tables
    people = len({name for record in both.records if record.data == "tiny" for name in record.people})
    told = "Each seed asks other people, or the same ones other pairs."
    assert f"{told} {people} people a seed." in seen.notes
    assert all(f"{told} 3 people a seed." in table.notes for table in newcomers)
    assert not any("Each seed asks" in note for note in both.notes)


def test_the_command_has_the_flags_and_names_a_folder_of_files_but_not_where_it_is(tmp_path: Path) -> None:
    row = {"chosen": "good", "rejected": "bad", "annotator": "x"}
    rows = [row | {"prompt": f"p{i}", "split": "test" if i % 2 else "train"} for i in range(4)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = replace(
        SUITE,
        words=("data=jsonl", "checkpoint.every=9"),
        data={"real": DataSet("real", (), "llmfao")},
        tiers={"smoke": replace(TIER, data=("real",))},
    )
    part = replace(suite.tiers["smoke"], methods=("fedavg",), seeds=(1,))
    setting = Setting(
        tmp_path, 1, lambda name: str(file), lambda line: None, ("--allow", "json"), has_folder=True
    )
    found = run_suite(suite, part, setting)
    assert found.tier.name == "smoke-part"
    assert shlex.join(found.command) == (
        "fedpref bench mine --tier smoke --strategies fedavg --seeds 1 --allow json --data FOLDER"
    )
    assert found.failures == [] and "A part of the tier smoke: strategies fedavg; seeds 1." in found.notes
    cached = run_suite(suite, part, replace(setting, has_folder=False))
    assert cached.command == found.command[:-2] and "FOLDER" in found.command


def test_a_method_that_is_renamed_is_not_run_again_and_has_its_new_name(tmp_path: Path) -> None:
    before = outcome(tmp_path)
    methods = {"fedavg": SUITE.methods["fedavg"], "mine": replace(SUITE.methods["ridge"], name="mine")}
    after = outcome(tmp_path, replace(SUITE, methods=methods), replace(TIER, methods=("fedavg", "mine")))
    assert list(after.paths) == list(before.paths)
    assert [row.name for row in after.tables[0].rows] == ["fedavg", "mine"]


def test_options_are_chosen_for_the_words_that_are_run(tmp_path: Path) -> None:
    grid = Method("ridge", SUITE.methods["ridge"].words, (("client.ridge=1",), ("client.ridge=4",)))
    suite = replace(SUITE, methods={**SUITE.methods, "ridge": grid})
    with pytest.raises(ConfigurationError, match="add --tune"):
        outcome(tmp_path, suite)
    chosen = outcome(tmp_path, suite, tune=True).choices
    assert outcome(tmp_path, suite).choices == chosen
    changed = replace(suite, data={"tiny": DataSet("tiny", ("data.unseen=3", "data.flips=0.2"))})
    with pytest.raises(ConfigurationError, match="add --tune"):
        outcome(tmp_path, changed)


def test_a_data_set_without_its_file_is_left_out_with_a_note(tmp_path: Path) -> None:
    suite = replace(SUITE, data={**SUITE.data, "real": DataSet("real", ("data=jsonl",), "llmfao")})
    found = outcome(tmp_path, suite, replace(TIER, data=("tiny", "real"), methods=("fedavg",)))
    assert found.tier.data == ("tiny",) and sum("real is left out" in note for note in found.notes) == 1
    with pytest.raises(ConfigurationError, match="no data set is there"):
        outcome(tmp_path, suite, replace(TIER, data=("real",)))


def test_a_second_process_in_one_folder_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    lock = RunLock(tmp_path / "mine")
    try:
        with pytest.raises(StorageError, match="in use"):
            outcome(tmp_path)
    finally:
        lock.release()


def test_newcomers_stand_side_by_side_in_one_text(tmp_path: Path) -> None:
    found = outcome(tmp_path)
    lines = text(found).splitlines()
    start = lines.index("tiny, newcomers, by the pairs that they show")
    (heading,), (ridge,) = (
        [re.split(r"\s{2,}", line.strip()) for line in lines[start:] if line.strip().startswith(first)]
        for first in ("0 pairs", "ridge")
    )
    assert heading == [
        part for shots in SHOTS for part in (f"{shots} pair" + "s" * (shots != 1), "difference")
    ]
    means = [table.rows[1].cells["user_accuracy"].estimate.mean for table in found.tables[1:]]
    assert [cell.split(" ")[0].rstrip("*") for cell in ridge[1::2]] == [f"{mean:.3f}" for mean in means]
    assert sum(line.startswith("tiny") for line in lines) == 2
