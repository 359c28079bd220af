"""``fedpref label``: trained models judge what nobody has judged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from fedpref.data.sources import PreferenceFile

Run = Callable[..., tuple[int, str, str]]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def run_dir(fedpref: Run, people: Path, folder: Path) -> Path:
    """A run of local models: p0 to p3 like the kind answer, p4 and p5 the curt one."""
    words = ("data=jsonl", "data.path=people.jsonl", "name=t", "rounds=8", "strategy=local_only")
    assert fedpref("run", *words)[0] == 0
    (path,) = (folder / "runs" / "t").iterdir()
    return path


@pytest.fixture
def unlabelled(folder: Path) -> Path:
    """The kind answer stands first in even rows."""
    rows = []
    for i, word in enumerate(["river", "stone", "garden", "window"]):
        kind, curt = f"Gladly, let me tell you about the {word} at length.", f"{word}. Enough."
        first, second = (kind, curt) if i % 2 == 0 else (curt, kind)
        rows.append({"prompt": f"What of the {word}?", "response_a": first, "response_b": second})
    path = folder / "unlabelled.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_four_kind_models_outvote_two_curt_ones(
    fedpref: Run, folder: Path, run_dir: Path, unlabelled: Path
) -> None:
    code, out, err = fedpref("label", str(run_dir), "unlabelled.jsonl", "-o", "labels.jsonl")
    assert (code, err) == (0, "")
    assert "4 pairs of unlabelled.jsonl, labelled by 6 models of round 8" in out
    assert "mean agreement 0.667   unanimous 0.000" in out
    rows = read(folder / "labels.jsonl")
    assert [row["prompt"] for row in rows] == [row["prompt"] for row in read(unlabelled)]
    for row in rows:
        assert row["chosen"].startswith("Gladly") and row["rejected"].endswith("Enough.")
        assert row["votes"] == 4 and row["agreement"] == pytest.approx(4 / 6)


def test_labels_are_rows_to_train_on(fedpref: Run, folder: Path, run_dir: Path, unlabelled: Path) -> None:
    fedpref("label", str(run_dir), "unlabelled.jsonl", "-o", "labels.jsonl")
    rows = PreferenceFile(path=str(folder / "labels.jsonl"), client_column=None).rows()
    assert len(rows) == 4 and dict(rows.formats) == {"explicit prompt, text": 4}


def test_the_margin_is_the_mean_of_all_models(
    fedpref: Run, folder: Path, run_dir: Path, unlabelled: Path
) -> None:
    for vote in ("majority", "mean"):
        fedpref("label", str(run_dir), "unlabelled.jsonl", "-o", f"{vote}.jsonl", "--vote", vote)
    by_majority, by_mean = read(folder / "majority.jsonl"), read(folder / "mean.jsonl")
    assert all(row["margin"] >= 0 for row in by_mean)
    assert [abs(row["margin"]) for row in by_majority] == [row["margin"] for row in by_mean]


def test_without_a_file_to_write_rows_go_to_stdout_and_figures_to_stderr(
    fedpref: Run, run_dir: Path, unlabelled: Path
) -> None:
    code, out, err = fedpref("label", str(run_dir), "unlabelled.jsonl", "--format", "json")
    assert code == 0
    assert len([json.loads(line) for line in out.splitlines()]) == 4
    figures = json.loads(err)
    assert figures["num_pairs"] == 4 and len(figures["models"]) == 6 and figures["out"] is None


def test_labels_of_labelled_rows_are_ignored(fedpref: Run, folder: Path, run_dir: Path, people: Path) -> None:
    labelled = read(people)[:12]
    swapped = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in labelled]
    for name, rows in (("one", labelled), ("other", swapped)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        assert fedpref("label", str(run_dir), f"{name}.jsonl", "-o", f"{name}.labels.jsonl")[0] == 0
    assert (folder / "one.labels.jsonl").read_bytes() == (folder / "other.labels.jsonl").read_bytes()


def test_a_single_order_shows_the_position_bias_that_both_orders_cancel(
    fedpref: Run, folder: Path, people: Path, unlabelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("data=jsonl", "data.path=people.jsonl", "name=s", "rounds=4", "client=selector")
    assert fedpref("run", *words)[0] == 0
    (run_dir,) = (folder / "runs" / "s").iterdir()
    from fedpref.clients.selector import Selector

    asked = Selector.both_orders
    monkeypatch.setattr(Selector, "both_orders", lambda *args: asked(*args) + 1000.0)
    chosen = {}
    for orders in ("both", "single"):
        out = f"{orders}.jsonl"
        assert fedpref("label", str(run_dir), "unlabelled.jsonl", "-o", out, "--orders", orders)[0] == 0
        chosen[orders] = [row["chosen"] for row in read(folder / out)]
    assert all(text.startswith("Gladly") for text in chosen["both"])
    assert chosen["single"] == [row["response_a"] for row in read(unlabelled)]


def test_what_cannot_be_labelled_is_refused_in_one_line(
    fedpref: Run, folder: Path, run_dir: Path, unlabelled: Path
) -> None:
    run = str(run_dir)
    (folder / "bad.jsonl").write_text('{"prompt": "p", "response_a": "x"}\n', encoding="utf-8")
    for code, words, message in (
        (2, (run, "absent.jsonl"), "no such file"),
        (2, (run, "bad.jsonl"), "no column 'response_b'"),
        (2, (run, "unlabelled.jsonl", "-o", "./unlabelled.jsonl"), "is the file to label"),
        (4, (run, "unlabelled.jsonl", "-o", "absent/labels.jsonl"), "absent/labels.jsonl"),
        (4, ("nowhere", "unlabelled.jsonl"), "is not a run directory"),
    ):
        done = fedpref("label", *words)
        assert done[0] == code, words
        assert message in done[2] and len(done[2].splitlines()) == 1
    assert len(read(unlabelled)) == 4


@pytest.mark.parametrize("word", ["--orders=all", "--vote=best", "--bad-rows=skip"])
def test_an_unknown_option_value_is_a_usage_error(word: str, run_dir: Path, unlabelled: Path) -> None:
    from fedpref.cli.app import app

    with pytest.raises(click.UsageError):
        app(["label", str(run_dir), "unlabelled.jsonl", word], standalone_mode=False)


def test_an_unfinished_run_labels_and_says_how_far_it_got(
    fedpref: Run, run_dir: Path, unlabelled: Path
) -> None:
    finished = json.loads(fedpref("label", str(run_dir), "unlabelled.jsonl", "--format", "json")[2])
    assert not any("unfinished" in note for note in finished["notes"])
    shutil.rmtree(max((run_dir / "checkpoints").iterdir()))
    figures = json.loads(fedpref("label", str(run_dir), "unlabelled.jsonl", "--format", "json")[2])
    assert figures["round"] == 5
    assert figures["notes"][-1] == "The run is unfinished: round 5 of 8."


def test_a_run_without_a_valid_checkpoint_and_one_on_vectors_cannot_label(
    fedpref: Run, folder: Path, run_dir: Path, unlabelled: Path
) -> None:
    for checkpoint in (run_dir / "checkpoints").iterdir():
        (checkpoint / "state.json").write_text("{}")
    code, _, err = fedpref("label", str(run_dir), "unlabelled.jsonl")
    assert code == 3 and "no valid checkpoint" in err
    fedpref("run", "data.preset=tiny", "data.form=attributes", "rounds=1", "name=vectors")
    (vectors,) = (folder / "runs" / "vectors").iterdir()
    code, _, err = fedpref("label", str(vectors), "unlabelled.jsonl")
    assert code == 2 and "was trained on feature vectors" in err
