"""``fedpref bench`` as it is typed: what it refuses, what a part of a tier leaves, how it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedpref.errors import FederationError
from fedpref.federation.federation import Federation

SUITE = """
title: Own
about: Of tiny people.
base: fedavg
words: [data.preset=tiny, data.form=attributes, executor=cohort, checkpoint.every=1]
data:
  easy: {words: []}
  real: {words: [data=jsonl], file: llmfao}
methods:
  fedavg: {words: [client=linear_reward]}
  ridge: {words: [client=personal_ridge]}
tiers:
  smoke: {data: [easy], seeds: [0, 1], words: [rounds=2], cost: nothing}
  small: {data: [easy, real], seeds: [0], words: [rounds=2], cost: nothing}
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def own(folder: Path) -> Path:
    (folder / "own.yaml").write_text(SUITE)
    (folder / "empty").mkdir()
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("own.yaml", "--check", "--expect", "why"), "leave one out"),
        (("own.yaml", "--expect", ""), "--expect needs a reason"),
        (("own.yaml", "--expect", " "), "--expect needs a reason"),
        (("own.yaml", "--expect", "why", "--seeds", "0"), "are for whole tiers"),
        (("own.yaml", "--expect", "why", "--tier", "small", "--data", "empty"), "the files of real are not"),
        (
            ("own.yaml", "--strategies", "ridgee"),
            "--strategies ridgee: no method of suite own and no strategy. ",
        ),
        (("own.yaml", "--strategies", "ridgee"), "Did you mean 'ridge'? Its methods are fedavg, ridge; "),
        (("own.yaml", "--strategies", "fedprx"), "Did you mean 'fedprox'?"),
        (("absent.yaml",), "there is no file absent.yaml"),
        (("devices.yaml",), "rename the file"),
        (("own.yaml", "--address", "nowhere"), "--address nowhere must be of the form host:port"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_run(
    own: Path, fedpref: Run, words: tuple[str, ...], said: str
) -> None:
    (own / "devices.yaml").write_text(SUITE)
    code, _, err = fedpref("bench", *words, "--jobs", "1")
    assert code == 2 and said in err
    assert not list(own.glob("bench/*/*/*/status.json"))


@pytest.mark.slow
def test_a_part_of_a_tier_takes_no_place_of_the_whole(own: Path, fedpref: Run) -> None:
    words = ("bench", "own.yaml", "--jobs", "1", "--markdown", "B.md", "--allow", "json")
    assert fedpref(*words)[0] == 0
    whole = (own / "bench" / "own" / "outcome-smoke.json").read_bytes()
    section = (own / "B.md").read_text()
    code, out, _ = fedpref(*words, "--seeds", "1")
    assert code == 0 and "A part of the tier smoke: strategies fedavg, ridge; seeds 1." in out
    assert (own / "bench" / "own" / "outcome-smoke.json").read_bytes() == whole
    both = (own / "B.md").read_text()
    assert both.startswith(section) and both.count("\n## Own (smoke-part)\n") == 1
    assert "    fedpref bench own.yaml --tier smoke --seeds 1 --allow json\n" in both
    code, _, err = fedpref("report", "bench/own", "--tier", "smoke-part")
    assert (code, err) == (0, "")
    for name, ended in (("smoke", "2001"), ("smoke-part", "2002")):
        file = own / "bench" / "own" / f"outcome-{name}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"ended": ended}))
    assert "shown  tier smoke-part, which ended last; --tier shows smoke" in fedpref("report", "bench/own")[2]


@pytest.mark.slow
def test_figures_are_kept_and_checked_and_a_changed_one_is_named(own: Path, fedpref: Run) -> None:
    words = ("bench", "own.yaml", "--jobs", "1")
    assert fedpref(*words, "--expect", "the first time")[0] == 0
    assert fedpref(*words, "--check")[0] == 0
    file = own / "expected" / "own-smoke.json"
    kept = json.loads(file.read_text())
    kept["figures"]["easy"]["fedavg"]["bytes_up"][1] += 500
    file.write_text(json.dumps(kept))
    code, _, err = fedpref(*words, "--check")
    assert code == 5 and err.startswith("fedpref: own: easy, fedavg, bytes_up: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "state"), [(KeyboardInterrupt(), "interrupted"), (FederationError("it broke"), "failed")]
)
def test_a_run_that_ends_early_says_how_and_where(
    own: Path, fedpref: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, state: str
) -> None:
    run = Federation.run
    words = ("bench", "own.yaml", "--jobs", "1", "--strategies", "fedavg", "--seeds", "0")

    def cut(self: Federation, directory: Any, on_round: Any, resume: bool) -> Any:
        def after_one(record: Any) -> None:
            on_round(record)
            if record["round"] == 1:
                raise error

        return run(self, directory, after_one, resume)

    with monkeypatch.context() as patched:
        patched.setattr(Federation, "run", cut)
        code, _, err = fedpref(*words)
    files = list((own / "bench" / "own").glob("easy-fedavg/*/status.json"))
    found = [json.loads(file.read_text()) for file in files]
    assert {(status["state"], status["round"]) for status in found} == {(state, 1)}
    if state == "interrupted":
        assert code == 130 and err.endswith("fedpref: interrupted; go on with the same command\n")
        assert fedpref(*words)[0] == 0
        assert [json.loads(file.read_text())["state"] for file in files] == ["finished"]


def test_the_file_of_a_suite_that_fedpref_brings_is_that_suite(own: Path, fedpref: Run) -> None:
    from fedpref.benchmarks.suite import declared

    brought = Path(declared.__file__).parent.parent / "suites" / "devices.yaml"
    code, _, err = fedpref("bench", str(brought), "--strategies", "nobody")
    assert code == 2 and "suite devices" in err and "rename" not in err


def heed_interrupts() -> None:
    """A process that a background shell started ignores them, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_ctrl_c_stops_all_workers_at_once_and_begins_nothing_more(own: Path) -> None:
    endless = SUITE.replace("rounds=2", "rounds=1000000").replace("checkpoint.every=1", "checkpoint.every=50")
    (own / "own.yaml").write_text(endless)
    command = [sys.executable, "-m", "fedpref", "bench", "own.yaml", "--jobs", "2"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed_interrupts
    ) as running:
        try:
            while len([file for file in own.glob("bench/own/*/*/metrics.jsonl") if file.stat().st_size]) < 2:
                assert running.poll() is None
                time.sleep(0.05)
            os.killpg(running.pid, signal.SIGINT)
            _, err = running.communicate(timeout=60)
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 130 and "interrupted; go on with the same command" in err
    states = [json.loads(file.read_text())["state"] for file in own.glob("bench/own/*/*/status.json")]
    assert states == ["interrupted"] * 2  # of four runs
