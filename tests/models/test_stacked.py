"""Rows of stacked weights: each takes the steps of AdamW, whoever is beside it."""

import numpy as np
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


def adamw(start: dict[str, np.ndarray], client: int, steps: list[int], mu: float) -> dict[str, np.ndarray]:
    """PyTorch's, with the gradients of the steps in the list."""
    parameters = {key: torch.nn.Parameter(torch.tensor(array)) for key, array in start.items()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=LR, betas=(0.9, 0.95), weight_decay=0.0)
    for step in steps:
        for key, parameter in parameters.items():
            pull = mu * (parameter.detach() - torch.tensor(start[key]))
            parameter.grad = torch.tensor(gradient(client, step, key, tuple(parameter.shape))) + pull
        optimizer.step()
    return {key: parameter.detach().numpy() for key, parameter in parameters.items()}


def write(stack: Stacked, step: int) -> None:
    for key, array in stack.gradients.items():
        for client in range(len(array)):
            array[client] = gradient(client, step, key, array.shape[1:])


def test_rows_with_unequal_steps_end_where_torch_ends_each_alone() -> None:
    starts, num_steps = members(4), [7, 7, 3, 1]
    for mu in (0.0, 0.5):
        stack = Stacked(starts)
        for step in range(7):
            write(stack, step)
            stack.step(sum(steps > step for steps in num_steps), LR, mu)
        for client, steps in enumerate(num_steps):
            expected = adamw(starts[client], client, list(range(steps)), mu)
            for key, array in stack.of(client).items():
                np.testing.assert_allclose(array, expected[key], atol=1e-6)


def test_a_row_that_is_done_does_not_move_and_neither_do_its_moments() -> None:
    stack = Stacked(members(2))
    write(stack, 0)
    stack.step(2, LR)
    done = stack.of(1)
    for step in range(1, 5):
        write(stack, step)
        stack.step(1, LR)
    for key, array in stack.of(1).items():
        np.testing.assert_array_equal(array, done[key])
    write(stack, 5)
    stack.step(2, LR)  # its second step, of which the others in between say nothing
    expected = adamw(members(2)[1], 1, [0, 5], 0.0)
    for key, array in stack.of(1).items():
        np.testing.assert_allclose(array, expected[key], atol=1e-6)


def test_a_step_with_a_gradient_that_is_no_number_is_skipped_by_its_row_alone() -> None:
    starts = members(3)
    stack = Stacked(starts)
    for step in range(4):
        write(stack, step)
        if step in (0, 2):
            stack.gradients["b"][1, 3] = np.inf if step else np.nan
        stack.step(3, LR)
    assert stack.skipped.tolist() == [0, 2, 0]
    for client, steps in enumerate([[0, 1, 2, 3], [1, 3], [0, 1, 2, 3]]):
        expected = adamw(starts[client], client, steps, 0.0)
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
