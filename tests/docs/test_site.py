"""The documentation builds as a site that asks no network and leaves no page out."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from documents import PAGES, ROOT

LOADING = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data"}
"""Tags that a browser follows by itself, and the attribute with the address."""


class Addresses(HTMLParser):
    """What a page loads, where it links to, and how many headings of the first rank it has."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.num_titles = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.num_titles += tag == "h1"
        if tag in LOADING:
            self.loaded.append(values.get(LOADING[tag]) or "")
        if tag == "a":
            self.linked.append(values.get("href") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make docs` builds it, warnings being errors."""
    out = tmp_path_factory.mktemp("site")
    words = [
        sys.executable,
        "-m",
        "properdocs",
        "build",
        "-q",
        "--strict",
        "-f",
        "mkdocs.yml",
        "-d",
        str(out),
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_page_is_built_and_can_be_reached_from_the_first(site: Path) -> None:
    expected = {f"{page.stem}.html" for page in PAGES}
    assert {path.name for path in site.glob("*.html")} == expected
    first = Addresses((site / "index.html").read_text(encoding="utf-8"))
    assert expected <= {address.partition("#")[0] for address in first.linked}


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    for path in site.glob("*.html"):
        page = Addresses(path.read_text(encoding="utf-8"))
        assert page.num_titles == 1, path.name
        assert page.loaded
        for address in page.loaded:
            assert address.startswith("data:") or (site / address).is_file(), f"{path.name}: {address}"


def test_styles_and_pictures_load_nothing_either(site: Path) -> None:
    files = [*site.glob("*.css"), *site.glob("*.svg")]
    assert len(files) >= 2
    for path in files:
        text = path.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"//|@import|url\(|href=", text), path.name


def test_the_benchmark_page_names_every_suite() -> None:
    page = (ROOT / "docs" / "benchmark.md").read_text(encoding="utf-8")
    suites = [path.stem for path in (ROOT / "benchmarks" / "suites").glob("*.yaml")]
    assert suites
    assert [suite for suite in suites if f"`{suite}`" not in page] == []
