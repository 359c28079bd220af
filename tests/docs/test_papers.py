"""The paper index lists what the tree has, and cites what the files cite."""

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from documents import ROOT

from fedpref.cli.compose import options_of

PAGE = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
METHODS = {"strategies": {"plan", "fold", "serve"}, "clients": {"answer", "margins"}}
"""What a class has that is a strategy or a client rule."""


class Row(NamedTuple):
    """A method of the index."""

    method: str
    paper: str
    files: tuple[str, ...]
    differs: str

    @property
    def papers(self) -> set[str]:
        return set(re.findall(r"arXiv:(\d{4}\.\d{4,5})", self.paper))


def rows() -> list[Row]:
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.splitlines()
        if line.startswith("| ")
    ]
    return [
        Row(method, paper, tuple(re.findall(r"`([^`]+\.py)`", file)), differs)
        for method, paper, file, differs in cells
        if file != "file"
    ]


def defines(path: Path, methods: set[str]) -> bool:
    classes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
    return any(
        methods <= {part.name for part in one.body if isinstance(part, ast.FunctionDef)} for one in classes
    )


@pytest.mark.parametrize("folder", METHODS)
def test_every_file_that_defines_a_method_is_listed(folder: str) -> None:
    defining = {
        f"{folder}/{path.name}" for path in (ROOT / folder).glob("*.py") if defines(path, METHODS[folder])
    }
    assert len(defining) >= 10
    assert defining <= {file for row in rows() for file in row.files}


def test_every_combine_that_can_be_chosen_is_listed() -> None:
    assert set(options_of("combine")) <= {row.method.strip("`") for row in rows()}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.method)
def test_a_row_is_complete_and_its_files_exist(row: Row) -> None:
    assert row.files and all((ROOT / file).is_file() for file in row.files)
    assert row.paper and row.differs


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.method)
def test_a_row_cites_the_papers_that_its_files_cite(row: Row) -> None:
    cited = " ".join((ROOT / file).read_text() for file in row.files)
    assert row.papers <= set(re.findall(r"arXiv:(\d{4}\.\d{4,5})", cited))
    docstrings = [ast.get_docstring(ast.parse((ROOT / file).read_text())) or "" for file in row.files]
    sources = re.findall(
        r"^Source: (.*?)(?:\n\n|\Z)", "\n\n".join(docstrings), flags=re.DOTALL | re.MULTILINE
    )
    if "maths" not in row.files[0]:  # a file of combines has several sources
        assert set(re.findall(r"arXiv:(\d{4}\.\d{4,5})", " ".join(sources))) <= row.papers


def test_a_link_leads_to_the_paper_that_it_names() -> None:
    links = re.findall(r"\[arXiv:([\d.]+)\]\(https://arxiv\.org/abs/([\d.]+)\)", PAGE)
    assert len(links) >= 30
    assert all(name == address for name, address in links)
    assert len(links) == PAGE.count("arXiv:")
