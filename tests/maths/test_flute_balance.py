import numpy as np
import pytest

from fedpref.maths.flute import balance_defect, balanced_factors, balanced_step, stable_rate
from fedpref.seeds import generator

DIM, CLIENTS, RANK = 20, 15, 3


def factors(seed: int = 0, scale: float = 1.0, clients: int = CLIENTS) -> tuple[np.ndarray, np.ndarray]:
    rng = generator(seed, "factors")
    return scale * rng.standard_normal((DIM, RANK)), scale * rng.standard_normal((clients, RANK))


def factors_of_rank(rank: int) -> tuple[np.ndarray, np.ndarray]:
    rng = generator(1, "wanted")
    return rng.standard_normal((DIM, rank)), rng.standard_normal((CLIENTS, rank))


def models(representation: np.ndarray, heads: np.ndarray) -> np.ndarray:
    product: np.ndarray = representation @ heads.T
    return product


def best_of_rank(wanted: np.ndarray, rank: int) -> np.ndarray:
    left, sizes, right = np.linalg.svd(wanted, full_matrices=False)
    best: np.ndarray = left[:, :rank] * sizes[:rank] @ right[:rank]
    return best


def gap(of: np.ndarray) -> float:
    return float(np.abs(of).max())


def test_the_step_is_the_gradient_of_the_squared_defect() -> None:
    both = factors()
    rate, width = 1e-3, 1e-6

    def squared(b: np.ndarray, w: np.ndarray) -> float:
        return float(np.sum(balance_defect(b, w) ** 2))

    moved = balanced_step(*both, rate)
    for which, (old, new) in enumerate(zip(both, moved, strict=True)):
        nudge = np.zeros_like(old)
        nudge[1, 2] = width
        ends = [
            squared(*(x + sign * nudge if place == which else x for place, x in enumerate(both)))
            for sign in (1, -1)
        ]
        slope = (ends[0] - ends[1]) / (2 * width)
        assert (new - old)[1, 2] == pytest.approx(-rate * slope / 4, rel=1e-6)


def descent(
    rounds: int, balance: float, server_svd: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """FLUTE with X = I: client i holds the whole vector phi_i, and its loss is |B w_i - phi_i|^2 / 2."""
    left, right = (np.linalg.qr(side)[0] for side in factors_of_rank(CLIENTS))
    wanted = left * np.linspace(8, 1, CLIENTS) @ right.T  # its best models of each rank are unique
    representation, heads = factors(seed=2, scale=0.01)
    for _ in range(rounds):
        residual = models(representation, heads) - wanted
        # each client steps from the same point; the mean over clients of the rank-one gradients of B
        representation, heads = (
            representation - 0.1 * residual @ heads / CLIENTS,
            heads - 0.1 * residual.T @ representation,
        )
        if balance > 0:
            representation, heads = balanced_step(
                representation, heads, stable_rate(representation, heads, balance)
            )
        if server_svd:
            representation, heads = balanced_factors(representation, heads)
    return representation, heads, wanted


@pytest.mark.parametrize("server_svd", [False, True])
def test_from_a_random_start_the_models_become_the_best_of_their_rank_and_balanced(server_svd: bool) -> None:
    representation, heads, wanted = descent(4000, balance=0.1, server_svd=server_svd)
    assert gap(models(representation, heads) - best_of_rank(wanted, RANK)) < 1e-9  # Eckart and Young
    assert gap(balance_defect(representation, heads)) < 1e-9


def test_without_the_balance_step_the_same_models_are_out_of_balance() -> None:
    representation, heads, wanted = descent(4000, balance=0.0)
    assert gap(models(representation, heads) - best_of_rank(wanted, RANK)) < 1e-6
    assert gap(balance_defect(representation, heads)) > 1.0


def test_balanced_factors_are_the_same_models_with_orthogonal_directions() -> None:
    representation, heads = factors()
    b, w = balanced_factors(representation, heads)
    np.testing.assert_allclose(models(b, w), models(representation, heads), atol=1e-12)
    np.testing.assert_allclose(balance_defect(b, w), 0.0, atol=1e-12)
    sizes = np.linalg.svd(models(representation, heads), compute_uv=False)[:RANK]
    np.testing.assert_allclose(b.T @ b, np.diag(sizes), atol=1e-12)


@pytest.mark.parametrize("clients", [1, RANK - 1])
def test_fewer_clients_than_directions_leave_the_factors(clients: int) -> None:
    representation, heads = factors(clients=clients)
    b, w = balanced_factors(representation, heads)
    assert b is representation and w is heads


def test_heads_of_zero_leave_the_factors() -> None:
    representation, heads = factors()
    assert balanced_factors(representation, 0 * heads)[0] is representation


@pytest.mark.parametrize("clients", [3, 30, 3000])
@pytest.mark.parametrize("size", [0.01, 1.0, 100.0])
def test_steps_of_a_stable_rate_balance_any_number_of_clients_at_any_scale(clients: int, size: float) -> None:
    representation, heads = factors(clients=clients)
    heads = size * heads
    for _ in range(1000):
        representation, heads = balanced_step(representation, heads, stable_rate(representation, heads, 0.1))
    scale = np.linalg.norm(representation, 2) ** 2
    assert gap(balance_defect(representation, heads)) < 1e-6 * scale


def test_two_zero_factors_have_no_rate() -> None:
    assert stable_rate(np.zeros((4, 2)), np.zeros((3, 2)), 0.1) == 0
