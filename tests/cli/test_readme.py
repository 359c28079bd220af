"""Every `fedpref run` that the README shows, or a page of docs/ shows and does not run, composes."""

import re
import shlex

import pytest
from documents import PAGES, ROOT, blocks

from fedpref.cli.build import check_config
from fedpref.cli.compose import compose, jobs, parse_words, plain

README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = [line.strip() for line in README.replace("\\\n", " ").splitlines() if line.startswith("    fedpref ")]
NOT_RUN = [
    line
    for page in PAGES
    for block in blocks(page.read_text(encoding="utf-8"))
    if block.label == "sh-not-run"
    for line in block.code.replace("\\\n", " ").splitlines()
]
COMMANDS = [re.sub(r"\s+#.*", "", line) for line in SHOWN + NOT_RUN if line.startswith("fedpref run ")]


def test_the_readme_shows_commands() -> None:
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("command", [command for command in COMMANDS if "mine" not in command])
def test_a_command_that_is_shown_composes(command: str) -> None:
    words = parse_words(shlex.split(command)[2:])
    for overrides in jobs(words):
        check_config(plain(compose(overrides)))
