"""``fedpref tune``: a search that goes on after any end, and that never sees a test pair."""

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedpref.cli.build import federation_from
from fedpref.cli.compose import compose, parse_words, plain
from fedpref.cli.trials import Trial, read_trial, write_trial
from fedpref.data.assembly import pool
from fedpref.errors import StorageError
from fedpref.evaluation.validation import for_choice
from fedpref.federation.federation import Federation

pytest.importorskip("optuna", reason="Optuna is absent: pip install 'fedpref[tune]'")

Run = Callable[..., Any]
TINY = ("data.preset=tiny", "data.form=attributes", "client.local_steps=3", "rounds=2")
LR = "client.lr=loguniform(0.01,10)"
TO_S = ("--storage", "s")


def result(folder: Path, name: str = "s") -> dict[str, Any]:
    return dict(json.loads((folder / name / "tune.json").read_text()))


def trial_files(folder: Path, name: str = "s") -> list[str]:
    return sorted(path.name for path in (folder / name / "trials").iterdir())


def test_a_search_leaves_a_table_a_command_and_a_record_of_each_trial(fedpref: Run, folder: Path) -> None:
    words = (*TINY, LR, "strategy=choice(fedavg,local_only)")
    code, out, err = fedpref("tune", *words, *TO_S, "--trials", "3")
    assert code == 0
    found = result(folder)
    accuracies = [row["user_accuracy"] for row in found["trials"]]
    assert len(accuracies) == 3 and found["best"]["user_accuracy"] == max(accuracies)
    assert found["best"]["trial"] == 1 + accuracies.index(max(accuracies))
    lines = out.splitlines()
    assert lines[0].split() == "trial user accuracy 95 % interval client.lr strategy".split()
    shown = [float(line.split()[1]) for line in lines[1:4]]
    assert shown == sorted(shown, reverse=True)
    best = [f"{key}={value}" for key, value in found["best"]["point"].items()]
    assert lines[-1] == "run   " + shlex.join(["fedpref", "run", *TINY, *best])
    assert sum(line.startswith("trial ") for line in err.splitlines()) == 3
    assert trial_files(folder) == [f"000{number}.json" for number in (1, 2, 3)]
    assert not (folder / "runs").exists()
    assert fedpref(*shlex.split(found["command"])[1:])[0] == 0


def test_the_value_of_a_trial_is_that_of_its_run_on_people_divided_for_choice(
    fedpref: Run, folder: Path
) -> None:
    assert fedpref("tune", *TINY, LR, *TO_S, "--trials", "1")[0] == 0
    (trial,) = result(folder)["trials"]
    words = parse_words([*TINY, f"client.lr={trial['point']['client.lr']}"])
    federation = federation_from(plain(compose(words.all_overrides)))
    divided = for_choice(federation.population, seed=0)
    figures = replace(federation, population=divided).run().evaluation.aggregate
    assert trial["user_accuracy"] == figures["user_accuracy"]
    assert (trial["low"], trial["high"]) == (figures["user_accuracy_low"], figures["user_accuracy_high"])


def test_what_the_test_pairs_say_changes_no_trial(fedpref: Run, folder: Path, people: Path) -> None:
    rows = [json.loads(line) for line in people.read_text().splitlines()]
    for row in rows:
        if row["split"] == "test":
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    (folder / "turned.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    of = ("data=jsonl", "backbone.dense_dim=16", "rounds=2", LR, "--trials", "2")
    assert fedpref("tune", *of, f"data.path={people}", "--storage", "a")[0] == 0
    assert fedpref("tune", *of, "data.path=turned.jsonl", "--storage", "b")[0] == 0
    assert result(folder, "a")["trials"] == result(folder, "b")["trials"]
    assert result(folder, "a")["validation"] == {"people": 6, "pairs": 12}  # 2 of 9 each


@pytest.mark.slow
def test_interrupted_anywhere_and_started_again_the_search_is_the_undisturbed_one(
    fedpref: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("tune", *TINY, LR, "client.l2=choice(0,0.1)", "--trials", "12")  # the last two not at random
    assert fedpref(*words, "--storage", "whole")[0] == 0
    run, calls = Federation.run, 0

    def interrupted(self: Federation, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in (1, 5, 14):
            raise KeyboardInterrupt
        return run(self, *arguments)

    monkeypatch.setattr(Federation, "run", interrupted)
    for ended in (0, 3, 11):
        code, _, err = fedpref(*words, *TO_S)
        assert code == 130 and err.endswith("interrupted; go on with the same command\n")
        assert len(trial_files(folder)) == ended
    assert fedpref(*words, *TO_S)[0] == 0
    assert calls == 12 + 3
    assert (folder / "s" / "tune.json").read_bytes() == (folder / "whole" / "tune.json").read_bytes()


def test_a_lost_trial_is_run_again_and_a_longer_search_keeps_the_shorter(fedpref: Run, folder: Path) -> None:
    words = ("tune", *TINY, LR, *TO_S, "--trials")
    assert fedpref(*words, "2")[0] == 0
    two = result(folder)
    (folder / "s" / "trials" / "0001.json").unlink()
    assert fedpref(*words, "3")[0] == 0
    assert result(folder)["trials"][:2] == two["trials"]
    assert fedpref(*words, "2")[0] == 0
    assert result(folder) == two and len(trial_files(folder)) == 3


def test_a_finite_space_ends_with_its_last_point_and_counts_equal_results_for_the_earlier(
    fedpref: Run, folder: Path
) -> None:
    (folder / "space.yaml").write_text("client.lr: choice(0.1, 1)\nstrategy: choice(fedavg, fedprox)\n")
    code, out, err = fedpref("tune", *TINY, "--space", "space.yaml", *TO_S, "--format", "json")
    assert code == 0 and "all 4 points were tried" in err
    found = json.loads(out)
    assert found == result(folder) and len(found["trials"]) == 4
    best = max(row["user_accuracy"] for row in found["trials"])
    assert found["best"]["trial"] == min(
        row["trial"] for row in found["trials"] if row["user_accuracy"] == best
    )


def test_a_pooled_baseline_is_chosen_by_the_accuracy_over_people(fedpref: Run, folder: Path) -> None:
    words = (*TINY, "partition=pooled")
    assert fedpref("tune", *words, LR, *TO_S, "--trials", "1")[0] == 0
    (trial,) = result(folder)["trials"]
    assert result(folder)["validation"]["people"] == 16
    typed = f"client.lr={trial['point']['client.lr']}"
    natural = federation_from(plain(compose(parse_words([*TINY, typed]).all_overrides)))
    pooled = pool(for_choice(natural.population, seed=0))
    run = replace(natural, population=pooled).run()
    assert trial["user_accuracy"] == run.evaluation.aggregate["user_accuracy"]


def test_a_trial_that_breaks_down_is_a_result_and_a_search_of_such_fails(fedpref: Run, folder: Path) -> None:
    code, out, _ = fedpref("tune", *TINY, "limits.max_update_norm=choice(1e-9,1e6)", *TO_S)
    assert code == 0
    assert [line.split()[1] for line in out.splitlines()[1:3]][1] == "failed"
    assert "note  trial" in out and result(folder)["best"]["point"] == {"limits.max_update_norm": "1000000.0"}
    code, _, err = fedpref("tune", *TINY, "limits.max_update_norm=choice(1e-9,1e-8)", "--storage", "none")
    assert code == 5 and "all 2 trials failed; the first:" in err
    assert not (folder / "none" / "tune.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["client.lr=choice(0.1,-1)"], "client.lr"),
        (["client.lrr=choice(0.1,1)"], "Did you mean 'lr'"),
        (["client.local_steps=uniform(1,4)"], "client.local_steps=1.0 is not an integer"),
        (["strategy=choice(fedavg,fedprx)"], "Did you mean 'fedprox'"),
        (["strategy=choice(fedavg,fedprox)", "strategy.mu=choice(0.1,1)"], "strategy.mu"),
        (["data.preset=choice(tiny,clusters)"], "cannot be searched"),
        (["client.lr=0.1,1"], "write choice(a,b,…)"),
        (["client.lr=0.1"], "nothing to search"),
        ([LR, "--trials", "0"], "--trials 0 must be at least 1"),
        ([LR, "seed=x"], "seed"),
        (["cohort_size=choice(4,17)"], "cohort_size=17 is larger than the population of 16"),
    ],
)
def test_a_wrong_word_is_named_before_anything_is_run_or_written(
    fedpref: Run, folder: Path, words: list[str], message: str
) -> None:
    tiny = ["data.form=attributes", *(["data.preset=tiny"] if "preset" not in words[0] else [])]
    code, _, err = fedpref("tune", *tiny, *words, *TO_S)
    assert code == 2
    assert err.startswith("fedpref: ") and len(err.splitlines()) == 1 and message in err
    assert not list(folder.iterdir())


def test_the_folder_of_another_search_is_not_mixed_with_this_one(fedpref: Run, folder: Path) -> None:
    assert fedpref("tune", *TINY, LR, *TO_S, "--trials", "1")[0] == 0
    before = {path: path.read_bytes() for path in (folder / "s").rglob("*.json")}
    for words, differs in (
        ([*TINY, "client.lr=loguniform(0.01,1)"], "space"),
        ([*TINY, "seed=1", LR], "config"),
    ):
        code, _, err = fedpref("tune", *words, *TO_S, "--trials", "1")
        assert code == 2 and f"holds another search ({differs}" in err
    assert {path: path.read_bytes() for path in (folder / "s").rglob("*.json")} == before
    turned = (LR, *reversed(TINY), "name=other", "out=elsewhere")  # words that change no number
    assert fedpref("tune", *turned, *TO_S, "--trials", "1")[0] == 0


def test_a_search_goes_on_only_on_the_files_and_the_source_that_it_began_with(
    fedpref: Run, folder: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = ("data=jsonl", f"data.path={people}", "backbone.dense_dim=16", "rounds=1", LR)
    words = ("tune", *of, *TO_S, "--trials", "1")
    assert fedpref(*words)[0] == 0
    before = {path: path.read_bytes() for path in (folder / "s").rglob("*.json")}
    with monkeypatch.context() as patch:
        patch.setattr("fedpref.cli.identity.source_sha256", lambda: "changed")
        code, _, err = fedpref(*words)
        assert code == 2 and "holds another search (source_sha256 differ)" in err
    rows = people.read_text().splitlines(keepends=True)
    turned = {**json.loads(rows[0]), "chosen": json.loads(rows[0])["rejected"]}
    turned["rejected"] = json.loads(rows[0])["chosen"]  # as many pairs of the same people
    people.write_text(json.dumps(turned) + "\n" + "".join(rows[1:]))
    code, _, err = fedpref(*words)
    assert code == 2 and "holds another search (inputs differ)" in err
    assert {path: path.read_bytes() for path in (folder / "s").rglob("*.json")} == before
    people.write_text("".join(rows))
    assert fedpref(*words)[0] == 0


def test_every_file_that_is_searched_is_among_the_inputs(fedpref: Run, folder: Path) -> None:
    """A configuration of one point names one of them."""
    columns = "device,kind,flops_per_s,memory_bytes,down_bytes_per_s,up_bytes_per_s,latency_s\n"
    for name, flops_per_s in (("a.csv", "1e9"), ("b.csv", "1e10")):
        (folder / name).write_text(f"{columns}phone,cpu,{flops_per_s},4e9,1e6,1e6,0.1\n")
    words = ("tune", *TINY, "fleet=traces", "fleet.path=choice(a.csv,b.csv)", *TO_S, "--trials", "1")
    code, _, err = fedpref(*words)
    assert code == 0, err
    first, second = ((folder / name).read_text() for name in ("a.csv", "b.csv"))
    for changed in ((first, first), (second, first), (second, second)):
        for name, text in zip(("a.csv", "b.csv"), changed, strict=True):
            (folder / name).write_text(text)
        code, _, err = fedpref(*words)
        assert code == 2 and "(inputs differ)" in err


def test_a_folder_in_use_and_a_damaged_record_are_storage_errors(fedpref: Run, folder: Path) -> None:
    from fedpref.report.lock import RunLock

    words = ("tune", *TINY, LR, *TO_S, "--trials", "1")
    (folder / "s").mkdir()
    lock = RunLock(folder / "s")
    code, _, err = fedpref(*words)
    assert code == 4 and "is in use" in err
    lock.release()
    assert fedpref(*words)[0] == 0
    record = folder / "s" / "trials" / "0001.json"
    record.write_text(record.read_text()[:20])
    code, _, err = fedpref(*words)
    assert code == 4 and "0001.json is damaged" in err


@pytest.mark.parametrize(
    "text", ["[]", "{}", "1", '{"curve": 1}', '{"point": {"x": 1, "y": 2}, "curve": [], "colour": 1}']
)
def test_a_record_that_is_no_trial_is_named(tmp_path: Path, text: str) -> None:
    trial = Trial(number=3, point={"x": 0.1, "y": "a"}, user_accuracy=0.7, curve=((0, 0.5), (2, 0.7)))
    (tmp_path / "trials").mkdir()
    write_trial(tmp_path, trial)
    assert read_trial(tmp_path, 3, ("x", "y")) == trial and read_trial(tmp_path, 4, ("x", "y")) is None
    turned = read_trial(tmp_path, 3, ("y", "x"))
    assert turned == trial and list(turned.point) == ["y", "x"]
    (tmp_path / "trials" / "0003.json").write_text(text)
    with pytest.raises(StorageError, match=r"0003\.json is damaged"):
        read_trial(tmp_path, 3, ("x", "y"))


def test_no_value_of_the_environment_reaches_a_file(
    fedpref: Run, folder: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHERE", people.rename(folder / "hush.jsonl").name)
    words = ("data=jsonl", "data.path=${oc.env:WHERE}", "backbone.dense_dim=16", "rounds=1", LR)
    assert fedpref("tune", *words, *TO_S, "--trials", "1")[0] == 0
    assert not [path for path in (folder / "s").rglob("*.json") if "hush" in path.read_text()]


def test_help_says_what_can_be_searched(fedpref: Run) -> None:
    code, out, _ = fedpref("tune", "--help")
    assert code == 0
    for word in ("loguniform(a,b)", "--storage", "--trials", "--space", "never by test pairs"):
        assert word in out


def test_the_command_line_starts_without_optuna() -> None:
    code = "import sys, fedpref.cli.app, fedpref.cli.tune; print('optuna' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False"]


# FedAvg that kills its own process in a trial that the environment names.
KILLER = """
import os, pathlib, signal
from dataclasses import dataclass
from fedpref.strategies.fedavg import FedAvg

@dataclass(frozen=True)
class Killer:
    inner: FedAvg = FedAvg()

    def init(self, *arguments):
        return self.inner.init(*arguments)

    def plan(self, *arguments):
        return self.inner.plan(*arguments)

    def fold(self, *arguments):
        done = len(list(pathlib.Path("s/trials").glob("*.json")))
        if os.environ.get("KILL_AFTER_TRIALS") == str(done):
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inner.fold(*arguments)

    def models(self, state):
        return self.inner.models(state)

    def serve(self, *arguments):
        return self.inner.serve(*arguments)
"""


@pytest.mark.slow
def test_a_search_killed_in_two_of_its_trials_is_the_undisturbed_one(process: Run, folder: Path) -> None:
    (folder / "killer.py").write_text(KILLER)
    (folder / "configs" / "strategy").mkdir(parents=True)
    (folder / "configs" / "strategy" / "killer.yaml").write_text("_target_: killer.Killer\n")
    words = ("--allow", "killer", "--config-dir", "configs", *TINY, "strategy=killer", LR, "--trials", "3")
    whole = process("tune", *words, "--storage", "whole")
    assert whole.code == 0, whole.err
    for ended in (1, 2):
        killed = process("tune", *words, *TO_S, env={"KILL_AFTER_TRIALS": str(ended)})
        assert killed.code == -signal.SIGKILL
        assert len(trial_files(folder)) == ended
    done = process("tune", *words, *TO_S)
    assert done.code == 0 and done.out == whole.out
    assert (folder / "s" / "tune.json").read_bytes() == (folder / "whole" / "tune.json").read_bytes()
