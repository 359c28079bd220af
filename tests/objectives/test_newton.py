"""Newton's method with backtracking, on functions of one or two variables."""

from __future__ import annotations

import numpy as np
import pytest

from fedpref.objectives.newton import Direction, Directions, Minimum, minima, minimum


def _quadratic(matrix: np.ndarray, centre: np.ndarray, start: np.ndarray) -> Minimum:
    def objective(x: np.ndarray) -> float:
        return float((x - centre) @ matrix @ (x - centre) / 2)

    def direction(x: np.ndarray) -> Direction:
        gradient = matrix @ (x - centre)
        step = -np.linalg.solve(matrix, gradient)
        return Direction(step, float(gradient @ step))

    return minimum(start, objective, direction)


def test_a_quadratic_takes_one_step_and_a_second_direction_to_know_it() -> None:
    matrix, centre = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([3.0, -1.0])
    point, directions, evaluations = _quadratic(matrix, centre, np.zeros(2))
    np.testing.assert_allclose(point, centre, atol=1e-12)
    assert (directions, evaluations) == (2, 2)


def test_a_start_at_the_minimum_is_left_where_it_is() -> None:
    centre = np.array([3.0, -1.0])
    point, directions, evaluations = _quadratic(np.eye(2), centre, centre)
    assert point is centre and (directions, evaluations) == (1, 1)


@pytest.mark.parametrize("most_steps", [1, 3, 30])
def test_the_objective_never_rises_where_full_steps_overshoot(most_steps: int) -> None:
    values = []

    def objective(x: np.ndarray) -> float:
        values.append(float(np.logaddexp(x[0], -x[0])))  # full steps diverge from beyond about 1.09
        return values[-1]

    def direction(x: np.ndarray) -> Direction:
        slope, curvature = np.tanh(x[0]), 1 / np.cosh(x[0]) ** 2
        return Direction(np.array([-slope / curvature]), float(-(slope**2) / curvature))

    found = minimum(np.array([3.0]), objective, direction, most_steps=most_steps)
    assert found.directions <= most_steps and found.evaluations == len(values)
    assert np.logaddexp(found.point[0], -found.point[0]) < values[0]
    if most_steps == 30:
        assert found.point[0] == pytest.approx(0.0, abs=1e-6)


def test_steps_that_are_moves_within_a_domain_stay_in_it() -> None:
    def objective(x: np.ndarray) -> float:
        assert (x > 0).all()
        return float((x - np.log(x)).sum())  # minimum at 1

    def direction(x: np.ndarray) -> Direction:  # x (e - log x)' for relative steps e
        step, gradient = (1 - x) / x, x - 1
        return Direction(step, float(gradient @ step))

    found = minimum(np.array([0.01, 2.0]), objective, direction, lambda x, e: x * np.exp(e), 200)
    np.testing.assert_allclose(found.point, 1.0, atol=1e-5)


def test_many_problems_at_once_take_the_steps_that_each_takes_alone() -> None:
    starts = np.array([[3.0], [0.5], [0.0], [-2.0]])

    def values(x: np.ndarray) -> np.ndarray:
        return np.logaddexp(x[..., 0], -x[..., 0])

    def slopes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slope, curvature = np.tanh(x), 1 / np.cosh(x) ** 2
        return -slope / curvature, (-(slope**2) / curvature)[..., 0]

    together = minima(starts, values, lambda x: Directions(*slopes(x)), most_steps=30)
    for i, start in enumerate(starts):
        alone = minimum(
            start,
            lambda x: float(values(x)),
            lambda x: Direction(slopes(x)[0], float(slopes(x)[1])),
            most_steps=30,
        )
        np.testing.assert_allclose(together.points[i], alone.point, atol=1e-12)
        assert together.values[i] == pytest.approx(values(alone.point))
        counted = together.directions[i], together.evaluations[i]
        assert counted == (alone.directions, alone.evaluations)
    assert len(set(together.directions.tolist())) > 1  # so that some waited for others
