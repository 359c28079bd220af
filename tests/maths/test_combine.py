import dataclasses

import numpy as np
import pytest

from fedpref.errors import ConfigurationError
from fedpref.maths.combine import WeightedMean, normalised
from fedpref.maths.lora import FreezeA, SvdMean, interference, mean_terms, truncated_mean, turned_towards
from fedpref.maths.weights import add_delta
from fedpref.seeds import generator
from fedpref.types import Update, Weights

A, B, HEAD = "layer.lora_A.weight", "layer.lora_B.weight", "score.weight"
RNG = generator(0, "unused")


def lora_weights(seed: int, rank: int = 2, d_in: int = 5, d_out: int = 4) -> Weights:
    rng = generator(seed, "lora")
    shapes = {A: (rank, d_in), B: (d_out, rank), HEAD: (1, 3)}
    return {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}


def updates_from(base: Weights, locals_: list[Weights]) -> list[Update]:
    return [Update(local, base, 10, {}, i) for i, local in enumerate(locals_)]


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


@pytest.mark.parametrize("d_in", [5, 50])  # smaller and larger than all ranks together
def test_interference_is_the_relative_gap_between_mean_product_and_product_of_means(d_in: int) -> None:
    locals_, parts = [lora_weights(seed, d_in=d_in) for seed in range(3)], [0.2, 0.3, 0.5]
    mean_product = sum(p * product(local) for p, local in zip(parts, locals_, strict=True))
    mean_b = sum(p * local[B].astype(float) for p, local in zip(parts, locals_, strict=True))
    mean_a = sum(p * local[A].astype(float) for p, local in zip(parts, locals_, strict=True))
    expected = np.linalg.norm(mean_product - mean_b @ mean_a) / np.linalg.norm(mean_product)
    base = lora_weights(9, d_in=d_in)
    assert interference(base, updates_from(base, locals_), parts) == pytest.approx(expected, rel=1e-10)


def test_equal_factors_do_not_interfere_and_plain_heads_have_none() -> None:
    same = lora_weights(0)
    assert interference(same, updates_from(same, [same, same]), [0.5, 0.5]) == pytest.approx(0, abs=1e-7)
    head = {HEAD: same[HEAD]}
    assert interference(head, updates_from(head, [head]), [1.0]) is None


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


def stale_updates(base: Weights) -> list[Update]:
    """Two fresh updates and a stale one, that count once, half and a third."""
    fresh = updates_from(base, [lora_weights(1), lora_weights(2)])
    stale = Update(lora_weights(3), lora_weights(4), 10, {}, 2)
    return [
        dataclasses.replace(update, factor=factor)
        for update, factor in zip([*fresh, stale], [1.0, 0.5, 1 / 3], strict=True)
    ]


def exact_product(base: Weights, updates: list[Update], parts: list[float]) -> np.ndarray:
    """The base, moved by what each client changed in its own product BA."""
    moved = product(base)
    for update, part in zip(updates, parts, strict=True):
        moved = moved + part * update.factor * (product(update.weights) - product(update.received))
    return moved


def test_the_terms_of_stale_and_discounted_updates_sum_to_the_exact_product_and_to_one() -> None:
    base, parts = lora_weights(0), [0.2, 0.3, 0.5]
    updates = stale_updates(base)
    models, coefficients = mean_terms(base, updates, parts)
    total = sum(c * product(model) for c, model in zip(coefficients, models, strict=True))
    np.testing.assert_allclose(total, exact_product(base, updates, parts), atol=1e-12)
    assert sum(coefficients) == pytest.approx(1, abs=1e-15)


def test_fresh_updates_that_count_once_are_averaged_without_their_base() -> None:
    base, locals_ = lora_weights(0), [lora_weights(1), lora_weights(2)]
    models, coefficients = mean_terms(base, updates_from(base, locals_), [0.25, 0.75])
    assert models == locals_ and coefficients == [0.25, 0.75]


def test_svd_mean_is_the_best_approximation_of_the_exact_product_of_stale_updates() -> None:
    base, parts = lora_weights(0), [0.2, 0.3, 0.5]
    updates = stale_updates(base)
    combined = SvdMean()(base, updates, parts, range(3), RNG)
    exact = exact_product(base, updates, parts)
    singular = np.linalg.svd(exact, compute_uv=False)
    lost = np.linalg.norm(exact - product(add_delta(base, combined.delta))) ** 2
    assert lost == pytest.approx(np.sum(singular[2:] ** 2), rel=1e-5)
    assert combined.metrics["svd_energy_lost"] == pytest.approx(lost / np.sum(singular**2), rel=1e-5)


def test_svd_updates_that_count_for_nothing_leave_the_product() -> None:
    base = lora_weights(0)
    updates = [dataclasses.replace(update, factor=0.0) for update in stale_updates(base)]
    combined = SvdMean()(base, updates, [1, 1, 1], range(3), RNG)
    np.testing.assert_allclose(product(add_delta(base, combined.delta)), product(base), atol=1e-5)


def test_interference_of_stale_updates_is_the_gap_to_their_exact_product() -> None:
    base, parts = lora_weights(0), [0.2, 0.3, 0.5]
    updates = stale_updates(base)
    averaged = WeightedMean()(base, updates, parts, range(3), RNG)
    exact = exact_product(base, updates, parts)
    factors = {key: base[key] + averaged.delta[key] for key in base}
    gap = np.linalg.norm(exact - factors[B] @ factors[A]) / np.linalg.norm(exact)
    assert averaged.metrics["lora_interference"] == pytest.approx(gap, rel=1e-9)


def test_freeze_a_averages_stale_discounted_updates_exactly() -> None:
    base = lora_weights(0)
    updates = [
        dataclasses.replace(
            update,
            weights={**update.weights, A: base[A]},
            received={**update.received, A: base[A]},
        )
        for update in stale_updates(base)
    ]
    combined = FreezeA()(base, updates, [0.2, 0.3, 0.5], range(3), RNG)
    expected = exact_product(base, updates, [0.2, 0.3, 0.5])
    np.testing.assert_allclose(product(add_delta(base, combined.delta)), expected, atol=1e-5)
    assert combined.metrics["lora_interference"] == pytest.approx(0, abs=1e-6)


def test_a_factor_scales_an_update_after_the_shares_were_normalised() -> None:
    base, locals_ = lora_weights(0), [lora_weights(1), lora_weights(2)]
    first, second = updates_from(base, locals_)
    combined = WeightedMean()(base, [first, dataclasses.replace(second, factor=0.5)], [1, 3], range(2), RNG)
    expected = 0.25 * first.delta[HEAD] + 0.375 * second.delta[HEAD]
    np.testing.assert_allclose(combined.delta[HEAD], expected, rtol=1e-12)


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
