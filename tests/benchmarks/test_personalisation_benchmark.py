"""What the benchmark of personal heads compares with what, and that a killed one goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedpref.benchmarks.personalisation import COHORT, METHODS, Run, figures, main, population, table


def run(seed: int, method: str, mean: float, is_pooled: bool = False) -> Run:
    return Run("clusters-60", seed, method, is_pooled, mean, mean - 0.1, oracle=0.8, cpu_s=1.0)


def line_of(runs: list[Run], method: str) -> str:
    return next(line for line in table(runs).splitlines() if line.startswith(method))


def test_the_share_of_the_gap_is_of_means_over_the_same_populations() -> None:
    runs = [run(0, "global head", 0.6), run(1, "global head", 0.7), run(2, "global head", 0.1)]
    runs += [run(0, "ifca", 0.7), run(1, "ifca", 0.7)]
    assert "  2 0.7000 0.6000  33.3 %" in line_of(runs, "ifca")  # (0.7 - 0.65) / (0.8 - 0.65)
    assert "%" not in line_of(runs[1:], "ifca")  # no global head for population 0


def test_a_method_is_compared_with_its_pooled_version_in_pairs_and_may_be_a_hundredth_below() -> None:
    runs = [run(0, "ifca", 0.70), run(1, "ifca", 0.60), run(2, "ifca", 0.1)]
    near = [run(0, "ifca", 0.71, is_pooled=True), run(1, "ifca", 0.608, is_pooled=True)]
    assert "  2 -0.0090 ± 0.0010 ok" in line_of(runs + near, "ifca")
    far = [run(0, "ifca", 0.71, is_pooled=True), run(1, "ifca", 0.612, is_pooled=True)]
    assert "  2 -0.0110 ± 0.0010 BELOW" in line_of(runs + far, "ifca")


def test_runs_that_the_file_has_are_not_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "runs.jsonl"
    common = ["--out", str(file), "--only", "local ridge", "--settings", "clusters-20", "--pooled", "1"]
    main([*common, "--populations", "1"])
    first = file.read_text()
    assert [json.loads(line)["is_pooled"] for line in first.splitlines()] == [False, True]
    main([*common, "--populations", "2"])
    assert file.read_text().startswith(first)
    added = json.loads(file.read_text()[len(first) :])
    assert (added["seed"], added["is_pooled"]) == (1, False)
    assert capsys.readouterr().out.count("clusters-20") == 2


def test_a_local_ridge_needs_nobody_else_and_every_method_has_a_cohort_that_its_populations_fill() -> None:
    people = population("clusters-20", 1001)
    assert len(people.shards) > COHORT
    local = METHODS["local ridge"]
    assert (
        figures(local, people, 0, False)["user_accuracy"] == figures(local, people, 1, True)["user_accuracy"]
    )
    groups = [0, 1] * (len(people.shards) // 2)
    assert all(hasattr(method.strategy(COHORT, groups), "plan") for method in METHODS.values())
