"""The parts of the few-shot benchmark that decide what is compared with what."""

from __future__ import annotations

import numpy as np
import pytest

from fedpref.benchmarks.few_shot import AT_ZERO, LEARNED, SOURCE, ZERO, Row, law_of, table
from fedpref.benchmarks.personalisation import METHODS
from fedpref.clients.mixture_prior import MixturePrior
from fedpref.models.given import Given
from fedpref.seeds import generator
from fedpref.types import ClientState


def test_an_uninformed_prior_has_the_size_of_the_learned_one_and_knows_no_direction() -> None:
    second = np.diag(np.arange(1.0, 13.0)).astype(np.float32)
    learned = {
        "prior.weight": np.ones(1, np.float32),
        "prior.first": np.ones((1, 12), np.float32),
        "prior.second": second,
    }
    zero = AT_ZERO["mixture_prior K=1"](learned)
    np.testing.assert_array_equal(zero["prior.second"], 6.5 * np.eye(12))
    assert not zero["prior.first"].any() and learned["prior.first"].all()
    served = MixturePrior(Given(12), 1).personalise(zero, None, ClientState())
    assert not served["score.weight"].any()


def test_the_law_has_the_shares_and_the_size_of_tastes_of_its_population() -> None:
    people = SOURCE.population(0)
    moments = law_of(people, 0)
    np.testing.assert_allclose(moments["prior.weight"], SOURCE.recipe.shares, atol=0.01)
    # Heads are beta theta; theta has the length at which 2 |theta|^2 = 1, beta mean 3 and log-sd 0.3.
    expected = 9.0 * np.exp(0.3**2) / 2
    assert np.trace(moments["prior.second"]) == pytest.approx(expected, rel=0.05)
    assert np.linalg.eigvalsh(moments["prior.second"])[0] > -1e-6


def test_the_table_has_k_star_of_each_population_and_of_all_people_and_what_the_prior_is_worth() -> None:
    def row(seed: int, prior: str, gain: float) -> Row:
        reference = 0.7 + 0.01 * generator(seed, "table").standard_normal(30)
        accuracies = [(reference + part).tolist() for part in (0.0, 0.004, gain)]
        return Row(seed, "lore", prior, [0, 1, 2], accuracies, reference.tolist())

    told = table([row(0, LEARNED, 0.02), row(1, LEARNED, 0.004), row(0, ZERO, -0.1), row(1, ZERO, -0.1)])
    learned, zero = (line.split() for line in told.splitlines()[2:4])
    assert learned == ["lore", LEARNED, "+0.0", "+0.4", "+1.2", "2", "2", "-"]
    assert zero == ["lore", "at", "zero", "+0.0", "+0.4", "-10.0", "-", "-", "-"]
    assert "2: +11.2 [" in told.splitlines()[-1]


def test_priors_are_taken_from_methods_that_there_are() -> None:
    assert AT_ZERO.keys() <= METHODS.keys()
