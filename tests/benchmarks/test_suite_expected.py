"""What is expected of a tier: all figures of all tables, the options, and the verdicts on claims."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fedpref.benchmarks.suite.choice import Choices
from fedpref.benchmarks.suite.declared import Claim, DataSet, Method, Suite, Tier
from fedpref.benchmarks.suite.expected import deviations, keep, require
from fedpref.benchmarks.suite.job import Job
from fedpref.benchmarks.suite.run import Outcome
from fedpref.errors import ConfigurationError
from fedpref.evaluation.compare import tables
from fedpref.evaluation.records import Person, Record

CLAIM = Claim("It gains.", "easy", "mine", "user_accuracy", "base", least=0.05)
TIER = Tier("smoke", ("easy", "hard"), ("base", "mine"), (0, 1), ("rounds=2",), "nothing")
DATA = {name: DataSet(name, ()) for name in TIER.data}
METHODS = {name: Method(name, (), (("a=1",), ("a=2",))) for name in TIER.methods}
SUITE = Suite("s", "T", "A", "base", (), DATA, METHODS, {"smoke": TIER}, (CLAIM,))
NEWCOMERS = "easy, newcomers with 5 pairs"


def outcome(
    data: Sequence[str] = TIER.data,
    accuracy: float = 0.7,
    newcomers: float = 0.6,
    setting: str = "a=1",
    tier: Tier = TIER,
    **numbers: float,
) -> Outcome:
    """``base`` has 0.6 everywhere; ``mine`` has ``accuracy`` on ``easy`` and 0.7 elsewhere, in seed 1."""

    def record(name: str, of: str, seed: int, value: float, **own: float) -> Record:
        return Record(name, of, seed, {"anna": Person(value, 10), "ben": Person(value - 0.1, 10)}, own)

    of_mine = {"easy": accuracy, "hard": 0.7, NEWCOMERS: newcomers}
    shown = [*data, *([NEWCOMERS] if "easy" in data else [])]
    records = [record("base", of, seed, 0.6, bytes_up=1000.0) for of in shown for seed in tier.seeds]
    records += [
        record("mine", of, seed, of_mine[of] if seed else 0.7, **{"bytes_up": 1000.0, **numbers})
        for of in shown
        for seed in tier.seeds
    ]
    jobs = [
        Job("s", of, name, (setting,), seed, False, (f"data.path=/home/{of}",))
        for of in data
        for name in TIER.methods
        for seed in tier.seeds
    ]
    metrics = ("user_accuracy", "bytes_up", *(name for name in numbers if name != "bytes_up"))
    compared = tables(records, metrics, "base")
    there = replace(tier, data=tuple(data))
    return Outcome(SUITE, there, Choices(), compared, records, [], jobs, [], [])


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    path = tmp_path / "expected" / "s-smoke.json"
    keep(path, outcome(k_star=5.0), "the first time")
    return path


def test_an_outcome_is_as_expected_up_to_the_rounding_of_another_processor(kept: Path) -> None:
    assert deviations(kept, outcome(k_star=5.0)) == []
    assert deviations(kept, outcome(accuracy=0.704, bytes_up=1004.0, k_star=5.0)) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            outcome(accuracy=0.72, k_star=5.0),
            "easy, mine, user_accuracy: 0.6500 0.6700, expected 0.6500 0.6500",
        ),
        (outcome(bytes_up=1006.0, k_star=5.0), "easy, mine, bytes_up: 1006 1006, expected 1000 1000"),
        (outcome(k_star=1.0), "hard, mine, k_star: 1.0000 1.0000, expected 5.0000 5.0000"),
        (outcome(), "easy, mine, k_star: missing"),
        (outcome(k_star=5.0, ari=1.0), "easy, mine, ari: not expected"),
        (
            outcome(newcomers=0.61, k_star=5.0),
            f"{NEWCOMERS}, mine, user_accuracy: 0.6500 0.5600, expected 0.6500 0.5500",
        ),
        (outcome(setting="a=2", k_star=5.0), "hard, base: options a=2, expected a=1"),
        (
            outcome(tier=replace(TIER, words=("rounds=3",)), k_star=5.0),
            "words of the tier: rounds=3, expected rounds=2",
        ),
        (outcome(["easy"], k_star=5.0), "hard, base: missing"),
        (
            outcome(accuracy=0.59, k_star=5.0),  # 0.1 ahead in seed 0, 0.01 behind in seed 1
            "the claim 'It gains.' (easy: user_accuracy of mine - base at least 0.05) does not hold "
            "(0.0450), expected: holds",
        ),
    ],
)
def test_each_figure_option_and_verdict_that_differs_is_named(
    kept: Path, changed: Outcome, said: str
) -> None:
    assert said in deviations(kept, changed)


def test_one_seed_that_moves_is_seen_though_the_mean_hardly_does(kept: Path) -> None:
    assert deviations(kept, outcome(accuracy=0.708, k_star=5.0)) == [
        "easy, mine, user_accuracy: 0.6500 0.6580, expected 0.6500 0.6500"
    ]


def test_the_file_says_why_and_what_was_run_but_no_paths(kept: Path) -> None:
    found = json.loads(kept.read_text())
    assert found["reason"] == "the first time" and found["versions"]["fedpref"]
    assert (found["words"], found["seeds"]) == (["rounds=2"], [0, 1])
    assert found["chosen"] == {name: {"base": ["a=1"], "mine": ["a=1"]} for name in TIER.data}
    assert "/home" not in kept.read_text()


def test_a_blank_reason_and_a_tier_with_gaps_keep_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s-smoke.json"
    with pytest.raises(ConfigurationError, match="--expect needs a reason"):
        keep(path, outcome(), " ")
    with pytest.raises(ConfigurationError, match="whole tier, but hard was left out"):
        keep(path, outcome(["easy"]), "why")
    assert not path.exists()


def test_nothing_older_files_and_other_seeds_are_not_compared(kept: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"is of seeds \[0, 1\], these are \[0\]"):
        deviations(kept, outcome(tier=replace(TIER, seeds=(0,))))
    kept.write_text(json.dumps({"seeds": [0, 1], "figures": {}}))
    with pytest.raises(ConfigurationError, match="another version of fedpref; renew it"):
        require(kept)
    kept.unlink()
    with pytest.raises(ConfigurationError, match="nothing is expected"):
        require(kept)
