import tracemalloc

import numpy as np
import pytest

from fedpref.maths.deltas import sum_of_deltas
from fedpref.maths.weights import weighted_sum
from fedpref.seeds import generator
from fedpref.types import Update

NUM_ENTRIES = 900_001  # five updates of so many are added in blocks, by several threads


def moved(client: int, received: np.ndarray) -> Update:
    change = generator(client, "change").standard_normal(received.shape, np.float32)
    return Update({"w": received + change}, {"w": received}, 1, {}, client)


@pytest.mark.parametrize("received", [(3, 2), (1, 3), (6,)])
def test_arrays_of_different_shapes_are_no_sum_of_deltas(received: tuple[int, ...]) -> None:
    new, old = np.zeros((2, 3), np.float32), np.zeros(received, np.float32)
    updates = [Update({"w": new}, {"w": new}, 1, {}, 0), Update({"w": new}, {"w": old}, 1, {}, 1)]
    with pytest.raises(ValueError, match="different shapes"):
        sum_of_deltas(updates, [0.5, 0.5])


def test_a_sum_of_deltas_has_the_bits_of_adding_delta_by_delta_whoever_shares_what_was_received() -> None:
    one, other = (generator(seed, "model").standard_normal(NUM_ENTRIES, np.float32) for seed in range(2))
    updates = [moved(client, received) for client, received in enumerate((one, one, other, one, one.copy()))]
    factors = [0.1, -0.7, 0.2, 1.0, 1 / 3]
    deltas = [u.weights["w"].astype(np.float64) - u.received["w"].astype(np.float64) for u in updates]
    expected = factors[0] * deltas[0]
    for factor, delta in zip(factors[1:], deltas[1:], strict=True):
        expected = expected + factor * delta
    assert sum_of_deltas(updates, factors)["w"].tobytes() == expected.tobytes()
    assert weighted_sum([update.delta for update in updates], factors)["w"].tobytes() == expected.tobytes()


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (3, 0)])
def test_a_sum_of_deltas_has_their_shape_and_minus_zero_stays_minus_zero(shape: tuple[int, ...]) -> None:
    same = np.ones(shape, np.float32)
    total = sum_of_deltas([Update({"w": same}, {"w": same}, 1, {}, 0)], [-1.0])["w"]
    assert total.shape == shape and total.dtype == np.float64
    assert np.all(total == 0) and np.all(np.signbit(total))


def test_a_sum_of_deltas_is_of_what_was_received_and_needs_a_factor_for_each_update() -> None:
    weights = {"w": np.ones(2, np.float32), "score": np.ones(1, np.float32)}
    updates = [Update(weights, {"w": np.zeros(2, np.float32)}, 1, {}, client) for client in range(2)]
    assert {key: array.tolist() for key, array in sum_of_deltas(updates, [1, 2]).items()} == {"w": [3.0, 3.0]}
    for wrong in ([], updates[:1]):
        with pytest.raises(ValueError, match="2 factors"):
            sum_of_deltas(wrong, [1, 2])


def test_adding_twenty_deltas_takes_the_memory_of_the_sum_and_of_some_blocks() -> None:
    received = np.zeros(NUM_ENTRIES, np.float32)
    updates = [moved(client, received) for client in range(20)]
    tracemalloc.start()
    sum_of_deltas(updates, [1.0] * 20)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 3 * 8 * NUM_ENTRIES
