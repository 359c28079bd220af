"""Every `fedpref run` that the README shows composes and names options that exist."""

import re
import shlex
from pathlib import Path

import pytest

from fedpref.cli.build import check_config
from fedpref.cli.compose import compose, jobs, parse_words, plain

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = [line for line in README.replace("\\\n", " ").splitlines() if line.startswith("    fedpref run ")]
COMMANDS = [re.sub(r"\s+#.*", "", line).strip() for line in BLOCKS]


def test_the_readme_shows_commands() -> None:
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("command", [command for command in COMMANDS if "mine" not in command])
def test_a_command_of_the_readme_composes(command: str) -> None:
    words = parse_words(shlex.split(command)[2:])
    for overrides in jobs(words):
        check_config(plain(compose(overrides)))
