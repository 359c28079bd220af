import numpy as np
import pytest

from fedpref.errors import ConfigurationError
from fedpref.maths.combine import WeightedMean, normalised
from fedpref.maths.lora import FreezeA, SvdMean, interference, truncated_mean, turned_towards
from fedpref.maths.weights import add_delta, difference
from fedpref.seeds import generator
from fedpref.types import Update, Weights

A, B, HEAD = "layer.lora_A.weight", "layer.lora_B.weight", "score.weight"
RNG = generator(0, "unused")


def lora_weights(seed: int, rank: int = 2, d_in: int = 5, d_out: int = 4) -> Weights:
    rng = generator(seed, "lora")
    shapes = {A: (rank, d_in), B: (d_out, rank), HEAD: (1, 3)}
    return {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}


def updates_from(base: Weights, locals_: list[Weights]) -> list[Update]:
    return [Update(local, difference(local, base), 10, {}) for local in locals_]


def product(weights: Weights) -> np.ndarray:
    return weights[B].astype(np.float64) @ weights[A].astype(np.float64)


def test_normalised_shares_sum_to_one_and_refuse_nonsense() -> None:
    assert normalised([1, 3]) == [0.25, 0.75]
    for bad in ([0, 0], [-1, 2], [float("nan"), 1.0], [float("inf"), 1.0]):
        with pytest.raises(ValueError, match="shares"):
            normalised(bad)


def test_weighted_mean_of_one_update_is_that_update_to_the_bit() -> None:
    base, local = lora_weights(0), lora_weights(1)
    combined = WeightedMean()(base, updates_from(base, [local]), [7], [0], RNG)
    moved = add_delta(base, combined.delta)
    assert all(moved[key].tobytes() == local[key].tobytes() for key in base)


def test_permuting_updates_changes_nothing_beyond_rounding() -> None:
    base = lora_weights(0)
    updates = updates_from(base, [lora_weights(seed) for seed in range(1, 6)])
    shares = [1.0, 2.0, 3.0, 4.0, 5.0]
    forward = WeightedMean()(base, updates, shares, range(5), RNG).delta
    backward = WeightedMean()(base, updates[::-1], shares[::-1], range(5), RNG).delta
    for key in base:
        np.testing.assert_allclose(forward[key], backward[key], rtol=1e-12, atol=1e-15)


def test_interference_is_the_relative_gap_between_mean_product_and_product_of_means() -> None:
    locals_, parts = [lora_weights(seed) for seed in range(3)], [0.2, 0.3, 0.5]
    mean_product = sum(p * product(local) for p, local in zip(parts, locals_, strict=True))
    mean_b = sum(p * local[B].astype(float) for p, local in zip(parts, locals_, strict=True))
    mean_a = sum(p * local[A].astype(float) for p, local in zip(parts, locals_, strict=True))
    expected = np.linalg.norm(mean_product - mean_b @ mean_a) / np.linalg.norm(mean_product)
    assert interference(locals_, parts) == pytest.approx(expected, rel=1e-10)


def test_equal_factors_do_not_interfere_and_plain_heads_have_none() -> None:
    same = lora_weights(0)
    assert interference([same, same], [0.5, 0.5]) == pytest.approx(0, abs=1e-7)
    assert interference([{HEAD: same[HEAD]}], [1.0]) is None


def test_svd_mean_is_exact_when_the_mean_product_has_rank_r() -> None:
    base, local = lora_weights(0), lora_weights(1)
    combined = SvdMean()(base, updates_from(base, [local, local]), [1, 1], [0, 1], RNG)
    moved = add_delta(base, combined.delta)
    np.testing.assert_allclose(product(moved), product(local), atol=1e-5)
    np.testing.assert_allclose(moved[HEAD], local[HEAD], atol=1e-6)
    assert combined.metrics["svd_energy_lost"] == pytest.approx(0, abs=1e-12)


def test_svd_mean_is_the_best_rank_r_approximation() -> None:
    locals_, parts = [lora_weights(seed) for seed in range(4)], [0.1, 0.2, 0.3, 0.4]
    b = np.stack([local[B].astype(float) for local in locals_])
    a = np.stack([local[A].astype(float) for local in locals_])
    mean = sum(p * product(local) for p, local in zip(parts, locals_, strict=True))
    singular = np.linalg.svd(mean, compute_uv=False)
    new_b, new_a, lost = truncated_mean(b, a, parts)
    assert np.linalg.norm(mean - new_b @ new_a) ** 2 == pytest.approx(np.sum(singular[2:] ** 2), rel=1e-9)
    assert lost == pytest.approx(np.sum(singular[2:] ** 2) / np.sum(singular**2), rel=1e-9)


def balanced_in_a_turned_basis(seed: int) -> Weights:
    """Factors as any whole svd step leaves them, then turned: the same product in another basis."""
    weights = dict(lora_weights(seed))
    b, a, _ = truncated_mean(weights[B].astype(float)[None], weights[A].astype(float)[None], [1.0])
    q, _ = np.linalg.qr(generator(seed, "basis").normal(size=(2, 2)))
    weights[B], weights[A] = (b @ q).astype(np.float32), (q.T @ a).astype(np.float32)
    return weights


@pytest.mark.parametrize("step", [3 / 53, 0.5, 1.0])
def test_a_part_of_an_svd_step_that_leads_nowhere_leaves_the_product(step: float) -> None:
    base = balanced_in_a_turned_basis(0)
    combined = SvdMean()(base, updates_from(base, [base]), [1], [0], RNG)
    np.testing.assert_allclose(product(add_delta(base, combined.delta, step)), product(base), atol=1e-5)


def test_turning_keeps_the_product_and_comes_nearer_to_the_old_factors() -> None:
    old, new = balanced_in_a_turned_basis(0), lora_weights(1)
    b, a, _ = truncated_mean(new[B].astype(float)[None], new[A].astype(float)[None], [1.0])
    turned_b, turned_a = turned_towards(b, a, old[B].astype(float), old[A].astype(float))
    np.testing.assert_allclose(turned_b @ turned_a, b @ a, atol=1e-12)

    def distance(b: np.ndarray, a: np.ndarray) -> float:
        return float(np.sum((b - old[B]) ** 2) + np.sum((a - old[A]) ** 2))

    assert distance(turned_b, turned_a) < distance(b, a)


def test_truncated_mean_pads_a_matrix_smaller_than_its_rank() -> None:
    rng = generator(0, "small")
    b, a = rng.normal(size=(1, 2, 3)), rng.normal(size=(1, 3, 2))
    new_b, new_a, lost = truncated_mean(b, a, [1.0])
    assert new_b.shape == (2, 3) and new_a.shape == (3, 2) and lost == 0
    np.testing.assert_allclose(new_b @ new_a, b[0] @ a[0], atol=1e-12)


def test_freeze_a_averages_b_exactly_and_refuses_a_trained_a() -> None:
    base = lora_weights(0)
    locals_ = [{**lora_weights(seed), A: base[A]} for seed in (1, 2)]
    moved = add_delta(base, FreezeA()(base, updates_from(base, locals_), [1, 1], [0, 1], RNG).delta)
    expected = (product(locals_[0]) + product(locals_[1])) / 2
    np.testing.assert_allclose(product(moved), expected, atol=1e-5)
    with pytest.raises(ConfigurationError, match=r"client\.freeze_a=true"):
        FreezeA()(base, updates_from(base, [lora_weights(1)]), [1], [0], RNG)


@pytest.mark.parametrize("combine", [SvdMean(), FreezeA()])
def test_lora_operators_refuse_heads_without_factors(combine: SvdMean | FreezeA) -> None:
    base = {HEAD: np.zeros((1, 3), np.float32)}
    with pytest.raises(ConfigurationError, match="LoRA"):
        combine(base, updates_from(base, [base]), [1], [0], RNG)
