"""A sequence that makes its items."""

import pickle

import pytest

from fedpref.lazy import LazySequence


def test_items_are_made_when_asked_for_and_once_while_remembered() -> None:
    made: list[int] = []

    def make(i: int) -> int:
        made.append(i)
        return i * i

    items = LazySequence(10**6, make, keep=2)
    assert len(items) == 10**6 and made == []
    assert [items[3], items[3], items[-1]] == [9, 9, (10**6 - 1) ** 2]
    assert made == [3, 10**6 - 1]
    assert items[5] == 25 and items[-1] == (10**6 - 1) ** 2 and made == [3, 10**6 - 1, 5]
    assert items[3] == 9 and made == [3, 10**6 - 1, 5, 3]  # the one not asked for the longest was forgotten


def test_it_is_a_sequence() -> None:
    items = LazySequence(5, str)
    assert list(items) == ["0", "1", "2", "3", "4"] and items[1:3] == ["1", "2"] and "3" in items
    with pytest.raises(IndexError):
        items[5]


def test_another_process_gets_the_recipe_and_not_the_items() -> None:
    items = LazySequence(3, str)
    assert items[1] == "1"
    copy = pickle.loads(pickle.dumps(items))
    assert list(copy) == ["0", "1", "2"]
