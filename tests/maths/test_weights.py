import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpref.maths.weights import add_delta, difference, digest, distance, inner, norm, weighted_sum
from fedpref.seeds import generator


def random_weights(seed: int) -> dict[str, np.ndarray]:
    rng = generator(seed, "weights")
    return {
        "b": rng.normal(size=(3,)).astype(np.float32),
        "a": rng.normal(size=(2, 4)).astype(np.float32),
    }


@given(st.integers(0, 10_000))
def test_adding_the_difference_restores_the_new_weights_to_the_bit(seed: int) -> None:
    old, new = random_weights(seed), random_weights(seed + 1)
    restored = add_delta(old, difference(new, old))
    assert all(restored[key].tobytes() == new[key].tobytes() for key in new)
    assert all(array.dtype == np.float32 for array in restored.values())


def test_keys_without_a_delta_keep_the_very_array() -> None:
    base = random_weights(0)
    moved = add_delta(base, {"b": np.ones(3)})
    assert moved["a"] is base["a"]
    np.testing.assert_allclose(moved["b"], base["b"] + 1, rtol=1e-6)


def test_a_delta_of_unknown_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="evil"):
        add_delta(random_weights(0), {"evil": np.ones(3)})


def test_difference_refuses_other_keys() -> None:
    with pytest.raises(ValueError, match=r"\['a'\]"):
        difference({"b": np.zeros(1)}, {"a": np.zeros(1), "b": np.zeros(1)})


def test_weighted_sum_is_linear_and_does_not_touch_its_terms() -> None:
    terms = [random_weights(seed) for seed in range(3)]
    before = digest({"0": terms[0]})
    total = weighted_sum(terms, [1.0, -2.0, 0.5])
    expected = terms[0]["a"].astype(float) - 2 * terms[1]["a"].astype(float) + 0.5 * terms[2]["a"]
    np.testing.assert_allclose(total["a"], expected, rtol=1e-12)
    assert digest({"0": terms[0]}) == before


def test_norm_is_that_of_the_concatenation() -> None:
    weights = {"a": np.array([3.0]), "b": np.array([[4.0]])}
    assert norm(weights) == 5.0
    assert inner(weights, {"a": np.array([1.0]), "b": np.array([[2.0]])}) == 11.0


def test_digest_sees_every_bit_name_and_shape_but_not_the_order_of_keys() -> None:
    weights = random_weights(0)
    same = {key: weights[key].copy() for key in reversed(list(weights))}
    assert digest({"global": weights}) == digest({"global": same})
    same["b"].view(np.uint32)[0] ^= 1
    assert digest({"global": weights}) != digest({"global": same})
    assert digest({"global": weights}) != digest({"other": weights})
    assert digest({"global": weights}) != digest({"global": {**weights, "a": weights["a"].reshape(4, 2)}})


@pytest.mark.parametrize("shapes", [((2, 3), (3, 2)), ((3,), (1,))])
def test_arrays_of_different_shapes_are_no_sum(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="different shapes"):
        weighted_sum([{"w": np.zeros(shape, np.float32)} for shape in shapes], [0.5, 0.5])


@pytest.mark.parametrize("size", [3, 200_001])
def test_the_distance_is_the_norm_of_the_difference(size: int) -> None:
    new, old = ({"w": generator(i, "side").standard_normal(size, np.float32)} for i in range(2))
    assert distance(new, old) == pytest.approx(norm(difference(new, old)), rel=1e-13)
    assert distance({**new, "more": np.ones(2, np.float32)}, new) == 0.0
