"""A suite that is killed in the middle and started again ends with the tables of one that was left alone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SUITE = """
title: Cut short
about: Six runs, two at a time.
base: fedavg
words: [data.preset=tiny, data.form=attributes, data.unseen=2, checkpoint.every=20, executor=cohort]
data:
  easy: {words: []}
methods:
  fedavg: {words: [client=linear_reward]}
  ridge: {words: [client=personal_ridge], grid: [[client.ridge=1], [client.ridge=8]]}
tiers:
  smoke: {seeds: [0, 1, 2], words: [rounds=100], cost: seconds}
"""


def bench(folder: Path, out: str) -> list[str]:
    words = ["bench", str(folder / "cut.yaml"), "--tier", "smoke", "--tune", "--jobs", "2"]
    return [sys.executable, "-m", "fedpref", *words, "--out", str(folder / out)]


def told(folder: Path, out: str) -> dict[str, Any]:
    """All that was found, without when and where."""
    outcome = json.loads((folder / out / "cut" / "outcome-smoke.json").read_text())
    for run in outcome["runs"]:
        del run["path"]  # is named by the time
    return {key: value for key, value in outcome.items() if key not in ("ended", "facts")}


def finished(folder: Path) -> int:
    states = [json.loads(file.read_text())["state"] for file in folder.glob("cut/*/*/status.json")]
    return states.count("finished")


@pytest.mark.slow
def test_a_killed_suite_goes_on_and_ends_with_the_same_tables(tmp_path: Path) -> None:
    (tmp_path / "cut.yaml").write_text(SUITE)
    subprocess.run(bench(tmp_path, "whole"), check=True, capture_output=True)
    for most in (1, 4):  # among the trials, then among the runs
        running = subprocess.Popen(
            bench(tmp_path, "cut"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while finished(tmp_path / "cut") < most:
            assert running.poll() is None
            time.sleep(0.01)
        running.kill()
        running.wait()
        assert finished(tmp_path / "cut") < 8
    made = {path.parent for path in (tmp_path / "cut").glob("cut/*/*/summary.json")}
    again = subprocess.run(bench(tmp_path, "cut"), check=True, capture_output=True, text=True)
    assert told(tmp_path, "cut") == told(tmp_path, "whole"), again.stdout
    # What was finished was not run again, and what was begun was not begun anew beside it.
    after = {path.parent for path in (tmp_path / "cut").glob("cut/*/*/summary.json")}
    assert made <= after and len(after) == 8
