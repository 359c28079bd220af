"""The tables of personal methods do not depend on the executor that makes them."""

from __future__ import annotations

import argparse

import pytest

from fedpref.benchmarks.executors import EXECUTORS, add_executor
from fedpref.benchmarks.personalisation import METHODS, figures, population


@pytest.mark.parametrize("name", ["global head", "lore", "fedrep", "p_sharelora", "mixture_prior"])
def test_accuracies_of_a_short_run_agree(name: str) -> None:
    people, method = population("clusters-20", 1001), METHODS[name]._replace(rounds=3)
    found = {label: figures(method, people, 0, False, executor) for label, executor in EXECUTORS.items()}
    for figure in ("user_accuracy", "worst_group"):
        assert found["cohort"][figure] == pytest.approx(found["inline"][figure], abs=1e-4)


def test_a_command_takes_the_name_of_an_executor() -> None:
    parser = argparse.ArgumentParser()
    add_executor(parser)
    assert [parser.parse_args(words).executor for words in ([], ["--executor", "inline"])] == [
        "cohort",
        "inline",
    ]
