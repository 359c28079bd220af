"""What a figure is known by besides words: every file that its run reads, by content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

import fedpref
from fedpref.cli.identity import inputs_sha256, source_sha256


def of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def written(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_every_file_that_a_value_names_is_known_by_its_content_at_any_depth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    traces = [str(written(tmp_path / "a", "one")), str(written(tmp_path / "b", "two"))]
    config = {
        "data": {"_target_": "fedpref.data.sources.Jsonl", "path": "~/a", "limit": 3},
        "fleet": {"inner": {"traces": traces, "windows": "nowhere"}},
    }
    assert inputs_sha256(config) == {
        "data.path": of("one"),
        "fleet.inner.traces[0]": of("one"),
        "fleet.inner.traces[1]": of("two"),
    }


def test_a_file_written_anew_under_its_name_is_another(tmp_path: Path) -> None:
    path = written(tmp_path / "rows", "one")
    assert inputs_sha256({"path": str(path)}) == {"path": of("one")}
    time_ns = path.stat().st_mtime_ns
    os.replace(written(tmp_path / "new", "two"), path)
    os.utime(path, ns=(time_ns, time_ns))  # even at the very same moment
    assert inputs_sha256({"path": str(path)}) == {"path": of("two")}


@pytest.mark.parametrize("text", ["", "\0", "x" * 5000, "~nobody-of-this-name/x", "/dev/null/x"])
def test_text_that_can_be_no_path_names_nothing(text: str) -> None:
    assert inputs_sha256({"backbone": {"model": text, "prompt": text}}) == {}


def test_no_value_but_digests_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "hush")
    assert "hush" not in str(inputs_sha256({"data": {"path": str(path)}}))


@pytest.mark.parametrize("name", ["model", "adapter_path", "windows_path", "word_dir"])
def test_a_folder_is_known_by_the_names_and_contents_below_it(tmp_path: Path, name: str) -> None:
    config = {"backbone": {name: str(tmp_path)}}
    seen = []

    def note() -> None:
        seen.append(inputs_sha256(config)[f"backbone.{name}"])

    first = written(tmp_path / "b" / "weights", "one")
    note()
    written(tmp_path / "a", "two")
    note()
    first.rename(tmp_path / "b" / "others")
    note()
    written(tmp_path / "b" / "others", "three")
    note()
    assert len(set(seen)) == 4
    (tmp_path / "b" / "above").symlink_to(tmp_path)  # a circle of links ends
    written(tmp_path / ".git" / "index")
    note()
    assert seen[-1] == seen[-2]


def test_the_order_in_which_files_were_made_changes_nothing(tmp_path: Path) -> None:
    for folder, names in (("one", "abc"), ("two", "cab")):
        for name in names:
            written(tmp_path / folder / name / name, name)
    found = [inputs_sha256({"model": str(tmp_path / folder)})["model"] for folder in ("one", "two")]
    assert found[0] == found[1]


def test_folders_that_no_result_is_read_from_are_left_out(tmp_path: Path) -> None:
    written(tmp_path / "x")
    assert inputs_sha256({"data": {"cache_dir": str(tmp_path), "preset": str(tmp_path)}}) == {}


def test_a_plug_in_is_known_by_all_modules_of_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    written(tmp_path / "plugged" / "__init__.py", "")
    written(tmp_path / "plugged" / "strategies" / "mine.py", "class Mine: ...")
    config = {"strategy": {"inner": {"_target_": "plugged.strategies.mine.Mine"}}}
    (before,) = inputs_sha256(config).items()
    assert before[0] == "plugged"
    written(tmp_path / "plugged" / "notes.txt")
    assert inputs_sha256(config) == dict([before])
    written(tmp_path / "plugged" / "other" / "helper.py", "STEP = 2")
    assert inputs_sha256(config)["plugged"] != before[1]


def test_a_plug_in_of_one_file_is_known_by_the_modules_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    written(tmp_path / "single_file.py", "class Mine: ...")
    config = {"strategy": {"_target_": "single_file.Mine"}, "client": {"_target_": "single_file.Other"}}
    before = inputs_sha256(config)
    assert list(before) == ["single_file"]
    written(tmp_path / "runs" / "kept.py")
    assert inputs_sha256(config) == before
    written(tmp_path / "helper.py", "STEP = 2")
    assert inputs_sha256(config) != before


def test_fedprefs_and_flowers_own_classes_are_no_plug_ins() -> None:
    strategy = {"_target_": "flwr.serverapp.strategy.FedAdam"}
    assert inputs_sha256({"strategy": strategy, "split": {"_target_": "fedpref.data.split.PairSplit"}}) == {}


@pytest.mark.parametrize(
    ("file", "has_influence"),
    [
        ("types.py", True),
        ("strategies/fedavg.py", True),
        ("evaluation/evaluate.py", True),
        ("data/synthetic/phrases.json", True),
        ("cli/choice.py", True),
        ("cli/compose.py", True),
        ("cli/identity.py", False),
        ("cli/templates/build.py.j2", False),
        ("report/html.py", False),
        ("benchmarks/suite/job.py", False),
        ("configs/config.yaml", False),  # what it says is in the configuration
    ],
)
def test_the_source_is_all_that_can_change_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, has_influence: bool
) -> None:
    monkeypatch.setattr(fedpref, "__file__", str(written(tmp_path / "fedpref" / "__init__.py")))
    before = source_sha256.__wrapped__()
    written(tmp_path / "fedpref" / file, "changed")
    assert (source_sha256.__wrapped__() != before) is has_influence


def test_plug_in_folders_that_are_links_belong_to_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fedpref, "__file__", str(written(tmp_path / "fedpref" / "__init__.py")))
    real = written(tmp_path / "strategies" / "fedavg.py", "one")
    (tmp_path / "fedpref" / "strategies").symlink_to(real.parent)
    before = source_sha256.__wrapped__()
    written(real, "two")
    assert source_sha256.__wrapped__() != before
