"""A split never parts a pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpref.data import PairSplit, Rows
from fedpref.data.split import straddling_texts
from fedpref.errors import ConfigurationError


def rows_of(pair_ids: list[str], splits: list[str] | None = None) -> Rows:
    number = len(pair_ids)
    return Rows(
        prompts=("Q",) * number,
        chosen=tuple(f"good {pair_id}" for pair_id in pair_ids),
        rejected=tuple(f"bad {pair_id}" for pair_id in pair_ids),
        clients=tuple(f"person {row}" for row in range(number)),
        topics=("",) * number,
        splits=tuple(splits or [""] * number),
        pair_ids=tuple(pair_ids),
        source="rows.jsonl",
    )


@given(
    pairs=st.lists(st.integers(0, 30), min_size=1).filter(lambda pairs: len(set(pairs)) >= 2),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32),
)
def test_no_pair_is_on_both_sides_and_the_share_is_of_pairs(
    pairs: list[int], fraction: float, seed: int
) -> None:
    pair_ids = [str(pair) for pair in pairs]
    num_pairs = len(set(pairs))
    expected = round(fraction * num_pairs)
    split, rows = PairSplit(fraction), rows_of(pair_ids)
    if expected in (0, num_pairs):
        with pytest.raises(ConfigurationError, match="the split leaves no"):
            split.is_held_out(rows, seed)
        return

    held_out = split.is_held_out(rows, seed)

    test = {pair_id for pair_id, is_test in zip(pair_ids, held_out, strict=True) if is_test}
    train = {pair_id for pair_id, is_test in zip(pair_ids, held_out, strict=True) if not is_test}
    assert not test & train
    assert len(test) == expected


def test_the_same_seed_repeats_and_another_differs() -> None:
    rows = rows_of([str(pair) for pair in range(100)])

    first, again, other = (PairSplit().is_held_out(rows, seed) for seed in (1, 1, 2))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_order_of_the_rows_does_not_change_which_pairs_are_held_out() -> None:
    pair_ids = [str(pair) for pair in range(100)]

    forward = PairSplit().is_held_out(rows_of(pair_ids), seed=1)
    backward = PairSplit().is_held_out(rows_of(pair_ids[::-1]), seed=1)

    assert np.array_equal(forward, backward[::-1])


def test_a_given_split_is_honoured_whatever_the_share_and_seed() -> None:
    rows = rows_of(["a", "a", "b", "c"], ["train", "train", "test", "train"])

    assert PairSplit(0.9).is_held_out(rows, seed=5).tolist() == [False, False, True, False]


def test_a_given_split_that_parts_a_pair_is_an_error_naming_both_rows() -> None:
    rows = rows_of(["a", "b", "a"], ["train", "train", "test"])

    with pytest.raises(ConfigurationError, match=r"rows 0 and 2 hold one pair \(a\).*split_column=null"):
        PairSplit().is_held_out(rows, seed=0)


def test_an_empty_side_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="no held-out rows"):
        PairSplit().is_held_out(rows_of(["a", "b"], ["train", "train"]), seed=0)
    with pytest.raises(ConfigurationError, match="no training rows"):
        PairSplit().is_held_out(rows_of(["a", "b"], ["test", "test"]), seed=0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, float("nan")])
def test_the_share_lies_between_nothing_and_all(fraction: float) -> None:
    with pytest.raises(ConfigurationError, match=r"split\.held_out_fraction"):
        PairSplit(fraction)


def test_equal_texts_under_two_ids_are_counted_where_the_split_parts_them() -> None:
    rows = Rows(
        prompts=("Q", "Q", "Q"),
        chosen=("A", "B", "C"),
        rejected=("B", "A", "D"),
        clients=("ann",) * 3,
        topics=("",) * 3,
        splits=("train", "test", "test"),
        pair_ids=("x", "y", "z"),
    )
    assert straddling_texts(rows, np.array([False, True, True])) == 1
    assert straddling_texts(rows, np.array([True, True, False])) == 0
