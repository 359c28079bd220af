"""``fedpref compare`` on runs made here."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpref.cli.compare import compare_runs
from fedpref.cli.run import run_words

TINY = ("data.preset=tiny", "data.form=attributes", "client.local_steps=3", "rounds=2", "checkpoint.every=2")
MADE = {
    "base": (),
    "local": ("strategy=local_only",),
    "pooled": ("partition=pooled",),
    "fewer": ("data.test_pairs=7",),
}
Run = Callable[..., tuple[int, str, str]]
Runs = Callable[..., list[Path]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of runs for each entry of ``MADE``; seed 1 too of the first two."""
    out: Path = tmp_path_factory.mktemp("made")
    for folder, words in MADE.items():
        for seed in (0, 1) if folder in ("base", "local") else (0,):
            assert run_words([*TINY, *words, "name=t", f"out={out / folder}", f"seed={seed}"]) == 0
    return out


@pytest.fixture
def runs(made: Path, folder: Path) -> Runs:
    """Puts copies of runs below ``runs/t`` and returns their directories, by seed."""

    def make(of: str = "base", seeds: tuple[int, ...] = (0,), to: str = "t") -> list[Path]:
        copies = []
        for seed in seeds:
            (path,) = (made / of / "t").glob(f"*-s{seed}")
            copies.append(Path("runs") / to / f"{of}-s{seed}")
            shutil.copytree(path, copies[-1])
        return copies

    return make


def metrics(comparison: dict[str, Any], row: int) -> dict[str, Any]:
    of_row: dict[str, Any] = comparison["rows"][row]["metrics"]
    return of_row


def as_of(path: Path, file: str, **changes: Any) -> None:
    """Change entries of a JSON file."""
    (path / file).write_text(json.dumps(json.loads((path / file).read_text()) | changes))


def test_runs_that_differ_in_their_seed_share_a_row_named_by_what_differs(runs: Runs, fedpref: Run) -> None:
    base, local = runs("base", (0, 1)), runs("local", (0, 1))
    found = compare_runs([*base, *local])
    assert [row["name"] for row in found["rows"]] == ["defaults", "strategy=local_only"]
    assert [row["runs"] for row in found["rows"]] == [list(map(str, base)), list(map(str, local))]
    assert (found["base"], found["seeds"], found["num_people"]) == ("defaults", [0, 1], 16)
    assert any("Only 2 seeds" in note for note in found["notes"])
    summaries = [[json.loads((path / "summary.json").read_text()) for path in row] for row in (base, local)]
    for metric in ("user_accuracy", "pair_accuracy", "worst_decile", "worst_group", "bytes_up", "virtual_s"):
        values = [[summary[metric] for summary in row] for row in summaries]
        for place in (0, 1):
            assert metrics(found, place)[metric]["by_seed"] == pytest.approx(values[place])
        told = metrics(found, 1)[metric]["difference"]
        assert told["mean"] == pytest.approx(np.mean(values[1]) - np.mean(values[0]), abs=1e-12)
        assert told["low"] <= told["mean"] <= told["high"]
    code, out, _ = fedpref("compare", str(base[0].parent), "--format", "json")
    assert code == 0
    again = json.loads(out)  # found by the folder, by their names
    assert again["rows"] == json.loads(json.dumps(found["rows"]))


def test_a_folder_with_runs_further_below_names_where_they_are(runs: Runs, fedpref: Run) -> None:
    for number in range(6):
        runs(to=f"t{number}")
    Path("runs/latest").symlink_to("t0/base-s0")
    code, _, err = fedpref("compare", "runs")
    assert code == 4
    told = "; there are some in runs/t0, runs/t1, runs/t2, runs/t3, runs/t4 and 1 more"
    assert err.rstrip().endswith("runs is not a run directory, and there is none right below it" + told)
    code, _, err = fedpref("compare", ".")  # as bench/ lies above its suites
    assert code == 4 and told in err
    (Path("runs") / "empty").mkdir()
    code, _, err = fedpref("compare", "runs/empty")
    assert code == 4 and err.rstrip().endswith("there is none right below it")


def test_the_order_in_which_seeds_are_named_changes_nothing(runs: Runs) -> None:
    base, other = runs("base", (0, 1)), runs("local", (0, 1))
    assert compare_runs([*base, *other]) == compare_runs([base[1], other[1], base[0], other[0]])


def test_a_run_beside_itself_differs_by_nothing(runs: Runs, fedpref: Run) -> None:
    (path,) = runs()
    found = compare_runs([path, path])
    assert [row["name"] for row in found["rows"]] == ["t", "t (2)"]
    for cell in metrics(found, 1).values():
        difference = cell["difference"]
        assert (difference["mean"], difference["low"], difference["high"]) == (0, 0, 0)
        assert not cell["is_best"]
    _, out, _ = fedpref("compare", str(path), str(path), "--format", "md")
    assert "**" not in out and "0.000 [0.000, 0.000]" in out


def test_a_pooled_population_is_asked_the_same_and_another_one_is_not(runs: Runs, fedpref: Run) -> None:
    (natural,) = runs()
    (pooled,) = runs("pooled")
    assert [row["name"] for row in compare_runs([natural, pooled])["rows"]] == [
        "defaults",
        "partition=pooled",
    ]
    (other,) = runs("fewer")
    code, out, err = fedpref("compare", str(natural), str(other))
    assert (code, out) == (2, "")
    assert re.search(r"'defaults' and 'data.test_pairs=7' were not asked the same in seed 0: .* judged", err)


def test_equal_numbers_of_other_pairs_are_refused(runs: Runs, fedpref: Run) -> None:
    (path,) = runs()
    shutil.copytree(path, copy := path.parent / "copy")
    as_of(copy, "summary.json", held_out_sha256="0" * 64)
    code, _, err = fedpref("compare", str(path), str(copy))
    assert code == 2 and "the same people, but other pairs or other preferences" in err


def test_names_tell_rows_apart_where_all_differ(runs: Runs) -> None:
    (one,), (other,) = runs(to="before"), runs("local", to="after")
    for path in (one, other):
        as_of(path, "manifest.json", name=path.parent.name)
    assert [row["name"] for row in compare_runs([one, other])["rows"]] == ["before", "after"]


def test_rows_with_other_seeds_are_refused(runs: Runs, fedpref: Run) -> None:
    both, (one,) = runs("base", (0, 1)), runs("local")
    code, _, err = fedpref("compare", *map(str, both), str(one))
    assert code == 2
    assert "'defaults' has seeds 0, 1, but 'strategy=local_only' has seed 0" in err


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ({"state": "failed", "error": "no client answered"}, "it is failed; .* it says: no client answered"),
        ({"state": "interrupted"}, "it is interrupted; .* fedpref resume"),
        ({"state": "running"}, "it is killed; .* fedpref resume"),  # no process holds its lock
    ],
)
def test_a_run_that_has_not_finished_is_refused_by_name(
    runs: Runs, fedpref: Run, status: dict[str, str], message: str
) -> None:
    (path,) = runs()
    shutil.copytree(path, copy := path.parent / "cut")
    as_of(copy, "status.json", **status)
    code, out, err = fedpref("compare", str(path.parent))
    assert (code, out) == (2, "")
    assert re.search(rf"{copy} has not finished, {message}", err)


def test_a_finished_run_without_its_result_is_refused_by_name(runs: Runs, fedpref: Run) -> None:
    (path,) = runs()
    (path / "users.json").unlink()
    code, _, err = fedpref("compare", str(path))
    assert code == 2 and f"{path} has no result" in err


def test_what_is_no_run_is_named(fedpref: Run, folder: Path) -> None:
    (folder / "empty").mkdir()
    code, _, err = fedpref("compare", "empty")
    assert code == 4 and "empty is not a run directory" in err


def test_a_damaged_configuration_is_named(runs: Runs, fedpref: Run) -> None:
    (path,) = runs()
    for text in ("a: [", "- 1"):
        (path / "config.yaml").write_text(text)
        code, _, err = fedpref("compare", str(path))
        assert code == 4 and "config.yaml is damaged" in err and len(err.splitlines()) == 1


def test_runs_of_other_code_are_noted(runs: Runs) -> None:
    (path,) = runs()
    shutil.copytree(path, copy := path.parent / "copy")
    versions = json.loads((path / "manifest.json").read_text())["versions"]
    as_of(copy, "manifest.json", versions=versions | {"numpy": "1.0"}, source={"commit": "abc"})
    (note,) = [note for note in compare_runs([path, copy])["notes"] if "code" in note]
    assert "what differs: numpy, the source of fedpref" in note
    assert not any("code" in note for note in compare_runs([path, path])["notes"])


def test_metrics_can_be_chosen_and_a_wrong_one_names_the_nearest(runs: Runs, fedpref: Run) -> None:
    (path,) = runs()
    _, out, _ = fedpref("compare", str(path), "--metric", "loss", "--metric", "worst_decile", "--by", "seed")
    assert re.split(r" {2,}", out.splitlines()[0].strip())[:2] == ["loss", "worst decile"]
    assert out.splitlines()[2].startswith("  seed 0")
    code, _, err = fedpref("compare", str(path), "--metric", "worst_decil")
    assert code == 2 and "Did you mean 'worst_decile'" in err


def test_a_metric_that_is_known_but_in_none_of_the_runs_is_refused(runs: Runs, fedpref: Run) -> None:
    (path,) = runs()
    users = json.loads((path / "users.json").read_text())
    known = [{key: value for key, value in user.items() if key != "group"} for user in users]
    (path / "users.json").write_text(json.dumps(known))
    assert "worst_group" not in metrics(compare_runs([path]), 0)
    code, _, err = fedpref("compare", str(path), "--metric", "worst_group")
    assert code == 2 and "--metric worst_group: not all runs of any row have it" in err


def test_overrides_are_escaped(runs: Runs, fedpref: Run) -> None:
    (one,), (other,) = runs(), runs("local")
    for format_, name in (("tex", r"strategy=local\_only & "), ("md", r"| strategy=local\_only |")):
        _, out, _ = fedpref("compare", str(one), str(other), "--format", format_)
        assert name in out
