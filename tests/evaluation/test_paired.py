"""Two models on the same pairs, person by person."""

from __future__ import annotations

import numpy as np
import pytest

from fedpref.evaluation.paired import Marks, compared, sign_test


def of(*digits: int) -> np.ndarray:
    return np.array(digits, dtype=float)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_five_losses_and_no_gain_are_one_chance_in_thirty_two() -> None:
    assert sign_test(of(0, 0, 0, 0, 0, 1, 0), of(1, 1, 1, 1, 1, 1, 0)) == pytest.approx(1 / 32)


def test_without_a_difference_nobody_is_worse_or_better() -> None:
    assert sign_test(of(1, 0, 1), of(1, 0, 1)) == 1.0


def test_being_worse_and_being_better_exclude_each_other_but_for_the_count_itself() -> None:
    own, base = of(0, 0, 0, 1, 1), of(1, 1, 1, 0, 0)
    exactly_three_of_five = 10 / 32
    assert sign_test(own, base) + sign_test(base, own) == pytest.approx(1 + exactly_three_of_five)


def test_a_method_against_itself_gains_nothing_and_harms_nobody() -> None:
    marks = {"a": of(*[1, 0] * 6), "b": of(*[1] * 12)}
    found = compared([marks], [marks], rng())
    assert (found.pair_gain, found.gain, found.loses, found.worse, found.better) == (0, 0, 0, 0, 0)
    assert found.pair_interval == found.interval == (0, 0)
    assert found.pair_accuracy == found.accuracy == 18 / 24


def test_people_with_few_rows_count_over_pairs_alone() -> None:
    base = {"many": of(*[0] * 10), "few": of(*[0] * 5)}
    own = {"many": of(*[1] * 10), "few": of(*[0] * 5)}
    found = compared([own], [base], rng())
    assert found.num_people == 1
    assert found.pair_gain == pytest.approx(10 / 15)
    assert (found.gain, found.better, found.worse) == (1, 1, 0)


def test_with_few_rows_for_everybody_there_are_no_figures_over_people() -> None:
    found = compared([{"few": of(1)}], [{"few": of(0)}], rng())
    assert found.num_people == 0
    assert found.pair_gain == 1
    assert np.isnan(found.gain)


def test_a_person_counts_once_however_many_splits_ask_them() -> None:
    """One loses 0.5 in both splits, the other gains 0.1 in one: the mean over people is -0.2."""
    base = [{"a": of(*[1] * 10)}, {"a": of(*[1] * 10), "b": of(*[0] * 10)}]
    halved = of(*[1, 0] * 5)
    own: list[Marks] = [{"a": halved}, {"a": halved, "b": of(*[0] * 9, 1)}]
    found = compared(own, base, rng())
    assert found.num_people == 2
    assert found.gain == pytest.approx(-0.2)
    assert found.loses == 0.5
    assert found.worse == 0.5
