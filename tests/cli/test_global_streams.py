"""What a finished run is asked does not depend on the global random streams, nor does it move them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Run = Callable[..., tuple[int, str, str]]

ALLOW = ("--allow", "drawing_toy")


@pytest.fixture
def finished(fedpref: Run, people: Path, folder: Path) -> Path:
    """A run of clients who draw from the global streams whenever they are asked."""
    words = ("data=jsonl", "data.path=people.jsonl", "name=t", "cohort_size=2", "rounds=1")
    assert fedpref("run", *words, "client._target_=drawing_toy.DrawingToy", *ALLOW)[0] == 0
    (path,) = (folder / "runs" / "t").iterdir()
    strangers = people.read_text().replace('"annotator": "p', '"annotator": "stranger')
    (folder / "strangers.jsonl").write_text(strangers)
    return path


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("eval", ("people.jsonl", "--format", "json")),
        ("label", ("people.jsonl",)),
        ("adapt", ("strangers.jsonl", "--resamples", "1", "--format", "json")),
    ],
)
def test_a_rule_that_draws_from_the_global_streams_says_the_same_twice(
    fedpref: Run, finished: Path, command: str, words: tuple[str, ...]
) -> None:
    said = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        before = random.getstate(), str(np.random.get_state(legacy=False))
        code, out, _ = fedpref(command, str(finished), *words, *ALLOW)
        assert code == 0
        said.append(out)
        assert (random.getstate(), str(np.random.get_state(legacy=False))) == before
    assert said[0] == said[1]


def test_a_reference_that_draws_from_the_global_streams_says_the_same_twice(
    fedpref: Run, finished: Path
) -> None:
    beside = ("--reference", str(finished), "--resamples", "1", "--format", "json")
    said = [fedpref("adapt", str(finished), "strangers.jsonl", *beside, *ALLOW)[1] for _ in range(2)]
    assert said[0] == said[1]
