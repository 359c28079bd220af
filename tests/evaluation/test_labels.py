from __future__ import annotations

import numpy as np
import pytest

from fedpref.evaluation.labels import label
from fedpref.seeds import generator


def test_a_majority_overrules_a_stronger_opponent_and_the_mean_does_not() -> None:
    margins = np.array([[0.1], [0.2], [-9.0]])
    by_majority, by_mean = label(margins, "majority"), label(margins, "mean")
    assert (by_majority.is_first[0], by_mean.is_first[0]) == (True, False)
    assert (by_majority.votes[0], by_mean.votes[0]) == (2, 1)
    assert by_majority.margins[0] == pytest.approx(-2.9) and by_mean.margins[0] == pytest.approx(2.9)
    assert (by_majority.agreement[0], by_mean.agreement[0]) == pytest.approx((2 / 3, 1 / 3))


def test_a_tie_of_votes_goes_to_the_larger_mean_and_then_to_the_first() -> None:
    labels = label(np.array([[1.0, 3.0, 1.0], [-2.0, -1.0, -1.0]]))
    assert labels.is_first.tolist() == [False, True, True]
    assert labels.margins.tolist() == [0.5, 1.0, 0.0]


def test_models_without_a_side_count_one_half() -> None:
    labels = label(np.array([[0.0], [1.0]]))
    assert (labels.votes[0], labels.agreement[0]) == (1, 0.75)


def test_swapping_the_responses_swaps_the_label_and_nothing_else() -> None:
    margins = generator(0, "labels").standard_normal((3, 200))
    for by in ("majority", "mean"):
        one, other = label(margins, by), label(-margins, by)
        assert (one.is_first ^ other.is_first).all()
        np.testing.assert_allclose(one.margins, other.margins)
        np.testing.assert_array_equal(one.votes, other.votes)


def test_one_model_is_obeyed() -> None:
    labels = label(np.array([[0.5, -0.5]]))
    assert labels.is_first.tolist() == [True, False]
    assert labels.margins.tolist() == [0.5, 0.5] and labels.agreement.tolist() == [1.0, 1.0]
