"""``fedpref run`` and what reads its runs, in a folder of their own."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

TINY = ("data.preset=tiny", "data.form=attributes", "client.local_steps=3", "name=t")
Run = Callable[..., tuple[int, str, str]]

KEYS = {
    "pair_accuracy",
    "user_accuracy",
    "worst_decile",
    "worst_group",
    "oracle",
    "regret",
    "bytes_up",
    "bytes_down",
    "virtual_s",
    "wall_s",
    "weights_sha256",
}


def only_run(folder: Path, name: str = "t") -> Path:
    (path,) = (folder / "runs" / name).iterdir()
    return path


def summary(path: Path) -> dict[str, object]:
    result: dict[str, object] = json.loads((path / "summary.json").read_text())
    return result


def test_a_run_leaves_everything_that_the_readme_promises(fedpref: Run, folder: Path) -> None:
    code, out, err = fedpref("run", *TINY, "rounds=2", "cohort_size=4")
    assert (code, err) == (0, "")
    path = only_run(folder)
    assert {p.name for p in path.iterdir()} >= {
        "manifest.json",
        "status.json",
        "config.yaml",
        "overrides.yaml",
        "metrics.jsonl",
        "clients.jsonl",
        "events.jsonl",
        "users.json",
        "summary.json",
        "report.html",
        "checkpoints",
    }
    assert summary(path).keys() >= KEYS
    assert len((path / "metrics.jsonl").read_text().splitlines()) == 3  # the start and two rounds
    assert len((path / "clients.jsonl").read_text().splitlines()) == 8
    lines = out.splitlines()
    assert sum(line.startswith("round ") for line in lines) == 3
    assert lines[-3].startswith("done  2/2 rounds  pair accuracy 0.")
    assert f"report: {path.relative_to(folder)}/report.html" in lines[-2]
    assert json.loads((path / "status.json").read_text())["state"] == "finished"


def test_equal_words_give_equal_weights_and_another_seed_others(fedpref: Run, folder: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert fedpref("run", *TINY, "rounds=2", f"name={name}", f"seed={seed}")[0] == 0
    sha = [summary(only_run(folder, name))["weights_sha256"] for name in "abc"]
    assert sha[0] == sha[1] != sha[2]


def test_strategies_bring_their_words_and_two_that_cannot_work_together_are_refused(
    fedpref: Run, folder: Path
) -> None:
    code, _, err = fedpref("run", *TINY, "combine=svd")
    assert code == 2 and "LoRA" in err and "client=lora_reward" in err
    code, _, err = fedpref("run", "data.preset=tiny", "data.form=attributes", "client=lora_reward")
    assert code == 2 and "lora_reward trains inside a transformer" in err
    code, _, err = fedpref("run", *TINY, "backbone=minilm")
    assert code == 2 and "the data holds feature vectors" in err
    code, _, err = fedpref("run", "data.preset=tiny", "backbone=given")
    assert code == 2 and "needs feature vectors" in err
    code, _, err = fedpref("run", *TINY, "partition=iid")
    assert code == 2 and "partition=natural or partition=pooled" in err
    assert not (folder / "runs" / "t").exists() or not any(
        (path / "summary.json").exists() for path in (folder / "runs" / "t").iterdir()
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["strategi=krum"], "Did you mean 'strategy'"),
        (["cohort_size=17"], "cohort_size=17 is larger than the population of 16"),
        (["name=../x"], "run name must match"),
        (["name=/abs"], "run name must match"),
        (["name=''"], "run name must match"),
        (["name=a\\\\b"], "run name must match"),
        (["name=latest"], "latest"),
        (["hydra.run.dir=../../x"], "derived"),
        (["strategy._target_=os.system"], "outside the allowed packages"),
        (["strategy._target_=flwr.serverapp.strategy.fedadam.np.save"], "is not a class"),
        (["data.shares=[0.5,0.2]"], "data.shares"),
        (["data=jsonl", "data.path=nowhere.jsonl"], "nowhere.jsonl"),
        (["client.lr=-1"], "client.lr"),
        (["limits.max_update_norm=0"], "max_update_norm"),
        (["split._target_=fedpref.report.jsonl.JsonLines", "split.path=evil"], "is no PairSplit"),
    ],
)
def test_a_wrong_word_ends_with_code_2_one_line_and_no_run(
    fedpref: Run, folder: Path, words: list[str], message: str
) -> None:
    tiny = [word for word in TINY if word.split("=")[0] not in {w.split("=")[0] for w in words}]
    if words[0] == "data=jsonl":
        tiny = ["client.local_steps=3"]
    code, _, err = fedpref("run", *tiny, *words)
    assert code == 2
    assert err.startswith("fedpref: ") and len(err.splitlines()) == 1
    assert message in err
    assert not list(folder.glob("**/summary.json"))
    assert {p.name for p in folder.iterdir()} <= {"runs"} and not list(folder.glob("**/config.yaml"))


def test_real_rows_train_evaluate_and_serve_newcomers(fedpref: Run, folder: Path, people: Path) -> None:
    words = ("data=jsonl", "data.path=people.jsonl", "name=t", "rounds=8")
    assert fedpref("run", *words, "strategy=local_only")[0] == 0
    path = only_run(folder)
    assert summary(path)["pair_accuracy"] == 1.0  # everybody has a taste of one's own, and it is simple
    rows = people.read_text().replace('"p5"', '"stranger"')
    (folder / "others.jsonl").write_text(rows)
    code, out, _ = fedpref("eval", str(path), "others.jsonl", "--format", "json")
    result = json.loads(out)
    assert code == 0
    assert (result["known_clients"], result["newcomers"], result["num_pairs"]) == (5, 1, 72)
    by_name = {user["name"]: user["accuracy"] for user in result["users"]}
    assert by_name.pop("stranger") == 0.5  # nobody knows the stranger: the initial head ties
    assert set(by_name.values()) == {1.0}


def test_pooling_asks_the_same_people(fedpref: Run, folder: Path, people: Path) -> None:
    words = ("data=jsonl", "data.path=people.jsonl", "rounds=4")
    for partition in ("natural", "pooled"):
        assert fedpref("run", *words, f"partition={partition}", f"name={partition}")[0] == 0
    users = [
        {user["name"] for user in json.loads((only_run(folder, name) / "users.json").read_text())}
        for name in ("natural", "pooled")
    ]
    assert users[0] == users[1] == {f"p{i}" for i in range(6)}
    assert [summary(only_run(folder, n))["num_clients"] for n in ("natural", "pooled")] == [6, 1]


def test_a_sweep_runs_every_point(fedpref: Run, folder: Path) -> None:
    words = [word for word in TINY if not word.startswith("name=")]
    code, _, err = fedpref(
        "run", "-m", *words, "rounds=1", "strategy=fedavg,local_only", "seed=0,1", "name=sweep"
    )
    assert (code, err) == (0, "")
    assert len(list((folder / "runs" / "sweep").iterdir())) == 4


def test_a_typing_error_in_a_sweep_stops_it_before_its_first_job(fedpref: Run, folder: Path) -> None:
    code, _, err = fedpref("run", "-m", *TINY, "rounds=1,x")
    assert code == 2 and "rounds='x'" in err
    assert not (folder / "runs").exists()


def test_a_dry_run_counts_and_runs_nothing(fedpref: Run, folder: Path) -> None:
    code, out, _ = fedpref("run", "--dry-run", *TINY, "rounds=5", "cohort_size=4")
    assert code == 0
    assert "16, 4 a round, 5 rounds" in out
    assert "messages  20 down and 20 up of 24 B" in out  # six float32
    assert "score.weight (1, 6)" in out and "virtual" in out
    assert not (folder / "runs").exists()


def test_runs_are_listed_and_shown(fedpref: Run, folder: Path) -> None:
    assert "no runs here" in fedpref("runs", "ls")[1]
    fedpref("run", *TINY, "rounds=1")
    (row,) = json.loads(fedpref("runs", "ls", "--format", "json")[1])
    assert row["state"] == "finished" and row["round"] == 1
    shown = json.loads(fedpref("runs", "show", "runs/latest", "--format", "json")[1])
    assert shown["summary"]["pair_accuracy"] == row["pair_accuracy"]
    assert [evaluation["round"] for evaluation in shown["evaluations"]] == [0, 1]
    assert "pair_accuracy" in fedpref("runs", "show", "runs/latest")[1]
    assert fedpref("runs", "show", "nowhere")[0] == 4


def test_configurations_are_listed_and_described(fedpref: Run) -> None:
    listing = json.loads(fedpref("config", "ls", "--format", "json")[1])
    assert set(listing["strategy"]) >= {"fedavg", "fedprox", "local_only"}
    text = fedpref("config", "cat", "strategy/fedprox")[1]
    assert "strategy.mu: float = 0.01" in text and "Stragglers" not in text
    code, _, err = fedpref("config", "cat", "strategy/fedprx")
    assert code == 2 and "Did you mean 'strategy/fedprox'" in err


def test_data_is_shown_as_the_model_will_see_it(fedpref: Run, people: Path) -> None:
    code, out, _ = fedpref("data", "inspect", "people.jsonl")
    assert code == 0
    assert "72 rows, 12 distinct pairs" in out and out.count("--- pair") == 3
    assert "What of the river?" in out
    figures = json.loads(fedpref("data", "inspect", "people.jsonl", "--format", "json")[1])
    assert figures["training"]["num_pairs"] == 54 and figures["held_out"]["num_pairs"] == 18
    assert "annotators" in fedpref("data", "inspect", "data.preset=tiny")[1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "chosen": "a"}, "rejected"),
        ({"prompt": "p", "chosen": "a", "rejected": "a", "annotator": "x"}, "row 1"),
        ({"prompt": "p", "chosen": "a", "rejected": "", "annotator": "x"}, "row 1"),
        ({"chosen": "yes", "rejected": "no", "annotator": "x"}, "row 1"),
    ],
)
def test_a_bad_row_is_named(fedpref: Run, folder: Path, row: dict[str, str], message: str) -> None:
    lines = [{"prompt": "p", "chosen": "a", "rejected": "b", "annotator": "x"}, row]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, _, err = fedpref("run", "data=jsonl", "data.path=rows.jsonl")
    assert code == 2 and message in err and len(err.splitlines()) == 1
    assert not list(folder.glob("**/summary.json"))


def test_doctor_names_versions(fedpref: Run) -> None:
    found = json.loads(fedpref("doctor", "--format", "json")[1])
    assert found["versions"]["flwr"].startswith("1.41") and found["cpus"] >= 1
    assert "flwr 1.41" in fedpref("doctor")[1]


def test_no_value_of_the_environment_reaches_a_file(
    fedpref: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDPREF_TEST_ROUNDS", "2")
    monkeypatch.setenv("FEDPREF_TEST_SECRET", "sentinel-71923")
    code, _, err = fedpref(
        "run",
        *TINY,
        "rounds='${oc.decode:${oc.env:FEDPREF_TEST_ROUNDS}}'",
        "+note='${oc.env:FEDPREF_TEST_SECRET}'",
    )
    assert (code, err) == (0, "")
    assert summary(only_run(folder))["rounds"] == 2
    files = [path for path in only_run(folder).rglob("*") if path.is_file()]
    assert not [path for path in files if b"sentinel-71923" in path.read_bytes()]


def test_a_last_fold_of_several_answers_is_counted_up_to_the_rounds_that_were_asked_for(
    fedpref: Run, folder: Path
) -> None:
    # Equal devices and shards: four answers at every instant, so that the models go from round 4 to round 8.
    equal = ("fleet=uniform", "data.min_pairs=8", "data.max_pairs=8", "cohort_size=4")
    out = fedpref("run", *TINY, "strategy=fedasync", *equal, "rounds=5")[1]
    assert re.findall(r"^(?:round|done) +(\d+/\d+)", out, re.MULTILINE) == ["0/5", "4/5", "5/5", "5/5"]
    assert "the models are of round 8" in out
    assert summary(only_run(folder))["rounds"] == 8
    out = fedpref("run", *TINY, "strategy=fedasync", *equal, "rounds=4", "name=even")[1]
    assert "the models are of round" not in out


def test_a_failed_run_leaves_a_report_that_says_why(fedpref: Run, folder: Path) -> None:
    code, out, err = fedpref("run", *TINY, "rounds=2", "limits.max_update_norm=1e-9")
    assert code == 5 and len(err.splitlines()) == 1
    assert f"report: {only_run(folder).relative_to(folder)}/report.html" in out
    assert "The run failed" in (only_run(folder) / "report.html").read_text()


def test_a_strategy_of_ones_own_is_found_in_the_working_folder_by_every_command(
    process: Run, folder: Path, people: Path
) -> None:
    assert process("new", "strategy", "mine")[0] == 0
    allow = ("--allow", "mine")
    words = ("data=jsonl", "data.path=people.jsonl", "name=t", "rounds=1", "strategy=mine")
    assert process("run", *allow, "--config-dir", "configs", *words)[0] == 0
    assert process("eval", str(only_run(folder)), "people.jsonl", *allow)[0] == 0
    assert (
        "strategy.server_lr"
        in process("config", "cat", "strategy/mine", *allow, "--config-dir", "configs")[1]
    )
    code, _, err = process("config", "ls", "strategy", "--config-dir", "nowhere")
    assert code == 2 and "nowhere is not a directory" in err
    code, _, err = process("new", "strategy", "json")
    assert code == 2 and "hide the installed module" in err and not (folder / "json.py").exists()


def test_a_run_on_feature_vectors_cannot_be_asked_about_texts(
    fedpref: Run, folder: Path, people: Path
) -> None:
    assert fedpref("run", *TINY, "rounds=1")[0] == 0
    code, _, err = fedpref("eval", str(only_run(folder)), "people.jsonl")
    assert code == 2 and "was trained on feature vectors (data.form=attributes)" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rnu"], "No such command 'rnu'. Did you mean 'run'? Try --help."),
        (["runs", "ls", "--fromat", "json"], "--format"),
        (["resume"], "Missing argument 'DIRECTORY'"),
        (["data", "inspect", "it's.jsonl"], "data.path=it's.jsonl: no such file"),
        (["data", "inspect", "--bogus"], "unknown option '--bogus'"),
    ],
)
def test_a_wrong_command_ends_with_code_2_and_one_line(
    process: Run, folder: Path, words: list[str], message: str
) -> None:
    code, _, err = process(*words)
    assert code == 2 and message in err
    assert err.startswith("fedpref: ") and len(err.splitlines()) == 1


def test_help_reads_well(process: Run) -> None:
    assert "  [required]" in process("resume", "--help")[1]
    assert "FILE [key=value ...]" in process("data", "inspect", "--help")[1]
