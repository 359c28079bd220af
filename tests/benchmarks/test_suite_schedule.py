"""What is finished is not made again, what was interrupted goes on, no number outlives its origin."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fedpref.benchmarks.suite import job as job_module
from fedpref.benchmarks.suite.job import Job, describe, finish
from fedpref.benchmarks.suite.schedule import found_in, make
from fedpref.errors import ConfigurationError
from fedpref.report.storage import read_json, write_json

WORDS = (
    *("data=synthetic", "data.preset=tiny", "data.form=attributes", "rounds=3", "evaluation.every=1"),
    *("checkpoint.every=1", "client=linear_reward", "strategy=fedavg", "seed=0"),
)
JOB = Job("mine", "tiny", "fedavg", (), 0, False, WORDS)


def counted(made: list[str]):  # type: ignore[no-untyped-def]
    return lambda job, path, done, total: made.append(f"{job.method} {done}/{total}")


def key_of(job: Job) -> str:
    return str(describe(job)[0]["key"])


def test_a_run_is_made_once_and_leaves_a_run_directory(tmp_path: Path) -> None:
    made: list[str] = []
    first = make([JOB, replace(JOB, method="again")], tmp_path, 1, counted(made))
    second = make([JOB], tmp_path, 1, counted(made))
    assert first[0] == first[1] == second[0] and len(made) == 1
    assert read_json(first[0] / "status.json")["state"] == "finished"
    assert read_json(first[0] / "job.json")["words"] == list(WORDS)
    assert read_json(first[0] / "manifest.json")["command"][:2] == ["fedpref", "run"]


def test_an_interrupted_run_goes_on_and_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = finish(JOB, tmp_path / "whole")
    broken = finish(replace(JOB, words=(*WORDS, "rounds=2")), tmp_path / "broken")
    # A run that was killed after its second round: its configuration and key are those of the whole one.
    description, text = describe(JOB)
    write_json(broken / "job.json", description)
    (broken / "config.yaml").write_text(text)
    write_json(broken / "status.json", read_json(broken / "status.json") | {"state": "interrupted"})
    (path,) = make([JOB], tmp_path / "broken", 1, counted([]))
    assert path == broken
    rounds = [json.loads(line)["round"] for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert rounds == [0, 1, 2, 3]
    summaries = [read_json(each / "summary.json")["weights_sha256"] for each in (whole, path)]
    assert summaries[0] == summaries[1]


def test_a_run_without_a_checkpoint_begins_anew(tmp_path: Path) -> None:
    path = finish(JOB, tmp_path)
    for checkpoint in (path / "checkpoints").rglob("*"):
        if checkpoint.is_file():
            checkpoint.unlink()
    write_json(path / "status.json", read_json(path / "status.json") | {"state": "interrupted"})
    (again,) = make([JOB], tmp_path, 1, counted([]))
    assert again != path and found_in(tmp_path)[key_of(JOB)].path == again


def test_configuration_and_source_are_the_identity_and_the_folder_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = key_of(JOB)
    assert key == key_of(replace(JOB, words=(*WORDS, "out=elsewhere", "name=other")))
    assert key != key_of(replace(JOB, words=(*WORDS, "seed=1")))
    assert key != key_of(replace(JOB, is_trial=True))
    for name, changed in (
        ("source_sha256", lambda: "changed"),
        ("versions", lambda: {"python": "4.0"}),
        ("inputs_sha256", lambda config: {"data.path": "changed"}),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(job_module, name, changed)
            assert key != key_of(JOB), name
    assert key == key_of(JOB)


def test_a_run_that_fails_is_a_result_and_one_that_cannot_begin_is_an_error(tmp_path: Path) -> None:
    spoilt = replace(JOB, words=(*WORDS, "client.lr=1e300", "client.local_steps=3"))
    path = finish(spoilt, tmp_path)
    status = read_json(path / "status.json")
    assert status["state"] == "failed" and status["error"]
    assert make([spoilt], tmp_path, 1, counted([])) == [path]
    with pytest.raises(ConfigurationError, match="clientt"):
        make([replace(JOB, words=(*WORDS, "clientt.lr=1"))], tmp_path, 1, counted([]))


@pytest.mark.slow
def test_several_processes_make_what_one_does(tmp_path: Path) -> None:
    jobs = [replace(JOB, words=(*WORDS[:-1], f"seed={seed}"), seed=seed) for seed in range(3)]
    made: list[str] = []
    together, alone = (
        make(jobs, tmp_path / "two", 2, counted(made)),
        make(jobs, tmp_path / "one", 1, counted([])),
    )
    assert len(made) == 3
    for mine, other in zip(together, alone, strict=True):
        both = [read_json(path / "summary.json")["weights_sha256"] for path in (mine, other)]
        assert both[0] == both[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray leaves pipes open
def test_a_ray_cluster_makes_what_this_machine_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    from ray.cluster_utils import Cluster

    node = {"node_ip_address": "127.0.0.1", "num_cpus": 2, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        (there,) = make([JOB], tmp_path / "ray", 1, counted([]), cluster.address)
    finally:
        cluster.shutdown()
    (here,) = make([JOB], tmp_path / "here", 1, counted([]))
    both = [read_json(path / "summary.json")["weights_sha256"] for path in (there, here)]
    assert both[0] == both[1]
