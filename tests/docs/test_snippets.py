"""Every block of the documents runs as written: a page from top to bottom in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from documents import LABELS, PAGES, ROOT, Block, blocks

DOCUMENTS = {path.name: path for path in (*PAGES, ROOT / "README.md")}
RUNNING = [name for name, path in DOCUMENTS.items() if blocks(path.read_text(encoding="utf-8"))]
NOT_RUN = {
    "index.md": 1,  # makes the environment in which the tests run
    "data.md": 1,  # fetches from the network
    "devices.md": 1,  # needs a cluster, or a GPU
    "benchmark.md": 1,  # takes up to forty minutes
}
"""Blocks that are shown only, by page."""


def blocks_of(name: str) -> list[Block]:
    return blocks(DOCUMENTS[name].read_text(encoding="utf-8"))


def test_there_are_blocks_to_run() -> None:
    labels = [block.label for name in RUNNING for block in blocks_of(name)]
    assert labels.count("sh") >= 20 and labels.count("python") >= 8 and labels.count("yaml") >= 3


@pytest.mark.parametrize("name", RUNNING)
def test_every_block_says_what_it_is(name: str) -> None:
    can_print = False
    for block in blocks_of(name):
        assert block.label in LABELS, f"{name}:{block.line}: label {block.label!r} is none of {LABELS}"
        if block.label == "yaml":
            assert block.file, f"{name}:{block.line}: which file is it? End the text before it with `NAME`:"
        if block.label == "text":
            assert block.file or can_print, f"{name}:{block.line}: output of nothing that ran"
        can_print = block.label in ("sh", "python", "text") and not block.file


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_is_not_run_says_so_and_why(name: str) -> None:
    shown = [block for block in blocks_of(name) if block.label == "sh-not-run"]
    assert len(shown) == NOT_RUN.get(name, 0)
    for block in shown:
        assert re.search(r"Not run by the tests: \w.{10,}", block.before), f"{name}:{block.line}: why not?"


@pytest.mark.parametrize("name", [path.name for path in PAGES])
def test_no_command_stands_outside_a_fence(name: str) -> None:
    """An indented block would be shown as code, and nobody would run it."""
    text = re.sub(
        r"^```.*?^```$", "", DOCUMENTS[name].read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    assert not re.findall(r"^(?: {4}|\t)(?![-*0-9]).*", text, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Offline, with the `fedpref` and `python` of the environment that runs the tests."""
    here = Path(sys.executable).parent
    assert (here / "fedpref").is_file(), f"no fedpref in {here}: install the checkout with pip install -e ."
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return kept | {
        "PATH": f"{here}{os.pathsep}{os.environ['PATH']}",
        "FEDPREF_CACHE": str(tmp_path_factory.mktemp("cache")),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNNING)
def test_a_page_runs_as_written(name: str, tmp_path: Path, environment: dict[str, str]) -> None:
    printed = ""
    for block in blocks_of(name):
        where = f"{name}:{block.line}"
        if block.file:
            path = tmp_path / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code, encoding="utf-8")
        elif block.label == "text":
            assert as_pattern(block.code).search(printed), f"{where}: this was printed:\n{printed}"
        elif block.label in ("sh", "python"):
            printed = run(block, tmp_path, environment, where)


def run(block: Block, folder: Path, environment: dict[str, str], where: str) -> str:
    """What the block printed."""
    if block.label == "sh":
        words = ["bash", "-euo", "pipefail", "-c", block.code]
    else:
        script = folder / f"line_{block.line}.py"
        script.write_text(block.code, encoding="utf-8")
        words = [sys.executable, script.name]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{where}\n{block.code}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def as_pattern(expected: str) -> re.Pattern[str]:
    """The text with anything, of any length, in place of each …; spaces at the ends of lines do not count."""
    lines = (re.escape(line.rstrip()).replace("…", "(?:.|\n)*?") for line in expected.splitlines())
    return re.compile(r"[ \t]*\n".join(lines))


@pytest.mark.parametrize(
    ("expected", "printed", "matches"),
    [
        ("a … c\n", "x\na b  c\n", True),
        ("a\n…\nd\n", "a\nb\nc\nd\n", True),
        ("a 0.6…,\n", "a 0.71,\n", False),
        ("a.c\n", "abc\n", False),
    ],
)
def test_dots_stand_for_anything_and_all_else_for_itself(expected: str, printed: str, matches: bool) -> None:
    assert bool(as_pattern(expected).search(printed)) == matches
