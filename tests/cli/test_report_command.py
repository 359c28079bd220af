"""``fedpref report`` on runs and suites made here."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpref.cli.bench import Asked, bench
from fedpref.cli.compare import compare_runs
from fedpref.cli.report import report
from fedpref.cli.run import run_words
from fedpref.cli.sweep import sweep_of
from fedpref.errors import ConfigurationError, StorageError
from fedpref.report.storage import sha256_of

TINY = ("data.preset=tiny", "data.form=attributes", "client.local_steps=3", "rounds=2", "checkpoint.every=2")
SUITE = """
title: A <small> suite
about: Of tiny people.
base: fedavg
words: [data.form=attributes, client.local_steps=3, checkpoint.every=2]
data:
  tiny: {words: [data=synthetic, data.preset=tiny]}
methods:
  fedavg: {words: [strategy=fedavg]}
  prox: {words: [strategy=fedprox]}
tiers:
  smoke: {seeds: [0], words: [rounds=2], cost: nothing}
  small: {seeds: [0, 1], words: [rounds=2], cost: little}
claims:
  - {claim: Nothing is for free., data: tiny, method: prox, than: fedavg, metric: user_accuracy, least: 0.9}
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a sweep over two strategies, two data sets and two seeds."""
    out: Path = tmp_path_factory.mktemp("swept")
    sweep = ("-m", "strategy=fedavg,local_only", "data.flips=0.1,0.3", "seed=0,1", "name=t")
    assert run_words([*sweep, *TINY, f"out={out}"]) == 0
    return out / "t"


@pytest.fixture
def swept(made: Path, folder: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(made, folder / "runs" / "t"))


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a suite of which first the small and then the smoke tier was run."""
    folder: Path = tmp_path_factory.mktemp("suite")
    file = folder / "mine.yaml"
    file.write_text(SUITE, encoding="utf-8")
    for tier in ("small", "smoke"):
        asked = Asked((str(file),), tier, jobs=1, out=folder / "bench")
        assert bench(asked) == 0
    return folder / "bench" / "mine"


def change(path: Path, file: str, **changes: Any) -> None:
    (path / file).write_text(json.dumps(json.loads((path / file).read_text()) | changes))


def means(table: dict[str, Any]) -> dict[str, float]:
    return {row["name"]: row["metrics"]["user_accuracy"]["mean"] for row in table["rows"]}


def test_a_sweep_has_a_table_a_data_set_with_the_rows_of_compare(swept: Path, fedpref: Run) -> None:
    found = sweep_of(swept)
    assert [table["data"] for table in found["tables"]] == ["data.flips=0.1", "data.flips=0.3"]
    for table in found["tables"]:
        assert [row["name"] for row in table["rows"]] == ["strategy=fedavg", "strategy=local_only"]
        flips = table["data"].partition("=")[2]
        configs = sorted(swept.glob("*/config.yaml"))
        of_data = [path.parent for path in configs if f"flips: {flips}" in path.read_text()]
        assert len(of_data) == 4
        told = compare_runs(of_data)
        assert means(told) == means(table)
    code, out, _ = fedpref("report", str(swept))
    assert code == 0 and Path(out.strip()) == swept / "report.html"
    page = (swept / "report.html").read_text(encoding="utf-8")
    assert "Rank over data sets" in page and "Only 2 seeds" in page
    # Each of the eight commands, to be pasted.
    assert page.count("fedpref run ") == 8 and not found["failures"]


def test_bars_of_a_group_are_means_of_users_json(swept: Path) -> None:
    found = sweep_of(swept)
    (entry,) = (entry for entry in found["groups"] if entry["data"] == "data.flips=0.1")
    paths = [
        swept / run["path"]
        for run in found["runs"]
        if (run["data"], run["method"]) == ("data.flips=0.1", "strategy=local_only")
    ]
    for group in entry["groups"]:
        by_seed = []
        for path in sorted(paths, key=lambda path: int(path.name.rpartition("s")[2])):
            users = json.loads((path / "users.json").read_text())
            own = [user["accuracy"] for user in users if user["group"] == group["group"]]
            by_seed += [np.mean(own)] if own else []
        row = next(row for row in group["rows"] if row["name"] == "strategy=local_only")
        assert row["by_seed"] == pytest.approx(by_seed)
        assert row["mean"] == pytest.approx(np.mean(by_seed))


def test_a_run_that_failed_takes_its_row_with_it_and_is_named(swept: Path) -> None:
    run = next(run for run in sweep_of(swept)["runs"] if run["method"] == "strategy=local_only")
    change(swept / run["path"], "status.json", state="failed", error="weights <b>burst</b>")
    found = sweep_of(swept)
    by_data = {table["data"]: list(means(table)) for table in found["tables"]}
    assert by_data[run["data"]] == ["strategy=fedavg"] and sum(map(len, by_data.values())) == 3
    expected = {key: run[key] for key in ("data", "method", "seed")} | {"error": "weights <b>burst</b>"}
    assert found["failures"] == [expected]
    page = report(swept).read_text(encoding="utf-8")
    assert "weights &lt;b&gt;burst&lt;/b&gt;" in page and "Without a rank" in page


def test_seeds_that_some_rows_lack_are_left_out_and_told(swept: Path) -> None:
    run = next(run for run in sweep_of(swept)["runs"] if run["seed"] == 1)
    shutil.rmtree(swept / run["path"])
    found = sweep_of(swept)
    seeds = {table["data"]: table["seeds"] for table in found["tables"]}
    assert seeds[run["data"]] == [0] and sorted(map(len, seeds.values())) == [1, 2]
    assert sum("seeds 1 are left out" in note for note in found["notes"]) == 1


def test_a_suite_keeps_an_outcome_a_tier_and_the_last_is_shown(suite: Path, fedpref: Run) -> None:
    smoke = json.loads((suite / "outcome-smoke.json").read_text())
    small = json.loads((suite / "outcome-small.json").read_text())
    assert smoke["ended"] >= small["ended"]
    change(suite, "outcome-small.json", ended="2001-01-01T00:00:00+00:00")
    change(suite, "outcome-smoke.json", ended="2002-01-01T00:00:00+00:00")
    last = report(suite).read_text(encoding="utf-8")
    assert "Tier smoke" in last and f"fedpref bench {suite.parents[1] / 'mine.yaml'} --tier smoke" in last
    other = report(suite, suite.parent / "small.html", "small").read_text(encoding="utf-8")
    assert "Tier small" in other and "A &lt;small&gt; suite" in other
    assert "Nothing is for free." in other and "✗ no" in other
    assert len(small["runs"]) == 4 and all(
        (suite / run["path"] / "users.json").is_file() for run in small["runs"]
    )
    assert re.findall(r"fedpref run .*strategy=(\w+).* seed=(\d)", other) == [
        ("fedavg", "0"),
        ("fedavg", "1"),
        ("fedprox", "0"),
        ("fedprox", "1"),
    ]
    with pytest.raises(ConfigurationError, match="--tier smal has not ended here"):
        report(suite, tier="smal")
    with pytest.raises(ConfigurationError, match="holds suites: mine; name one, such as"):
        report(suite.parent)


def test_trials_are_no_rows(suite: Path, tmp_path: Path) -> None:
    """A setting that was only tried saw no test pair."""
    runs = Path(shutil.copytree(suite / "tiny-prox", tmp_path / "tried"))
    assert [run["seed"] for run in sweep_of(runs)["runs"]] == [0, 1]
    first, second = sorted(path.parent for path in runs.glob("*/job.json"))
    change(first, "job.json", is_trial=True)
    left = sweep_of(runs)
    assert [run["path"] for run in left["runs"]] == [second.name]
    change(second, "job.json", is_trial=True)
    with pytest.raises(ConfigurationError, match="no setting of which all runs have finished"):
        report(runs)


def test_a_suite_that_has_not_ended_and_one_of_another_version_say_what_to_do(
    suite: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(suite, tmp_path / "mine", symlinks=True))
    change(copy, "outcome-smoke.json", format=0)
    with pytest.raises(StorageError, match="another version of fedpref; run fedpref bench again"):
        report(copy, tier="smoke")
    for file in copy.glob("outcome-*.json"):
        file.unlink()
    with pytest.raises(ConfigurationError, match="has not ended; go on with fedpref bench"):
        report(copy)


def test_the_page_of_a_run_is_written_anew_and_stays_signed(swept: Path, tmp_path: Path) -> None:
    run = next(path.parent for path in sorted(swept.glob("*/manifest.json")))
    before = (run / "report.html").read_bytes()
    (run / "report.html").write_text("spoilt")
    assert report(run) == run / "report.html"
    assert (run / "report.html").read_bytes() == before
    (run / "notes.json").write_text('["Another note."]\n')
    copy = report(run, tmp_path / "page.html")
    assert "Another note." in copy.read_text(encoding="utf-8")
    signed = json.loads((run / "manifest.json").read_text())["sha256"]
    assert signed["report.html"] == sha256_of(run / "report.html") == sha256_of(copy)
    assert signed["notes.json"] != sha256_of(run / "notes.json")  # what else was changed stays visible


def test_the_page_goes_into_a_folder_that_is_named(
    swept: Path, suite: Path, folder: Path, fedpref: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = next(path.parent for path in sorted(swept.glob("*/manifest.json")))
    for of in (run, swept, suite):
        (into := folder / f"pages-of-{of.name}").mkdir()
        code, out, _ = fedpref("report", str(of), "-o", str(into))
        assert code == 0 and Path(out.strip()) == into / "report.html"
        page = (into / "report.html").read_bytes()
        assert b"</html>" in page
        monkeypatch.chdir(into)
        (into / "report.html").unlink()
        assert fedpref("report", str(of), "-o", ".")[0] == 0
        assert (into / "report.html").read_bytes() == page
        assert [path.name for path in into.iterdir()] == ["report.html"]


def test_what_cannot_be_shown_is_an_error_with_a_clear_line(folder: Path, swept: Path) -> None:
    with pytest.raises(StorageError, match="not a run directory, and there is none right below it"):
        report(folder)
    with pytest.raises(ConfigurationError, match="--tier small is for the folder of a suite"):
        report(swept, tier="small")
    with pytest.raises(StorageError, match="there is no folder"):
        report(swept, folder / "nowhere" / "page.html")
