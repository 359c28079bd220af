from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from fedpref.errors import ConfigurationError, StorageError
from fedpref.report import RunDirectory, list_runs, read_run
from fedpref.report.storage import sha256_of

CreateRun = Callable[..., RunDirectory]

HOLD = """
import sys, time
from pathlib import Path
from fedpref.report import RunDirectory
try:
    run = RunDirectory.reopen(Path(sys.argv[1]))
except OSError as error:
    print(error)
else:
    print("mine", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def start_writer(path: Path, seconds: float = 60.0) -> subprocess.Popen[str]:
    code = textwrap.dedent(HOLD)
    command = [sys.executable, "-c", code, str(path), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "/abs",
        "a/b",
        "a\\b",
        "a\0b",
        ".hidden",
        "-x",
        "a b",
        "ok\n",
        "é",
        "x" * 65,
        "latest",
    ],
)
def test_a_bad_name_is_refused_and_nothing_is_created(
    create_run: CreateRun, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ConfigurationError, match="name="):
        create_run(tmp_path / "runs", name)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a", "A.b_c-1", "a..b", "x" * 64])
def test_a_plain_name_is_allowed(create_run: CreateRun, tmp_path: Path, name: str) -> None:
    with create_run(tmp_path, name) as run:
        assert run.path.parent == tmp_path / name


def test_a_name_that_is_a_link_to_elsewhere_is_refused(create_run: CreateRun, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "demo").symlink_to(elsewhere)
    with pytest.raises(ConfigurationError, match="leads out of"):
        create_run(out, "demo")
    assert os.listdir(elsewhere) == []


def test_the_directory_is_named_by_time_configuration_and_seed(create_run: CreateRun, tmp_path: Path) -> None:
    with create_run(tmp_path, "demo") as run:
        assert run.path.relative_to(tmp_path) == Path("demo/20261121T101500-3f9a1c2e-s0")
        assert run.path.stat().st_mode & 0o777 == 0o700


def test_two_runs_of_one_second_get_two_directories(create_run: CreateRun, tmp_path: Path) -> None:
    with create_run(tmp_path) as first, create_run(tmp_path) as second, create_run(tmp_path) as third:
        names = [run.path.name for run in (first, second, third)]
    stem = "20261121T101500-3f9a1c2e-s0"
    assert names == [stem, f"{stem}-2", f"{stem}-3"]


def test_latest_points_at_the_last_run_and_moves_with_the_folder(
    create_run: CreateRun, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    with create_run(out, "a"), create_run(out, "b") as last:
        name = last.path.name
    out.rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "latest").resolve() == tmp_path / "moved" / "b" / name


def test_a_folder_in_the_way_of_the_link_costs_only_the_link(
    create_run: CreateRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "latest").mkdir()
    with create_run(tmp_path) as run:
        assert run.path.is_dir()
    assert "no link" in caplog.text
    assert sorted(os.listdir(tmp_path)) == ["latest", "llmfao_fedavg"]


def test_an_unwritable_output_is_a_storage_error(create_run: CreateRun, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(StorageError, match="runs"):
        create_run(tmp_path / "runs")


def test_a_second_writer_is_told_who_the_first_is(create_run: CreateRun, tmp_path: Path) -> None:
    with (
        create_run(tmp_path) as run,
        pytest.raises(StorageError, match=rf"is in use by pid {os.getpid()} on \S+ since 20"),
    ):
        RunDirectory.reopen(run.path)


def test_closing_lets_the_next_writer_in(create_run: CreateRun, tmp_path: Path) -> None:
    with create_run(tmp_path) as run:
        run.events.append({"kind": "first"})
    with RunDirectory.reopen(run.path) as again:
        again.events.append({"kind": "second"})
    assert [event["kind"] for event in read_run(run.path).events] == ["first", "second"]


@pytest.mark.slow
def test_of_ten_writers_that_start_together_one_wins(create_run: CreateRun, tmp_path: Path) -> None:
    with create_run(tmp_path) as run:
        pass
    writers = [start_writer(run.path) for _ in range(10)]
    said = []
    for writer in writers:
        assert writer.stdout is not None
        said.append(writer.stdout.readline().strip())
    for writer in writers:
        writer.kill()
        writer.communicate()
    assert said.count("mine") == 1
    assert all(re.search("is in use by (pid|another)", line) for line in said if line != "mine")


def test_the_lock_of_a_killed_process_is_taken_over_and_logged(create_run: CreateRun, tmp_path: Path) -> None:
    with create_run(tmp_path) as run:
        pass
    writer = start_writer(run.path)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "mine\n"
    with pytest.raises(StorageError, match=f"pid {writer.pid}"):
        RunDirectory.reopen(run.path)
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    with RunDirectory.reopen(run.path) as again:
        # The word of it outlives the step back to a checkpoint.
        again.truncate_to({"metrics": 0, "clients": 0, "events": 0})
    assert [event["kind"] for event in read_run(run.path).events] == ["lock"]


def test_a_run_whose_process_died_is_called_killed(create_run: CreateRun, tmp_path: Path) -> None:
    with create_run(tmp_path) as run:
        assert read_run(run.path).status["state"] == "running"
    assert read_run(run.path).status["state"] == "killed"
    with RunDirectory.reopen(run.path) as again:
        again.set_status("failed", round_number=3, exit_code=5, error="nobody online")
    status = read_run(run.path).status
    assert (status["state"], status["round"], status["exit_code"]) == ("failed", 3, 5)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    for read in (read_run, RunDirectory.reopen):
        with pytest.raises(StorageError, match="is not a run directory"):
            read(tmp_path)
    assert os.listdir(tmp_path) == []


def test_logs_go_back_together_to_a_checkpoint(create_run: CreateRun, tmp_path: Path) -> None:
    with create_run(tmp_path) as run:
        run.metrics.append({"round": 1})
        offsets = run.offsets()
        run.metrics.append({"round": 2})
        run.events.append({"round": 2})
    with RunDirectory.reopen(run.path) as again:
        again.truncate_to(offsets)
    found = read_run(run.path)
    assert [record["round"] for record in found.metrics] == [1]
    assert found.events == []


def test_the_manifest_says_what_ran_and_signs_every_artefact(create_run: CreateRun, tmp_path: Path) -> None:
    with create_run(tmp_path) as run:
        run.metrics.append({"round": 1})
        (run.path / "adapters" / "global").mkdir(parents=True)
        (run.path / "adapters" / "global" / "adapter_config.json").write_text("{}")
        run.write_result({"pair_accuracy": 0.7}, [{"name": "a", "accuracy": 0.7}])
        run.sign()
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["seed"] == 0
    assert manifest["command"][:2] == ["fedpref", "run"]
    assert {"python", "numpy", "flwr"} <= set(manifest["versions"])
    assert set(manifest["sha256"]) == {
        "adapters/global/adapter_config.json",
        "clients.jsonl",
        "config.yaml",
        "events.jsonl",
        "metrics.jsonl",
        "overrides.yaml",
        "summary.json",
        "users.json",
    }
    for name, digest in manifest["sha256"].items():
        assert sha256_of(run.path / name) == digest


def test_runs_are_listed_from_the_oldest_and_the_link_counts_once(
    create_run: CreateRun, tmp_path: Path
) -> None:
    first, second = datetime(2026, 1, 1), datetime(2026, 2, 1)
    with create_run(tmp_path, "late", second), create_run(tmp_path, "early", first) as run:
        checkpoint = run.path / "checkpoints"
        checkpoint.mkdir()
        (checkpoint / "manifest.json").write_text("{}")
    assert [row.as_row()["run"].split("/")[0] for row in list_runs(tmp_path)] == ["early", "late"]
    assert list_runs(tmp_path / "absent") == []


def test_an_unfinished_run_is_listed_with_its_last_evaluation(create_run: CreateRun, tmp_path: Path) -> None:
    with create_run(tmp_path) as run:
        run.metrics.append({"round": 1, "evaluation": {"pair_accuracy": 0.6}})
        run.metrics.append({"round": 2})
        assert read_run(run.path).as_row()["pair_accuracy"] == 0.6
        run.write_result({"pair_accuracy": 0.7}, [])
        assert read_run(run.path).as_row()["pair_accuracy"] == 0.7
