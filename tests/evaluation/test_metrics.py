from __future__ import annotations

import math

import numpy as np
import pytest

from fedpref.evaluation import metrics
from fedpref.seeds import generator


def test_a_tie_counts_one_half() -> None:
    np.testing.assert_array_equal(metrics.correctness(np.array([2.0, -0.1, 0.0])), [1.0, 0.0, 0.5])


def test_swapping_chosen_and_rejected_turns_correctness_around() -> None:
    margins = np.array([1.5, -2.0, 0.0])
    np.testing.assert_array_equal(metrics.correctness(-margins), 1.0 - metrics.correctness(margins))


def test_expected_correctness_is_p_on_the_predicted_side() -> None:
    expected = metrics.correctness(np.array([1.0, -1.0, 0.0]), np.array([0.9, 0.9, 0.9]))
    np.testing.assert_allclose(expected, [0.9, 0.1, 0.5])


def test_certain_truth_gives_the_label_metrics() -> None:
    margins, certain = np.array([0.3, -1.2, 4.0]), np.ones(3)
    for metric in (metrics.correctness, metrics.log_loss, metrics.brier):
        np.testing.assert_array_equal(metric(margins, certain), metric(margins))
    assert metrics.calibration_error(margins, certain) == metrics.calibration_error(margins)


def test_no_margin_beats_the_bayes_accuracy_and_the_true_log_odds_reach_it() -> None:
    p_chosen = generator(0, "p").uniform(0.05, 0.95, size=50)
    oracle = metrics.bayes_accuracy(p_chosen)
    log_odds = np.log(p_chosen / (1.0 - p_chosen))
    assert metrics.correctness(log_odds, p_chosen).mean() == pytest.approx(oracle, abs=1e-12)
    for draw in range(20):
        guess = generator(0, "guess", draw).normal(size=50)
        assert metrics.correctness(guess, p_chosen).mean() <= oracle


def test_a_coin_has_loss_log_2_and_brier_a_quarter_whatever_the_truth() -> None:
    coin, p_chosen = np.zeros(4), np.array([0.0, 0.2, 0.7, 1.0])
    np.testing.assert_allclose(metrics.log_loss(coin, p_chosen), math.log(2.0))
    np.testing.assert_allclose(metrics.brier(coin, p_chosen), 0.25)


def test_a_confident_mistake_costs_its_margin_and_does_not_overflow() -> None:
    np.testing.assert_allclose(metrics.log_loss(np.array([-1000.0, 1000.0])), [1000.0, 0.0])
    np.testing.assert_allclose(metrics.brier(np.array([-1000.0, 1000.0])), [1.0, 0.0])


def test_a_coin_is_calibrated_although_all_labels_are_chosen() -> None:
    assert metrics.calibration_error(np.zeros(7)) == pytest.approx(0.0, abs=1e-12)


def test_the_true_probability_is_calibrated() -> None:
    p_chosen = np.array([0.1, 0.35, 0.5, 0.8])
    log_odds = np.log(p_chosen / (1.0 - p_chosen))
    assert metrics.calibration_error(log_odds, p_chosen) == pytest.approx(0.0, abs=1e-12)


def test_calibration_error_is_the_gap_of_an_overconfident_model() -> None:
    # It says 9 : 1 on four pairs and is right on three: in both orders the gap is 0.9 - 0.75.
    log_odds = math.log(9.0)
    margins = np.array([log_odds, log_odds, log_odds, -log_odds])
    assert metrics.calibration_error(margins) == pytest.approx(0.15)


def test_certainty_falls_into_the_last_bin_and_not_beyond() -> None:
    assert metrics.calibration_error(np.array([1e9, 1e9])) == 0.0


def test_a_single_model_votes_as_it_is() -> None:
    margins = np.array([0.5, -3.0, 0.0])
    np.testing.assert_array_equal(metrics.vote(margins[None]), margins)


def test_the_majority_of_signs_beats_one_loud_model() -> None:
    voted = metrics.vote(np.array([[1.0], [3.0], [-100.0]]))
    np.testing.assert_array_equal(voted, [2.0])


def test_a_tied_vote_goes_by_the_mean_margin() -> None:
    voted = metrics.vote(np.array([[1.0, 1.0, 2.0], [-3.0, -1.0, 0.0], [0.0, 0.0, -4.0]]))
    np.testing.assert_allclose(voted, [-2.0 / 3.0, 0.0, -2.0 / 3.0])


def test_swapping_the_pair_negates_the_vote_and_the_order_of_models_is_irrelevant() -> None:
    margins = generator(0, "margins").normal(size=(4, 30))
    voted = metrics.vote(margins)
    np.testing.assert_array_equal(metrics.vote(-margins), -voted)
    np.testing.assert_allclose(metrics.vote(margins[::-1]), voted)


def test_the_worst_decile_of_twenty_users_is_the_mean_of_two() -> None:
    accuracies = np.linspace(0.5, 0.9, 20)[::-1]
    assert metrics.worst_decile(accuracies) == pytest.approx((0.5 + 0.5 + 0.4 / 19) / 2)


def test_the_worst_decile_takes_a_user_in_part() -> None:
    # 15 users: one and a half of them count.
    accuracies = np.array([0.2, 0.5] + [0.9] * 13)
    assert metrics.worst_decile(accuracies) == pytest.approx((0.2 + 0.5 * 0.5) / 1.5)


def test_with_fewer_than_ten_users_the_worst_decile_is_the_minimum() -> None:
    assert metrics.worst_decile(np.array([0.8, 0.3, 0.9])) == pytest.approx(0.3)
    assert metrics.worst_decile(np.array([0.7])) == pytest.approx(0.7)


def test_the_worst_group_is_a_mean_over_its_users() -> None:
    accuracies = np.array([0.9, 0.4, 0.8, 0.6])
    assert metrics.worst_group(accuracies, [0, 1, 0, 1]) == pytest.approx(0.5)
    assert metrics.worst_group(accuracies, [3, 3, 3, 3]) == pytest.approx(accuracies.mean())


def test_gini_equals_the_mean_difference_of_its_definition() -> None:
    values = generator(0, "values").uniform(size=11)
    naive = np.abs(values[:, None] - values[None, :]).sum() / (2 * 11**2 * values.mean())
    assert metrics.gini(values) == pytest.approx(naive)


def test_gini_is_zero_for_equals_and_nearly_one_for_a_monopoly() -> None:
    assert metrics.gini(np.full(5, 0.7)) == pytest.approx(0.0, abs=1e-12)
    assert metrics.gini(np.array([0.0, 0.0, 0.0, 1.0])) == pytest.approx(3 / 4)
    assert metrics.gini(np.zeros(3)) == 0.0


def test_the_interval_of_equal_users_is_a_point() -> None:
    counts = np.array([10.0, 30.0, 5.0])
    low, high = metrics.bootstrap_interval(0.7 * counts, counts, generator(0, "bootstrap"))
    assert (low, high) == (pytest.approx(0.7), pytest.approx(0.7))


def test_the_interval_agrees_with_the_normal_approximation() -> None:
    accuracies = generator(0, "users").normal(0.7, 0.1, size=400)
    low, high = metrics.bootstrap_interval(accuracies, np.ones(400), generator(0, "bootstrap"))
    half_width = 1.96 * accuracies.std() / math.sqrt(400)
    assert low == pytest.approx(accuracies.mean() - half_width, abs=0.15 * half_width)
    assert high == pytest.approx(accuracies.mean() + half_width, abs=0.15 * half_width)


def test_the_interval_repeats_with_its_generator() -> None:
    sums, counts = np.array([3.0, 5.0, 9.0]), np.array([10.0, 10.0, 10.0])
    assert metrics.bootstrap_interval(sums, counts, generator(1, "b")) == metrics.bootstrap_interval(
        sums, counts, generator(1, "b")
    )


@pytest.mark.parametrize(
    "metric",
    [
        metrics.worst_decile,
        metrics.gini,
        lambda empty: metrics.worst_group(empty, []),
        lambda empty: metrics.bootstrap_interval(empty, empty, generator(0, "b")),
    ],
)
def test_no_users_have_no_average(metric: object) -> None:
    assert callable(metric)
    with pytest.raises(ValueError, match="no users"):
        metric(np.array([]))


def test_a_truth_of_another_length_is_refused() -> None:
    for metric in (metrics.correctness, metrics.log_loss, metrics.brier, metrics.calibration_error):
        with pytest.raises(ValueError, match=r"\(3,\) and \(1,\)"):
            metric(np.zeros(3), np.array([0.5]))


def test_principal_angles_are_those_by_which_a_plane_was_turned() -> None:
    small, large = 1e-9, 1.1
    true = np.eye(5)[:, :2]
    found = np.zeros((5, 2))
    found[[0, 2], 0] = math.cos(small), math.sin(small)
    found[[1, 3], 1] = math.cos(large), math.sin(large)
    np.testing.assert_allclose(metrics.principal_angles(found, true), [small, large], rtol=1e-6)
    np.testing.assert_allclose(metrics.principal_angles(true, found), [small, large], rtol=1e-6)
    recovered = (math.cos(small) ** 2 + math.cos(large) ** 2) / 2
    assert metrics.span_recovery(found, true) == pytest.approx(recovered)


def test_a_span_is_what_counts_and_not_its_columns() -> None:
    rng = generator(0, "span")
    found, true, mix = rng.normal(size=(8, 3)), rng.normal(size=(8, 2)), rng.normal(size=(3, 5))
    np.testing.assert_allclose(
        metrics.principal_angles(100.0 * found @ mix, true), metrics.principal_angles(found, true), atol=1e-9
    )
    assert metrics.span_recovery(np.concatenate([found, true], axis=1), true) == pytest.approx(1.0)
    turned, _ = np.linalg.qr(true)
    assert metrics.span_recovery(turned[:, :1], turned) == pytest.approx(0.5)
    assert metrics.span_recovery(np.eye(2)[:, :1], np.diag([3.0, 4.0])) == pytest.approx(9 / 25)


def test_main_directions_are_orthonormal_and_hold_the_columns_in_falling_shares() -> None:
    columns = generator(0, "main").normal(size=(6, 3)) @ generator(1, "main").normal(size=(3, 20))
    directions = metrics.main_directions(columns)
    assert directions.shape == (6, 3)
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-12)
    shares = [metrics.span_recovery(directions[:, [i]], columns) for i in range(3)]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1.0)


def test_a_random_span_recovers_its_share_of_the_dimensions() -> None:
    rng, true = generator(0, "random span"), np.eye(12)[:, :3]
    shares = [metrics.span_recovery(rng.normal(size=(12, 4)), true) for _ in range(400)]
    # A share lies in [0, 1]: the standard error of 400 is below 0.5 / 20.
    assert np.mean(shares) == pytest.approx(4 / 12, abs=0.025)


def test_no_angles_to_nothing_or_between_spaces_of_other_dimension() -> None:
    for found in (np.zeros((4, 2)), np.eye(5)):
        with pytest.raises(ValueError, match="no angles"):
            metrics.principal_angles(found, np.eye(4))
        with pytest.raises(ValueError, match="no span"):
            metrics.span_recovery(found, np.eye(4))
