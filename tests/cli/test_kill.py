"""A run killed by SIGKILL and resumed is the undisturbed run."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

TINY = ("data.preset=tiny", "data.form=attributes", "client.local_steps=3")
Run = Callable[..., tuple[int, str, str]]

# FedAvg that kills its own process when it folds the round that the environment names.
KILLER = """
import os, signal
from dataclasses import dataclass, field
from fedpref.strategies.fedavg import FedAvg

@dataclass(frozen=True)
class Killer:
    cohort_size: int = 5

    @property
    def inner(self):
        return FedAvg(cohort_size=self.cohort_size)

    def init(self, fresh, clients, horizon, rng):
        return {"model": self.inner.init(fresh, clients, horizon, rng), "round": 0}

    def plan(self, state, idle, clock_s, rng):
        _, plan = self.inner.plan(state["model"], idle, clock_s, rng)
        return state, plan

    def fold(self, state, arrivals, clock_s, rng):
        if os.environ.get("KILL_IN_ROUND") == str(state["round"] + 1):
            os.kill(os.getpid(), signal.SIGKILL)
        fold = self.inner.fold(state["model"], arrivals, clock_s, rng)
        return fold._replace(state={"model": fold.state, "round": state["round"] + 1})

    def models(self, state):
        return self.inner.models(state["model"])

    def serve(self, state, client_id):
        return self.inner.serve(state["model"], client_id)
"""


@pytest.mark.slow
def test_six_rounds_killed_in_three_of_them_and_resumed_are_the_undisturbed_six(
    process: Run, folder: Path
) -> None:
    (folder / "killer.py").write_text(KILLER)
    (folder / "configs" / "strategy").mkdir(parents=True)
    (folder / "configs" / "strategy" / "killer.yaml").write_text("_target_: killer.Killer\n")
    words = ("--allow", "killer", "--config-dir", "configs", "strategy=killer", *TINY)
    words = (*words, "rounds=6", "checkpoint.every=2")
    assert process("run", *words, "name=whole")[0] == 0
    for round_ in (1, 4, 6):
        assert process("run", *words, "name=cut", env={"KILL_IN_ROUND": str(round_)})[0] == -signal.SIGKILL
        (path,) = (p for p in (folder / "runs" / "cut").iterdir() if not (p / "summary.json").exists())
        code, out, err = process("resume", str(path), "--allow", "killer")
        assert code == 0, err
        assert "resuming" in out
        assert process("resume", str(path), "--allow", "killer")[1].startswith("finished already")
    (whole,) = (folder / "runs" / "whole").iterdir()
    cut = list((folder / "runs" / "cut").iterdir())
    assert len(cut) == 3

    def timeless(text: str) -> list[dict[str, object]]:
        records = [json.loads(line) for line in text.splitlines()]
        return [{key: value for key, value in record.items() if key != "wall_s"} for record in records]

    for path in cut:
        summaries = [json.loads((p / "summary.json").read_text()) for p in (whole, path)]
        assert [s.pop("wall_s") > 0 for s in summaries] == [True, True]
        assert summaries[0] == summaries[1]
        for log in ("metrics.jsonl", "clients.jsonl"):
            assert timeless((path / log).read_text()) == timeless((whole / log).read_text())


@pytest.mark.slow
def test_an_edited_configuration_is_not_resumed_unless_accepted(process: Run, folder: Path) -> None:
    (folder / "killer.py").write_text(KILLER)
    words = ("--allow", "killer", "strategy._target_=killer.Killer", "~strategy.combine", *TINY)
    words = (*words, "cohort_size=5")
    code, _, err = process("run", *words, "rounds=3", "name=t", env={"KILL_IN_ROUND": "2"})
    assert code == -signal.SIGKILL, err
    (path,) = (folder / "runs" / "t").iterdir()
    config = path / "config.yaml"
    config.write_text(config.read_text().replace("rounds: 3", "rounds: 4"))
    code, _, err = process("resume", str(path), "--allow", "killer")
    assert code == 2 and "was edited" in err and "--accept-config" in err
    assert process("resume", str(path), "--allow", "killer", "--accept-config")[0] == 0
    assert json.loads((path / "summary.json").read_text())["rounds"] == 4


@pytest.mark.slow
def test_sigterm_leaves_a_status_and_a_run_that_resumes(folder: Path) -> None:
    import subprocess
    import sys
    import time

    words = ("data.preset=clusters", "data.form=attributes", "rounds=100000", "checkpoint.every=5", "name=t")
    running = subprocess.Popen(
        [sys.executable, "-m", "fedpref", "run", *words], cwd=folder, stderr=subprocess.PIPE, text=True
    )
    while not list(folder.glob("runs/t/*/checkpoints/round_00005")):
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=10) == 130
    assert running.stderr is not None
    assert "fedpref resume runs/t/" in running.stderr.read()
    running.stderr.close()
    (path,) = (folder / "runs" / "t").iterdir()
    assert json.loads((path / "status.json").read_text())["state"] == "interrupted"
