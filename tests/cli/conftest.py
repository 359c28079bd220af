"""Run commands as a user would, in a folder of their own."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fedpref.cli.app import app

TINY = ("data.preset=tiny", "data.form=attributes", "client.local_steps=3", "name=t")


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def fedpref(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command line in this process: quick, but without the exit of a real one."""
    from fedpref.errors import FedprefError

    def run(*words: str) -> Done:
        import click

        capsys.readouterr()
        code = 0
        try:
            result = app(list(words), standalone_mode=False)
            code = result if isinstance(result, int) else 0
        except click.exceptions.Exit as error:
            code = error.exit_code
        except FedprefError as error:
            print(f"fedpref: {error}", file=sys.stderr)
            code = error.exit_code
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture
def process(folder: Path) -> Callable[..., Done]:
    """The command line as a process of its own."""

    def run(*words: str, env: Mapping[str, str] | None = None) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "fedpref", *words],
            cwd=folder,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture
def people(folder: Path) -> Path:
    """Twelve rows of each of six people: half like the kind answer, half the curt one."""
    words = "river stone garden window paper silver morning engine copper violin harbour meadow".split()
    rows = []
    for person in range(6):
        for i, word in enumerate(words):
            kind, curt = f"Gladly, let me tell you about the {word} at length.", f"{word}. Enough."
            likes_kind = person < 4
            rows.append(
                {
                    "prompt": f"What of the {word}?",
                    "chosen": kind if likes_kind else curt,
                    "rejected": curt if likes_kind else kind,
                    "annotator": f"p{person}",
                    "domain": "nature" if i % 2 else "craft",
                    "split": "test" if i % 4 == 0 else "train",
                    "source_id": word,
                }
            )
    return write_rows(folder / "people.jsonl", rows)
