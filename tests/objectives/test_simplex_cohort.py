"""Mixture weights of many clients at once: each client's are those that it finds alone."""

from __future__ import annotations

import numpy as np
import pytest

from fedpref.objectives.simplex import simplex_fit
from fedpref.objectives.simplex_cohort import simplex_fits
from fedpref.seeds import generator


@pytest.mark.parametrize("precision", [0.0, 1.0])
@pytest.mark.parametrize("has_offsets", [False, True])
def test_each_client_gets_the_weights_that_it_finds_alone(precision: float, has_offsets: bool) -> None:
    rng = generator(0, "parts")
    parts = [2 * rng.standard_normal((count, 3)) for count in (1, 40, 2, 5, 33, 6, 7)]
    parts[3][2, 1] = np.nan
    parts[5] = np.ones((6, 3))  # all components alike: nothing to learn from
    priors = [rng.dirichlet(np.ones(3)) for _ in parts]
    priors[1] = np.array([0.0, 0.0, 1.0])
    offsets = [rng.standard_normal(len(own)) for own in parts] if has_offsets else None
    found = simplex_fits(parts, priors, precision, offsets)
    for i, own in enumerate(found):
        alone = simplex_fit(parts[i], priors[i], precision, offsets[i] if offsets else 0.0)
        np.testing.assert_allclose(own.weights, alone.weights, atol=1e-6)
        assert own.flops == alone.flops


def test_nobody_is_nothing() -> None:
    assert simplex_fits([], [], 1.0) == []
