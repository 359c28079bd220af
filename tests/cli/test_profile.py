"""``fedpref profile`` looks at the thread that runs, and refuses what is not one run."""

import json
import sys
import time
from pathlib import Path

import pytest

from fedpref.cli.profile import Sampler, profile_words
from fedpref.errors import ConfigurationError


def test_a_sampler_sees_what_its_thread_does_and_for_how_long() -> None:
    with Sampler(interval_s=0.001, modules=(__name__,)) as sampler:
        until = time.monotonic() + 0.2
        while time.monotonic() < until:
            json.dumps([*range(1000)], indent=1)  # in a library's Python functions, which are left out
    assert sampler.wall_s >= 0.2
    here = f"{__name__}:{sys._getframe().f_code.co_name}"
    assert sampler.samples and all(stack[0] == here for stack in sampler.samples)
    assert not any(frame.startswith("json.") for stack in sampler.samples for frame in stack[1:-1])


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_is_printed_and_nothing_runs(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert profile_words(["rounds=1", word]) == 0
    assert "fedpref profile experiment=demo" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["-m", "seed=0,1"], ["--dry-run"], ["--cfg", "job"]])
def test_what_is_not_one_run_is_refused(words: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="one run"):
        profile_words(words)


def test_a_profiled_run_is_a_run_with_a_table_and_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["data.preset=tiny", "data.form=attributes", "backbone=given", "rounds=30"]
    assert profile_words(words) == 0
    out = capsys.readouterr().out
    assert "ms a round" in out and "transport" in out
    assert (tmp_path / "profile.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "runs").is_dir()
