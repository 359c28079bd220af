"""Drawing a Gaussian apart: what stays, what is held, and which directions are taken."""

import numpy as np
import pytest

from fedpref.maths.mixture import FIRST, SECOND, SHARES, apart, total_covariance, with_covariance
from fedpref.seeds import generator
from fedpref.types import Weights

H, K = 5, 4
COVARIANCE = np.diag([0.1, 4.0, 0.2, 9.0, 1.0])


def gaussian(num_components: int = K, diagonal: bool = False) -> Weights:
    mean = np.arange(H) / H
    second = np.outer(mean, mean) + COVARIANCE
    moments = {
        SHARES: np.full(num_components, 1 / num_components),
        FIRST: np.tile(mean / num_components, (num_components, 1)),
        SECOND: np.diag(second) if diagonal else second,
    }
    return {key: array.astype(np.float32) for key, array in moments.items()}


@pytest.mark.parametrize("diagonal", [False, True])
def test_the_covariance_around_the_common_mean_is_what_was_put_in(diagonal: bool) -> None:
    found = total_covariance(gaussian(diagonal=diagonal))
    np.testing.assert_allclose(found, np.diag(COVARIANCE) if diagonal else COVARIANCE, atol=1e-6)


@pytest.mark.parametrize("diagonal", [False, True])
def test_components_move_along_the_main_directions_only(diagonal: bool) -> None:
    moments, within = apart(gaussian(diagonal=diagonal), 0.2, generator(0, "split"))
    shifts = moments[FIRST] * K - np.arange(H) / H
    assert np.abs(shifts[:, [0, 2]]).max() < 1e-5  # the two narrowest of five, with three directions to take
    assert (np.abs(shifts[:, [1, 3, 4]]).max(axis=0) > 0.1).all()
    np.testing.assert_allclose(within, 0.2 * total_covariance(gaussian(diagonal=diagonal)), atol=1e-6)
    assert moments[SHARES].tolist() == [np.float32(1 / K)] * K


def test_drawn_means_have_the_variance_that_is_not_held() -> None:
    drawn = np.concatenate(
        [apart(gaussian(), 0.2, generator(seed, "split"))[0][FIRST] * K for seed in range(2000)]
    )
    np.testing.assert_allclose(drawn.mean(axis=0), np.arange(H) / H, atol=0.15)
    np.testing.assert_allclose(
        drawn.var(axis=0), 0.8 * np.diag(COVARIANCE) * [0, 1, 0, 1, 1], rtol=0.06, atol=1e-6
    )


def test_a_covariance_that_is_put_back_is_the_one_found_around_the_component_means() -> None:
    moments, _ = apart(gaussian(), 0.2, generator(0, "split"))
    held = with_covariance(moments, COVARIANCE)
    means = held[FIRST].astype(float) * K
    between = sum(np.outer(m, m) / K for m in means)
    np.testing.assert_allclose(held[SECOND] - between, COVARIANCE, atol=1e-5)
    assert held[FIRST] is moments[FIRST] and held[SHARES] is moments[SHARES]


def test_more_components_than_dimensions_take_all_directions() -> None:
    moments, _ = apart(gaussian(num_components=9), 0.5, generator(0, "split"))
    assert np.linalg.matrix_rank(moments[FIRST] - moments[FIRST].mean(axis=0), tol=1e-4) == H
