"""What a suite keeps for its page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fedpref.benchmarks.suite.choice import Choices
from fedpref.benchmarks.suite.declared import Claim, DataSet, Method, Suite, Tier
from fedpref.benchmarks.suite.job import Job
from fedpref.benchmarks.suite.page import as_page, keep
from fedpref.benchmarks.suite.results import Failure
from fedpref.benchmarks.suite.run import Outcome
from fedpref.benchmarks.suite.show import text
from fedpref.evaluation.compare import tables
from fedpref.evaluation.records import Person, Record
from fedpref.report.sweep import sweep_page

TIER = Tier("smoke", ("easy",), ("base", "mine", "broken"), (0, 1), (), "nothing")
METHODS = {name: Method(name, ()) for name in TIER.methods}
CLAIM = Claim("It gains.", "easy", "mine", "user_accuracy", "base", least=0.05)
SUITE = Suite("s", "A suite", "About.", "base", (), {"easy": DataSet("easy", ())}, METHODS, {"smoke": TIER})


def record(name: str, seed: int, accuracy: float) -> Record:
    people = {"anna": Person(accuracy, 10, 0), "ben": Person(accuracy - 0.1, 10, 1)}
    return Record(name, "easy", seed, people, {"bytes_up": 5.0, "bytes_down": 6.0})


def outcome(out: Path) -> Outcome:
    """The second method gains 0.1; the third failed in its second seed."""
    accuracies = {"base": 0.6, "mine": 0.7}
    whole = [record(name, seed, value) for name, value in accuracies.items() for seed in TIER.seeds]
    jobs = [
        Job("s", "easy", name, (), seed, False, (f"strategy={name}", f"seed={seed}"))
        for name in TIER.methods
        for seed in TIER.seeds
    ]
    paths = [out / job.name / f"run-s{job.seed}" for job in jobs]
    records = [*whole, record("broken", 0, 0.9)]
    failures = [Failure("easy", "broken", 1, "not finite")]
    suite = replace(SUITE, claims=(CLAIM,))
    compared = tables(whole, ("user_accuracy", "bytes_up", "bytes_down"), "base")
    return Outcome(suite, TIER, Choices(), compared, records, failures, jobs, paths, ["A note."])


def test_all_runs_have_commands_and_those_that_failed_a_reason_but_no_row(tmp_path: Path) -> None:
    page = as_page(outcome(tmp_path), tmp_path)
    assert len(page["runs"]) == 6
    assert page["runs"][3] == {
        "data": "easy",
        "method": "mine",
        "seed": 1,
        "command": "fedpref run strategy=mine seed=1",
        "path": "easy-mine/run-s1",
    }
    assert [row["name"] for row in page["tables"][0]["rows"]] == ["base", "mine"]
    assert page["failures"] == [{"data": "easy", "method": "broken", "seed": 1, "error": "not finite"}]
    groups = page["groups"][0]["groups"]
    assert [[row["name"] for row in group["rows"]] for group in groups] == [["base", "mine"]] * 2
    assert [group["rows"][1]["mean"] for group in groups] == pytest.approx([0.7, 0.6])
    (claim,) = page["claims"]
    assert claim["asked"] == "user_accuracy of mine - base at least 0.05" and claim["holds"] is True


CLAIMS = (
    CLAIM,
    replace(CLAIM, claim="It gains much.", least=0.2, why="Two people alone."),
    replace(CLAIM, claim="It holds.", why="Not said."),
    Claim("It works.", "easy", "broken", "user_accuracy", least=0.5),
    Claim("It is elsewhere.", "hard", "mine", "user_accuracy", least=0.5),
)


def test_claims_have_three_answers_and_why_only_with_a_no(tmp_path: Path) -> None:
    found = outcome(tmp_path)
    found = replace(found, suite=replace(found.suite, claims=CLAIMS))
    page = as_page(found, tmp_path)
    assert [(one["told"], one["holds"], one["why"]) for one in page["claims"]] == [
        ("0.1000", True, ""),
        ("0.1000", False, "Two people alone."),
        ("0.1000", True, ""),
        ("failed", False, ""),
        ("-", None, ""),
    ]
    told = text(found)
    for row in (
        "| 0.1000 | yes |",
        "| 0.1000 | **no** Two people alone. |",
        "| failed | **no** |",
        "| - | - |",
        "\n\n2 of 4 claims that were tested hold; 1 was not.",
    ):
        assert row in told
    assert "Not said." not in told and page["claims_told"] in told


def test_a_mean_rank_is_over_two_data_sets_at_least_and_newcomers_are_none(tmp_path: Path) -> None:
    found = outcome(tmp_path)
    (easy,) = found.tables
    newcomers = replace(easy, data="easy, newcomers with 5 pairs")
    assert "Mean rank" not in text(replace(found, tables=[easy, newcomers]))
    two = replace(found, tier=replace(TIER, data=("easy", "hard")), tables=[easy, replace(easy, data="hard")])
    assert "Mean rank over data sets: mine 1.0, base 2.0. Not on all of them: broken." in text(two)


def test_the_command_names_what_is_not_as_the_tier_has_it(tmp_path: Path) -> None:
    usual = outcome(tmp_path)
    assert as_page(usual, tmp_path)["command"] == "fedpref bench s --tier smoke"
    fewer = replace(usual, tier=replace(TIER, methods=("base", "mine"), seeds=(3,)))
    command = "fedpref bench s --tier smoke --strategies base,mine --seeds 3"
    assert as_page(fewer, tmp_path)["command"] == command


def test_what_is_kept_is_what_is_shown(tmp_path: Path) -> None:
    path = keep(outcome(tmp_path), tmp_path)
    assert path == tmp_path / "outcome-smoke.json"
    page = sweep_page(json.loads(path.read_text(encoding="utf-8")))
    for told in (
        "A suite",
        "not finite",
        "A note.",
        "It gains.",
        "✓ yes",
        "fedpref run strategy=base seed=0",
    ):
        assert told in page
