import numpy as np
import pytest

from fedpref.maths.flute import collapse_defect, collapse_gradient
from fedpref.seeds import generator


def some_rows(answers: int, width: int = 5, seed: int = 0) -> np.ndarray:
    rows: np.ndarray = generator(seed, "rows").standard_normal((answers, width))
    return rows


@pytest.mark.parametrize("answers", [2, 3, 5])
def test_the_gradient_is_that_of_the_defect(answers: int) -> None:
    rows, width = some_rows(answers), 1e-6
    gradient = collapse_gradient(rows)
    for index in np.ndindex(rows.shape):
        nudge = np.zeros_like(rows)
        nudge[index] = width
        slope = (collapse_defect(rows + nudge) - collapse_defect(rows - nudge)) / (2 * width)
        assert gradient[index] == pytest.approx(slope, abs=1e-8)


def test_opposite_rows_have_collapsed_and_stay_whatever_their_size() -> None:
    row = some_rows(1)
    for size in (1e-3, 1.0, 1e3):
        rows = size * np.concatenate([row, -row])
        assert collapse_defect(rows) < 1e-12
        assert not collapse_gradient(rows).any()


def test_a_regular_simplex_has_collapsed() -> None:
    corners = np.eye(4) - 1 / 4
    assert collapse_defect(3.0 * corners) < 1e-12
    assert not collapse_gradient(3.0 * corners).any()


def test_equal_rows_are_as_far_from_collapse_as_orthogonal_matrices_of_norm_one() -> None:
    # W W^T is a matrix of ones, which T is orthogonal to: |M - T|^2 = |M|^2 + |T|^2 = 2.
    row = some_rows(1)
    assert collapse_defect(np.concatenate([row, row])) == pytest.approx(np.sqrt(2))


def test_the_size_of_the_rows_does_not_count_so_the_gradient_is_orthogonal_to_them() -> None:
    rows = some_rows(2)
    assert collapse_defect(7 * rows) == pytest.approx(collapse_defect(rows))
    assert np.sum(rows * collapse_gradient(rows)) == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(collapse_gradient(2 * rows), collapse_gradient(rows) / 2)


def test_steps_draw_rows_apart_until_they_are_a_simplex() -> None:
    rows = some_rows(3, seed=1)
    for step in range(500):
        rows = rows - 0.5 / np.sqrt(1 + step) * collapse_gradient(rows)
    assert collapse_defect(rows) < 0.02


def test_rows_of_zeros_have_no_shape_and_no_gradient() -> None:
    assert collapse_defect(np.zeros((2, 3))) == 0
    assert not collapse_gradient(np.zeros((2, 3))).any()
