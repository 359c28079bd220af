"""Choices, and what a suite tells of methods that are no federation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedpref.benchmarks.suite.choice import Choices, best, read_choices
from fedpref.benchmarks.suite.declared import DataSet, Method, Suite, Tier
from fedpref.benchmarks.suite.metrics import COSTS
from fedpref.benchmarks.suite.page import as_page
from fedpref.benchmarks.suite.run import Setting, run_suite
from fedpref.benchmarks.suite.show import text
from fedpref.errors import ConfigurationError
from fedpref.report.sweep import sweep_page

TIER = Tier("smoke", ("easy", "hard"), ("base", "mine"), (0,), (), "nothing")
SUITE = Suite("mine", "T", "A", "base", (), {}, {}, {"smoke": TIER})
EASY = DataSet("easy", ())
GRID = Method("base", (), (("a=1",), ("a=2",), ("a=3",)))


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


def test_who_is_not_federated_has_accuracies_and_no_costs_of_exchange(tmp_path: Path) -> None:
    tier = Tier("smoke", ("tiny",), ("base", "alone", "other"), (0,), ("rounds=2",), "nothing")
    words = ("data=synthetic", "data.preset=tiny", "data.form=attributes", "checkpoint.every=9")
    methods = {name: Method(name, ("client=linear_reward",)) for name in tier.methods}
    methods["alone"] = Method("alone", ("client=linear_reward",), is_federated=False)
    data = {"tiny": DataSet("tiny", (), target=0.0)}
    suite = Suite("mine", "T", "A", "base", words, data, methods, {"smoke": tier})
    outcome = run_suite(suite, tier, Setting(tmp_path, 1, str, lambda line: None))
    base, alone, _ = outcome.tables[0].rows
    assert set(base.cells) - set(alone.cells) == set(COSTS)
    assert alone.cells["user_accuracy"].estimate == base.cells["user_accuracy"].estimate
    (line,) = [line for line in text(outcome).splitlines() if line.startswith("alone ")]
    assert re.search(r" -( +-){4}$", line)
    chart = sweep_page(as_page(outcome, tmp_path))
    assert "alone" in chart and "<title>alone</title>" not in chart
