"""Choices, claims and figures that are kept: what a suite makes of its runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedpref.benchmarks.suite.choice import Choices, best, read_choices
from fedpref.benchmarks.suite.claims import verdicts
from fedpref.benchmarks.suite.declared import Claim, DataSet, Method, Suite, Tier
from fedpref.benchmarks.suite.expected import deviations, keep
from fedpref.errors import ConfigurationError
from fedpref.evaluation.compare import Table, tables
from fedpref.evaluation.records import Person, Record

TIER = Tier("smoke", ("easy", "hard"), ("base", "mine"), (0,), (), "nothing")
SUITE = Suite("mine", "T", "A", "base", (), {}, {}, {"smoke": TIER})
EASY = DataSet("easy", ())
GRID = Method("base", (), (("a=1",), ("a=2",), ("a=3",)))


def record(name: str, data: str, accuracy: float, **numbers: float) -> Record:
    people = {"anna": Person(accuracy, 10, 0), "ben": Person(accuracy - 0.1, 10, 1)}
    return Record(name, data, 0, people, numbers)


def compared(**mine: float) -> tuple[Table, ...]:
    base = [record("base", data, 0.6, oracle=0.9) for data in mine]
    own = [record("mine", data, accuracy, oracle=0.9) for data, accuracy in mine.items()]
    return tables([*base, *own], ("user_accuracy", "worst_group", "oracle"), "base")


def test_the_best_setting_is_the_first_of_equals_and_never_one_that_failed() -> None:
    assert best([0.5, 0.7, 0.7]) == 1
    assert best([None, 0.1, None]) == 1
    assert best([None, None]) is None
    chosen = Choices().with_(SUITE, TIER, EASY, GRID, [0.5, None, 0.8])
    assert chosen.setting(SUITE, EASY, GRID) == ("a=3",)
    with pytest.raises(ConfigurationError, match="every setting of its grid failed"):
        Choices().with_(SUITE, TIER, EASY, GRID, [None, None, None])


def test_a_choice_is_of_one_grid_and_survives_its_file(tmp_path: Path) -> None:
    chosen = Choices().with_(SUITE, TIER, EASY, GRID, [0.5, 0.6, 0.4])
    chosen.write(tmp_path / "chosen.json")
    again = read_choices(SUITE, tmp_path / "chosen.json")
    assert again.setting(SUITE, EASY, GRID) == ("a=2",)
    other = Method("base", (), (("a=1",), ("a=5",)))
    with pytest.raises(ConfigurationError, match="no options were chosen for base on easy"):
        again.setting(SUITE, EASY, other)
    assert again.setting(SUITE, EASY, Method("plain", ())) == ()


def test_a_claim_holds_within_its_bounds_and_not_without_a_figure() -> None:
    found = compared(easy=0.75)
    claims = [
        Claim("gain", "easy", "mine", "user_accuracy", "base", least=0.14),
        Claim("too much", "easy", "mine", "user_accuracy", "base", least=0.16),
        Claim("regret", "easy", "mine", "user_accuracy", "oracle", least=-0.21),
        Claim("bounded", "easy", "mine", "worst_group", most=0.66),
        Claim("nowhere", "elsewhere", "mine", "user_accuracy", least=0.0),
        Claim("nothing", "easy", "mine", "k_star", most=20),
    ]
    measured = verdicts(claims, found)
    assert [verdict.holds for verdict in measured] == [True, False, True, True, False, False]
    # User accuracy is the mean of 0.75 and 0.65, that of the base 0.55.
    assert [verdict.measured for verdict in measured[:4]] == pytest.approx([0.15, 0.15, -0.2, 0.65])


def test_figures_that_are_kept_need_a_reason_and_name_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "mine-smoke.json"
    with pytest.raises(ConfigurationError, match="--expect needs a reason"):
        keep(path, SUITE, TIER, compared(easy=0.7), " ")
    with pytest.raises(ConfigurationError, match="nothing is expected"):
        deviations(path, compared(easy=0.7))
    keep(path, SUITE, TIER, compared(easy=0.7, hard=0.7), "the first time")
    kept = json.loads(path.read_text())
    assert kept["reason"] == "the first time" and kept["versions"]["fedpref"]
    assert deviations(path, compared(easy=0.7, hard=0.7)) == []
    assert deviations(path, compared(easy=0.704, hard=0.7)) == []  # rounding of another processor
    assert deviations(path, compared(easy=0.7, hard=0.72)) == ["hard, mine: 0.6700, expected 0.6500"]
    missing = deviations(path, compared(easy=0.7))
    assert missing == ["hard, base: missing", "hard, mine: missing"]
