from __future__ import annotations

import numpy as np
import pytest
import torch

from fedpref.models.pair_head import BIAS, WEIGHT, PairHead, pair_gradient, pair_logits
from fedpref.objectives.selector import right_margins, scores, slot_biases, two_order_loss
from fedpref.seeds import generator

DIM, NUM_PAIRS = 4, 9


def features(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    chosen, rejected = generator(seed, "features").standard_normal((2, NUM_PAIRS, DIM))
    return chosen, rejected


def vector(seed: int = 0) -> np.ndarray:
    result: np.ndarray = generator(seed, "vector").standard_normal(2 * DIM + 1)
    return result


def test_logits_are_those_of_the_linear_head_on_both_features() -> None:
    (chosen, rejected), w = features(), vector()
    both = pair_logits(w, chosen - rejected, chosen + rejected)
    expected = [
        np.concatenate([a, b], axis=1) @ w[:-1] + w[-1] for a, b in ((chosen, rejected), (rejected, chosen))
    ]
    np.testing.assert_allclose(both, np.stack(expected, axis=1), atol=1e-12)


@pytest.mark.parametrize("bias_penalty", [0.0, 0.3])
def test_the_gradient_is_that_of_torch(bias_penalty: float) -> None:
    (chosen, rejected), w = features(), torch.tensor(vector(), requires_grad=True)
    a, b = torch.tensor(chosen), torch.tensor(rejected)
    both = torch.stack([torch.cat(order, dim=1) @ w[:-1] + w[-1] for order in ((a, b), (b, a))], dim=1)
    two_order_loss(both, bias_penalty).backward()  # type: ignore[no-untyped-call]
    ours = pair_gradient(vector(), chosen - rejected, chosen + rejected, bias_penalty)
    assert w.grad is not None
    np.testing.assert_allclose(ours, w.grad.numpy(), atol=1e-12)


def test_the_loss_is_the_two_way_cross_entropy_of_both_orders() -> None:
    (chosen, rejected), w = features(), vector()
    both = torch.tensor(pair_logits(w, chosen - rejected, chosen + rejected))
    # The logits of A and B, of which only the difference matters.
    logits = torch.cat([torch.stack([both[:, i], torch.zeros(NUM_PAIRS)], dim=1) for i in (0, 1)])
    labels = torch.tensor([0] * NUM_PAIRS + [1] * NUM_PAIRS)
    expected = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(two_order_loss(both), expected)
    assert two_order_loss(torch.zeros(3, 2)).item() == pytest.approx(np.log(2))


def test_swapping_negates_the_score_and_keeps_the_bias_to_the_bit() -> None:
    (a, b), w = features(), vector()
    one, other = pair_logits(w, a - b, a + b), pair_logits(w, b - a, b + a)
    np.testing.assert_array_equal(scores(one), -scores(other))
    np.testing.assert_array_equal(slot_biases(one), slot_biases(other))
    assert np.abs(slot_biases(one)).min() > 0


def test_score_and_bias_give_back_the_logits() -> None:
    (a, b), w = features(), vector()
    both = pair_logits(w, a - b, a + b)
    np.testing.assert_allclose(scores(both) + slot_biases(both), both[:, 0], atol=1e-12)
    np.testing.assert_array_equal(right_margins(both), np.concatenate([both[:, 0], -both[:, 1]]))


def test_antisymmetric_weights_get_an_antisymmetric_gradient_to_the_bit() -> None:
    (a, b), half = features(), vector()[:DIM]
    gradient = pair_gradient(np.concatenate([half, -half, [0.0]]), a - b, a + b)
    np.testing.assert_array_equal(gradient[:DIM], -gradient[DIM:-1])
    assert gradient[-1] == 0 and gradient.any()


def test_fresh_weights_have_no_position_bias_and_follow_their_address() -> None:
    from fedpref.models import Given

    head = PairHead(Given(DIM), lr=1.0, init_std=0.5)
    first, again, other = (head.fresh(generator(0, "fresh", n)) for n in (0, 0, 1))
    np.testing.assert_array_equal(first[WEIGHT][:, :DIM], -first[WEIGHT][:, DIM:])
    np.testing.assert_array_equal(first[WEIGHT], again[WEIGHT])
    assert not np.array_equal(first[WEIGHT], other[WEIGHT])
    assert first[WEIGHT].shape == (1, 2 * DIM) and first[BIAS].shape == (1,) and not first[BIAS].any()
    assert all(array.dtype == np.float32 for array in first.values())
    assert not PairHead(Given(DIM), lr=1.0).fresh(generator(0, "fresh"))[WEIGHT].any()
