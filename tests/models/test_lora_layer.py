"""LoRA on one frozen layer: the gradients in closed form are those of back-propagation."""

import numpy as np
import torch

from fedpref.models.lora_layer import HEAD, LORA_A, LORA_B, Member, layer_margins, trained, write_gradients
from fedpref.objectives.batches import Drawn
from fedpref.seeds import generator

CLIENTS, PAIRS, H, OUTPUTS, RANK, SCALE = 3, 5, 7, 6, 2, 2.0


def weights() -> dict[str, np.ndarray]:
    shapes = {LORA_A: (RANK, H), LORA_B: (OUTPUTS, RANK), HEAD: (1, OUTPUTS)}
    return {
        key: generator(0, key).standard_normal((CLIENTS, *shape)).astype(np.float32)
        for key, shape in shapes.items()
    }


def rows() -> np.ndarray:
    return generator(0, "rows").standard_normal((CLIENTS, PAIRS, 2, H + OUTPUTS)).astype(np.float32)


def shares() -> np.ndarray:
    """The last pair of the second client is padding."""
    given = np.full((CLIENTS, PAIRS), 1 / PAIRS, np.float32)
    given[1] = [0.25, 0.25, 0.25, 0.25, 0.0]
    return given


def torch_margins(parts: dict[str, torch.Tensor]) -> torch.Tensor:
    features, frozen = torch.tensor(rows()).split([H, OUTPUTS], dim=3)
    change = SCALE * torch.einsum("nor,nrh,npsh->npso", parts[LORA_B], parts[LORA_A], features)
    rewards = torch.einsum("npso,nxo->nps", torch.tanh(frozen + change), parts[HEAD])
    return rewards[:, :, 0] - rewards[:, :, 1]


def test_margins_and_gradients_are_those_of_back_propagation() -> None:
    parts = {key: torch.tensor(array, requires_grad=True) for key, array in weights().items()}
    margins = torch_margins(parts)
    (torch.tensor(shares()) * torch.nn.functional.softplus(-margins)).sum().backward()
    np.testing.assert_allclose(layer_margins(weights(), rows(), SCALE), margins.detach().numpy(), atol=1e-5)
    found = {key: np.empty_like(array) for key, array in weights().items()}
    write_gradients(found, weights(), rows(), shares(), SCALE)
    for key, part in parts.items():
        assert part.grad is not None and part.grad.abs().min() > 0
        np.testing.assert_allclose(found[key], part.grad.numpy(), atol=1e-5)


def test_without_a_the_other_gradients_are_the_same() -> None:
    whole = {key: np.empty_like(array) for key, array in weights().items()}
    some = {key: np.empty_like(array) for key, array in weights().items() if key != LORA_A}
    for found in (whole, some):
        write_gradients(found, weights(), rows(), shares(), SCALE)
    for key, array in some.items():
        np.testing.assert_array_equal(array, whole[key])


def test_padding_has_no_gradient_whatever_it_holds() -> None:
    first, second = ({key: np.empty_like(array) for key, array in weights().items()} for _ in range(2))
    other = rows()
    other[1, PAIRS - 1] = 9.0
    write_gradients(first, weights(), rows(), shares(), SCALE)
    write_gradients(second, weights(), other, shares(), SCALE)
    for key, array in first.items():
        np.testing.assert_allclose(array, second[key], atol=1e-6)


def test_a_pair_that_is_no_number_spoils_its_own_steps_whoever_is_beside_it() -> None:
    steps = [[np.array(batch) for batch in own] for own in ([[0, 1, 2], [3, 4]], [[1], [2, 0], [3]], [[4]])]
    order = [1, 0, 2]  # most steps first
    all_rows, all_weights = rows(), weights()
    all_rows[1, 0] = np.nan
    members = [
        Member({key: array[i] for key, array in all_weights.items()}, all_rows[i], Drawn.of(steps[i]))
        for i in order
    ]
    with np.errstate(invalid="ignore"):
        together = trained(members, SCALE, 0.01, 0.0, False)
        alone = [trained([member], SCALE, 0.01, 0.0, False)[0] for member in members]
    assert [found.skipped for found in together] == [found.skipped for found in alone] == [1, 0, 0]
    for found, expected in zip(together, alone, strict=True):
        for key, array in expected.weights.items():
            assert np.isfinite(array).all()
            np.testing.assert_allclose(found.weights[key], array, atol=1e-6)
