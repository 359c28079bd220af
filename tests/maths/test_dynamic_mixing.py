import itertools

import pytest

from fedpref.maths.dynamic_mixing import AnswerWeight, RefreshWeight

VERSIONS = (1, 2, 10, 1000)
AGES = (1, 2, 5, 40)


@pytest.mark.parametrize("mu", [0.01, 1.0, 50.0])
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_the_share_of_an_answer_lies_between_0_and_1_and_falls_with_age(mu: float, offset: float) -> None:
    weight = AnswerWeight(scale=1.0, decay=0.5, offset=offset)
    for version in VERSIONS:
        shares = [weight.share(mu, version, age) for age in AGES]
        assert all(0 < share < 1 for share in shares)
        assert all(younger > older for younger, older in itertools.pairwise(shares))


def test_without_decay_age_does_not_count() -> None:
    weight = AnswerWeight(scale=1.0, decay=0.0, offset=0.0)
    assert len({weight.share(1.0, 4, age) for age in AGES}) == 1


def test_the_share_of_a_first_fresh_answer_with_published_defaults_is_a_half() -> None:
    assert AnswerWeight(1.0, 0.5, 0.0).share(1.0, 1, 1) == 0.5


def test_a_refresh_is_cautious_with_models_of_almost_the_same_version() -> None:
    weight = RefreshWeight(scale=1.0, caution=1.2)
    assert weight.share(1.0, 1, 1) == 0.0  # 1 - 1.2 / 1 < 0
    assert 0 < weight.share(1.0, 2, 2) < weight.share(1.0, 2, 9) < 1


def slope_of(before: float, after: float, amount: float) -> float:
    return (after - before) / amount


@pytest.mark.parametrize("name", ["scale", "decay", "offset"])
def test_an_answers_coefficients_follow_the_gradient_of_its_share(name: str) -> None:
    values = {"scale": 0.8, "decay": 0.4, "offset": 0.3}
    mu, version, age, amount = 1.5, 7, 4, 1e-6
    up, down = (AnswerWeight(**{**values, name: values[name] + d}) for d in (amount, -amount))
    gradient = slope_of(down.share(mu, version, age), up.share(mu, version, age), 2 * amount)
    adapted = AnswerWeight(**values).adapted(mu, version, age, slope=-0.5, lr=0.01)
    assert getattr(adapted, name) - values[name] == pytest.approx(0.005 * gradient, rel=1e-5)


@pytest.mark.parametrize("name", ["scale", "caution"])
def test_a_refreshs_coefficients_follow_the_gradient_of_its_share(name: str) -> None:
    values = {"scale": 0.8, "caution": 0.6}
    mu, version, age, amount = 1.5, 7, 4, 1e-6
    up, down = (RefreshWeight(**{**values, name: values[name] + d}) for d in (amount, -amount))
    gradient = slope_of(down.share(mu, version, age), up.share(mu, version, age), 2 * amount)
    adapted = RefreshWeight(**values).adapted(mu, version, age, slope=0.7, lr=0.01)
    assert getattr(adapted, name) - values[name] == pytest.approx(-0.007 * gradient, rel=1e-5)


@pytest.mark.parametrize("slope", [1e9, -1e9])
def test_coefficients_stay_in_their_ranges_whatever_the_loss_does(slope: float) -> None:
    answer = AnswerWeight(1.0, 0.5, 0.1).adapted(1.0, 3, 2, slope, 1.0)
    refresh = RefreshWeight(1.0, 0.5).adapted(1.0, 3, 2, slope, 1.0)
    assert answer.scale > 0 and answer.decay >= 0 and answer.offset >= 0
    assert refresh.scale > 0 and refresh.caution >= 0
    assert 0 <= refresh.share(1.0, 3, 2) < 1 and 0 < answer.share(1.0, 3, 2) < 1


def test_one_loss_however_large_moves_a_coefficient_by_the_step_size_at_most() -> None:
    before, lr = AnswerWeight(1.0, 0.5, 0.1), 0.01
    after = before.adapted(1.0, 3, 2, -1e300, lr)
    assert after == before.adapted(1.0, 3, 2, -1.0, lr)
    assert 0 < after.offset - before.offset <= lr


def test_a_step_of_zero_leaves_even_the_smallest_coefficients_as_they_are() -> None:
    answer, refresh = AnswerWeight(1e-12, 0.5, 1.0), RefreshWeight(1e-12, 0.5)
    assert answer.adapted(1.0, 1, 2, -0.5, 0.0) == answer
    assert refresh.adapted(1.0, 2, 2, -0.5, 0.0) == refresh
