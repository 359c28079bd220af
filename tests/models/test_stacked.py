"""Rows of stacked weights: each takes the steps of AdamW, whoever is beside it."""

import numpy as np
import pytest
import torch

from fedpref.models.stacked import Stacked
from fedpref.seeds import generator

LR = 0.05


def members(count: int) -> list[dict[str, np.ndarray]]:
    rng = generator(0, "members")
    shapes = {"a": (2, 3), "b": (4,)}
    return [
        {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
        for _ in range(count)
    ]


def gradient(client: int, step: int, key: str, shape: tuple[int, ...]) -> np.ndarray:
    return generator(1, key, client, step).standard_normal(shape).astype(np.float32)


def adamw(
    start: dict[str, np.ndarray], client: int, steps: int, mu: float = 0.0, size: float = 1.0
) -> dict[str, np.ndarray]:
    """PyTorch's, with the same gradients."""
    parameters = {key: torch.nn.Parameter(torch.tensor(array)) for key, array in start.items()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=LR, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(steps):
        for key, parameter in parameters.items():
            pull = mu * (parameter.detach() - torch.tensor(start[key]))
            parameter.grad = size * torch.tensor(gradient(client, step, key, tuple(parameter.shape))) + pull
        optimizer.step()
    return {key: parameter.detach().numpy() for key, parameter in parameters.items()}


def write(stack: Stacked, step: int, size: float = 1.0) -> None:
    for key, array in stack.gradients.items():
        for client in range(len(array)):
            array[client] = size * gradient(client, step, key, array.shape[1:])


def test_rows_with_unequal_steps_end_where_torch_ends_each_alone() -> None:
    starts, num_steps = members(4), [7, 7, 3, 1]
    for mu in (0.0, 0.5):
        stack = Stacked(starts)
        for step in range(7):
            write(stack, step)
            stack.step(sum(steps > step for steps in num_steps), LR, mu)
        for client, steps in enumerate(num_steps):
            expected = adamw(starts[client], client, steps, mu)
            for key, array in stack.of(client).items():
                np.testing.assert_allclose(array, expected[key], atol=1e-6)


@pytest.mark.parametrize("size", [1e-3, 1e-8])
def test_gradients_as_small_as_epsilon_move_weights_as_far_as_with_torch(size: float) -> None:
    starts = members(2)
    stack = Stacked(starts)
    for step in range(60):
        write(stack, step, size)
        stack.step(2, LR)
    for client, start in enumerate(starts):
        expected = adamw(start, client, 60, size=size)
        for key, array in stack.of(client).items():
            np.testing.assert_allclose(array, expected[key], atol=1e-5)


def test_a_row_that_is_done_does_not_move() -> None:
    stack = Stacked(members(2))
    write(stack, 0)
    stack.step(2, LR)
    done = stack.of(1)
    for step in range(1, 5):
        write(stack, step)
        stack.step(1, LR)
    for key, array in stack.of(1).items():
        np.testing.assert_array_equal(array, done[key])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_no_number_shows_in_its_row_for_good_and_in_no_other(value: float) -> None:
    starts = members(3)
    stack = Stacked(starts)
    with np.errstate(invalid="ignore"):
        for step in range(4):
            write(stack, step)
            if step == 1:
                stack.gradients["b"][1, 3] = value
            stack.step(3, LR)
    assert np.isfinite(stack.flat).all(axis=1).tolist() == [True, False, True]
    for client in (0, 2):
        expected = adamw(starts[client], client, 4)
        for key, array in stack.of(client).items():
            np.testing.assert_allclose(array, expected[key], atol=1e-6)


def test_what_has_no_gradient_keeps_its_bits() -> None:
    starts = members(2)
    stack = Stacked(starts)
    for step in range(3):
        write(stack, step)
        stack.gradients["a"][...] = 0
        stack.step(2, LR, mu=0.3)
    for client, start in enumerate(starts):
        np.testing.assert_array_equal(stack.of(client)["a"], start["a"])


def test_the_weights_that_came_are_not_changed() -> None:
    starts = members(2)
    stack = Stacked(starts)
    write(stack, 0)
    stack.step(2, LR)
    for start, again in zip(starts, members(2), strict=True):
        for key, array in start.items():
            np.testing.assert_array_equal(array, again[key])
