import itertools

import pytest

from fedpref.errors import ConfigurationError
from fedpref.maths.staleness import Constant, Hinge, Polynomial, Staleness, check_max_staleness

DISCOUNTS = [Constant(), Polynomial(), Polynomial(2.0), Hinge(), Hinge(slope=0.5, delay=1.5)]


@pytest.mark.parametrize("discount", DISCOUNTS)
def test_a_fresh_update_counts_in_full_and_no_delay_makes_one_count_more(discount: Staleness) -> None:
    values = [discount(staleness) for staleness in range(50)]
    assert values[0] == 1.0
    assert all(0 < later <= earlier for earlier, later in itertools.pairwise(values))


def test_the_published_functions_have_their_values() -> None:
    assert Polynomial(0.5)(3) == 1 / 2
    assert Polynomial(1.0)(3) == 1 / 4
    assert Hinge(10, 4)(4) == 1.0
    assert Hinge(10, 4)(5) == 1 / 11
    assert Constant()(1000) == 1.0


def test_an_exponent_or_a_slope_of_zero_is_no_discount() -> None:
    assert Polynomial(0.0)(7) == Hinge(slope=0.0)(7) == 1.0


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (Polynomial, "exponent", -0.5),
        (Polynomial, "exponent", float("nan")),
        (Hinge, "slope", -1.0),
        (Hinge, "slope", float("inf")),
        (Hinge, "delay", -1.0),
    ],
)
def test_a_discount_that_would_not_fall_is_refused(kind: type, name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"strategy.staleness.{name}={value}"):
        kind(**{name: value})


def test_a_bound_below_zero_is_refused() -> None:
    check_max_staleness(None)
    check_max_staleness(0)
    with pytest.raises(ConfigurationError, match=r"strategy.max_staleness=-1 .* null"):
        check_max_staleness(-1)
