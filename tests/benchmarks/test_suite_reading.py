"""The sentence below a table: everybody is named once, on the side where the interval lies."""

from __future__ import annotations

import numpy as np

from fedpref.benchmarks.suite.reading import reading
from fedpref.evaluation.compare import tables
from fedpref.evaluation.records import Person, Record

LEVELS = {"base": 0.7, "worse": 0.5, "alike": 0.7, "better": 0.8, "best": 0.9}


def records(people: int) -> list[Record]:
    """Everybody has an accuracy around the level of the method; by 0.1 to both sides for ``alike``."""
    return [
        Record(
            name,
            "d",
            0,
            {
                f"p{i}": Person(level + (0.1 * (-1) ** i if name == "alike" else 0.001 * i), 1)
                for i in range(people)
            },
        )
        for name, level in LEVELS.items()
    ]


def test_the_sentence_names_each_method_once_and_the_best_first() -> None:
    (table,) = tables(records(10))
    assert reading(table, "user_accuracy") == [
        "Beside base (by intervals over people, best first), "
        "above it: best, better; not told apart from it: alike; below it: worse."
    ]


def test_one_person_alone_gives_no_sentence() -> None:
    (table,) = tables(records(1))
    assert np.isfinite(table.rows[1].cells["user_accuracy"].estimate.mean)
    assert reading(table, "user_accuracy") == []
