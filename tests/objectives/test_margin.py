from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fedpref.objectives.margin import bradley_terry_loss, bradley_terry_pull, centre_penalty, mean_loss

MARGINS = np.array([-800.0, -30.0, -1.5, 0.0, 0.3, 2.0, 40.0, 800.0])


def test_the_pull_is_minus_the_derivative_of_the_loss() -> None:
    margins = torch.tensor(MARGINS, requires_grad=True)
    (gradient,) = torch.autograd.grad(bradley_terry_loss(margins), margins)
    np.testing.assert_allclose(bradley_terry_pull(MARGINS), -len(MARGINS) * gradient.numpy(), rtol=1e-12)


def test_equal_rewards_cost_log_two() -> None:
    assert bradley_terry_loss(torch.zeros(3)).item() == pytest.approx(math.log(2))
    assert mean_loss(np.zeros(3)) == pytest.approx(math.log(2))


def test_numpy_and_torch_agree_on_the_loss() -> None:
    assert mean_loss(MARGINS) == pytest.approx(bradley_terry_loss(torch.tensor(MARGINS)).item(), rel=1e-12)


def test_extreme_margins_give_finite_pulls_between_zero_and_one() -> None:
    pulls = bradley_terry_pull(np.array([-1e300, 1e300]))
    assert pulls.tolist() == [1.0, 0.0]


def test_the_pulls_of_a_pair_and_of_its_swapped_twin_sum_to_one() -> None:
    np.testing.assert_allclose(bradley_terry_pull(MARGINS) + bradley_terry_pull(-MARGINS), 1.0)


def test_the_pull_keeps_single_precision() -> None:
    assert bradley_terry_pull(MARGINS.astype(np.float32)).dtype == np.float32


def test_a_shift_of_both_rewards_leaves_the_loss_but_not_the_centre_penalty() -> None:
    chosen, rejected, shift = (torch.tensor(row) for row in ([1.0, -2.0], [0.5, 0.0], [3.0, -7.0]))
    shifted = bradley_terry_loss((chosen + shift) - (rejected + shift))
    assert shifted.item() == pytest.approx(bradley_terry_loss(chosen - rejected).item(), rel=1e-6)
    assert centre_penalty(chosen + shift, rejected + shift) != centre_penalty(chosen, rejected)


def test_loss_and_centre_penalty_are_those_of_trl_computed_by_hand() -> None:
    chosen, rejected = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 3.0])
    by_hand = (math.log1p(math.exp(-1)) + math.log1p(math.exp(3))) / 2 + 0.01 * (3.0**2 + 3.0**2) / 2
    ours = bradley_terry_loss(chosen - rejected) + 0.01 * centre_penalty(chosen, rejected)
    assert ours.item() == pytest.approx(by_hand, rel=1e-6)
