"""Labels, hidden truth and the population as a whole, mostly on Gaussian attributes."""

from __future__ import annotations

import gc
import math
import pickle
import pickletools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fedpref.data.synthetic import Synthetic, SyntheticTruth
from fedpref.data.synthetic.annotators import Annotator
from fedpref.data.synthetic.judging import Judgement
from fedpref.types import HeldOut, Pairs, Population, Shard


def draw(seed: int = 0, **given: Any) -> Population:
    return Synthetic(**{"form": "attributes", **given}).population(seed)


def truth_of(population: Population) -> SyntheticTruth:
    assert isinstance(population.truth, SyntheticTruth)
    return population.truth


def owners(population: Population) -> list[Shard | HeldOut]:
    return [*population.shards, *population.held_out]


def columns(pairs: Pairs) -> tuple[Any, ...]:
    sides = (pairs.chosen, pairs.rejected)
    texts = tuple(side.tobytes() if isinstance(side, np.ndarray) else tuple(side) for side in sides)
    return (*texts, tuple(pairs.prompts), tuple(pairs.pair_ids), tuple(pairs.topics))


def everything(population: Population) -> list[Any]:
    truth = truth_of(population)
    visible = [columns(owner.pairs) for owner in owners(population)]
    hidden = [j.p_chosen.tobytes() + j.psi_chosen.tobytes() for j in (*truth.training, *truth.held_out)]
    return [*visible, *hidden, truth.groups]


def label_accuracy(population: Population, direction: np.ndarray) -> np.ndarray:
    """Expected label accuracy of a linear reward on each held-out set."""
    truth = truth_of(population)
    accuracies = []
    for index, judgement in enumerate(truth.held_out):
        p = truth.p_chosen(index)
        prefers_chosen = (judgement.psi_chosen - judgement.psi_rejected) @ direction > 0
        accuracies.append(np.where(prefers_chosen, p, 1.0 - p).mean())
    return np.array(accuracies)


def bradley_terry(population: Population) -> np.ndarray:
    """Maximum-likelihood direction of all training pairs together, by Newton's method."""
    z = np.concatenate([j.psi_chosen - j.psi_rejected for j in truth_of(population).training])
    theta = np.zeros(z.shape[1])
    for _ in range(12):
        p = 1.0 / (1.0 + np.exp(z @ theta))
        theta += np.linalg.solve((z * (p * (1.0 - p))[:, None]).T @ z, z.T @ p)
    return theta


def worst_group(groups: Sequence[int], accuracy: np.ndarray) -> float:
    return min(float(accuracy[np.array(groups) == group].mean()) for group in set(groups))


CLEAN: dict[str, Any] = {"beta_spread": 0.0, "flips": 0.0}

# ---------------------------------------------------------------------------- analytic values


@pytest.mark.parametrize("mode", ["iid", "neg", "near"])
@pytest.mark.parametrize("beta", [1.0, 3.0, 6.0])
def test_bayes_accuracy_is_that_of_a_standard_normal_margin(beta: float, mode: str) -> None:
    population = draw(num_clients=20, test_pairs=2000, beta=beta, candidates=mode, **CLEAN)
    z = np.linspace(-8.0, 8.0, 4001)
    density = np.exp(-z * z / 2.0) / np.exp(-z * z / 2.0).sum()
    exact = float(density @ (1.0 / (1.0 + np.exp(-beta * np.abs(z)))))
    # Four standard errors of 40,000 pairs, each with a standard deviation below 0.15.
    assert truth_of(population).bayes_accuracy().mean() == pytest.approx(exact, abs=0.003)
    # The closed form replaces the logistic by a probit of slope 1.702, which is poorest at small beta.
    assert 0.5 + math.atan(beta / 1.702) / math.pi == pytest.approx(exact, abs=0.007)


@pytest.mark.parametrize("angle", [0.5, 1.5, 2.5])
def test_accuracy_of_a_tilted_direction_follows_its_cosine(angle: float) -> None:
    population = draw(preset="homog", num_clients=60, test_pairs=1000, **CLEAN)
    person = truth_of(population).annotators[0]
    tilted = math.cos(angle) * person.theta + math.sin(angle) * person.turn
    t = 3.0 / 1.702
    expected = 0.5 + math.asin(math.cos(angle) * t / math.sqrt(1 + t * t)) / math.pi
    assert label_accuracy(population, tilted).mean() == pytest.approx(expected, abs=0.006)


def test_a_model_stale_by_an_angle_loses_the_angle_over_pi() -> None:
    population = draw(preset="drift", num_clients=60, test_pairs=1000)
    truth = truth_of(population)
    right = []
    for person, judgement in zip(truth.annotators, truth.held_out, strict=True):
        prefers_chosen = (judgement.psi_chosen - judgement.psi_rejected) @ person.theta > 0
        right.append((prefers_chosen == (judgement.p_chosen > 0.5)).mean())
    assert np.mean(right) == pytest.approx(1.0 - (math.pi / 3) / math.pi, abs=0.008)


@pytest.mark.parametrize("preset", ["clusters", "cyclic"])
def test_margins_have_unit_variance(preset: str) -> None:
    truth = truth_of(draw(preset=preset, num_clients=40, test_pairs=1000, beta=1.0, beta_spread=0.0))
    p = np.concatenate([judgement.p_chosen for judgement in truth.held_out])
    # The fourth moment of the cyclic form is 9 at most: standard error sqrt(8 / 40,000) = 0.014.
    assert np.mean(np.log(p / (1.0 - p)) ** 2) == pytest.approx(1.0, abs=0.05)


def test_no_linear_reward_beats_chance_on_cyclic_tastes() -> None:
    population = draw(preset="cyclic", test_pairs=400)
    assert label_accuracy(population, bradley_terry(population)).mean() == pytest.approx(0.5, abs=0.01)
    assert truth_of(population).bayes_accuracy().mean() > 0.75


def test_pooled_bradley_terry_reaches_the_reference_figures() -> None:
    for preset, mean, worst in (("clusters", 0.733, 0.677), ("conflict", 0.713, 0.392)):
        rows = []
        for seed in range(10):
            population = draw(seed, preset=preset)
            accuracy = label_accuracy(population, bradley_terry(population))
            oracle = truth_of(population).bayes_accuracy().mean()
            rows.append((accuracy.mean(), worst_group(truth_of(population).groups, accuracy), oracle))
        found = np.mean(rows, axis=0)
        # Populations scatter by 0.016 in the mean and 0.05 in the worst group at most.
        np.testing.assert_allclose(found, (mean, worst, 0.827), atol=0.02)


def test_pooled_regret_vanishes_when_all_are_alike() -> None:
    population = draw(preset="homog")
    regret = truth_of(population).bayes_accuracy() - label_accuracy(population, bradley_terry(population))
    assert 0.0 <= regret.mean() <= 0.006


# ------------------------------------------------------------------------------------- labels


def clean_share(population: Population) -> float:
    """Share of training labels on the side that the annotator truly prefers."""
    p = np.concatenate([judgement.p_chosen for judgement in truth_of(population).training])
    return float((p > 0.5).mean())


def test_flips_turn_round_their_share_of_the_labels() -> None:
    for flips in (0.0, 0.2, 1.0):
        judgements = truth_of(draw(flips=flips)).training
        flipped = np.concatenate([judgement.is_flipped for judgement in judgements])
        assert flipped.mean() == pytest.approx(flips, abs=0.02)


def test_flipping_all_labels_swaps_chosen_and_rejected() -> None:
    straight, turned = draw(flips=0.0, num_clients=5), draw(flips=1.0, num_clients=5)
    for a, b in zip(straight.shards, turned.shards, strict=True):
        np.testing.assert_array_equal(a.pairs.chosen, b.pairs.rejected)
        np.testing.assert_array_equal(a.pairs.rejected, b.pairs.chosen)


def test_adversaries_invert_and_spammers_guess() -> None:
    rates: dict[str, Any] = {"flips": 0.0, "beta": 20.0, "mean_pairs": 200}
    honest = clean_share(draw(**rates))
    assert clean_share(draw(**rates, adversaries=1.0)) == pytest.approx(1.0 - honest, abs=1e-12)
    assert clean_share(draw(**rates, spammers=1.0)) == pytest.approx(0.5, abs=0.015)


def test_labels_follow_the_probability_of_the_noise_model() -> None:
    truth = truth_of(draw(num_clients=60, mean_pairs=600, pairs_spread=0.0, flips=0.1))
    p_first, first = [], []
    for judgement in truth.training:
        p = np.where(judgement.takes_first, judgement.p_chosen, 1.0 - judgement.p_chosen)
        p_first.append(0.1 + 0.8 * p)
        first.append(judgement.takes_first)
    p, label = np.concatenate(p_first), np.concatenate(first)
    for low in np.arange(0.1, 0.9, 0.1):
        rows = (p >= low) & (p < low + 0.1)
        error = 0.5 / math.sqrt(rows.sum())
        assert label[rows].mean() == pytest.approx(p[rows].mean(), abs=4 * error)


def test_outliers_are_the_pairs_of_largest_margin() -> None:
    truth = truth_of(draw(preset="outlier", num_clients=10, mean_pairs=100, pairs_spread=0.0))
    for judgement in truth.training:
        certainty = np.abs(judgement.p_chosen - 0.5)
        assert judgement.is_flipped.sum() == 10
        assert certainty[judgement.is_flipped].min() >= certainty[~judgement.is_flipped].max()


def test_position_bias_favours_one_slot_of_each_annotator_in_training_only() -> None:
    truth = truth_of(draw(position_bias=30.0, mean_pairs=200, test_pairs=400, pairs_spread=0.0))
    training = np.array([judgement.takes_first.mean() for judgement in truth.training])
    held_out = np.array([judgement.takes_first.mean() for judgement in truth.held_out])
    assert np.median(np.abs(training - 0.5)) > 0.4
    # Four standard errors of a fair coin thrown 400 times.
    assert np.abs(held_out - 0.5).max() < 4 * 0.5 / math.sqrt(400)


@pytest.mark.parametrize("preset", ["clusters", "unreliable", "outlier"])
def test_held_out_labels_are_clean_draws(preset: str) -> None:
    truth = truth_of(draw(preset=preset, test_pairs=400))
    p = np.concatenate([judgement.p_chosen for judgement in truth.held_out])
    assert not any(judgement.is_flipped.any() for judgement in truth.held_out)
    # A label drawn from p lies on the likelier side with probability max(p, 1 - p).
    assert (p > 0.5).mean() == pytest.approx(np.maximum(p, 1.0 - p).mean(), abs=0.008)


# ---------------------------------------------------------------------------- the whole of it


@pytest.mark.parametrize(("form", "dim"), [("attributes", 12), ("embedding", 64)])
def test_vector_forms_show_float32_vectors(form: str, dim: int) -> None:
    population = draw(form=form, num_clients=2)
    for owner in owners(population):
        chosen = owner.pairs.chosen
        assert isinstance(chosen, np.ndarray) and chosen.dtype == np.float32
        assert chosen.shape == (len(owner.pairs), dim)
        assert set(owner.pairs.prompts) == {""}


def test_embeddings_tell_the_attributes() -> None:
    population = draw(form="embedding", num_clients=40)
    z = np.concatenate([np.subtract(s.pairs.chosen, s.pairs.rejected) for s in population.shards]).astype(
        float
    )
    target = np.concatenate([j.psi_chosen - j.psi_rejected for j in truth_of(population).training])
    fitted = z @ np.linalg.lstsq(z, target, rcond=None)[0]
    assert np.var(target - fitted) < 0.1 * np.var(target)


def test_the_visible_vectors_are_the_hidden_attributes() -> None:
    population = draw(num_clients=3)
    for shard, judgement in zip(population.shards, truth_of(population).training, strict=True):
        np.testing.assert_array_equal(shard.pairs.chosen, judgement.psi_chosen.astype(np.float32))
        np.testing.assert_array_equal(shard.pairs.rejected, judgement.psi_rejected.astype(np.float32))


def test_names_and_pair_ids_are_unique_and_held_out_sets_belong_to_their_clients() -> None:
    population = draw(num_clients=12)
    ids = [pair_id for owner in owners(population) for pair_id in owner.pairs.pair_ids]
    assert len(set(ids)) == len(ids)
    assert population.shards[7].name == population.held_out[7].name == "user-007"
    assert [held_out.client_id for held_out in population.held_out] == list(range(12))


def test_sizes_and_groups_agree_with_the_truth() -> None:
    population = draw(num_clients=20, test_pairs=7)
    truth = truth_of(population)
    assert [len(s.pairs) for s in population.shards] == [a.num_pairs for a in truth.annotators]
    assert all(len(held_out.pairs) == 7 for held_out in population.held_out)
    assert list(truth.groups) == [annotator.group for annotator in truth.annotators]
    assert all(len(truth.p_chosen(index)) == 7 for index in range(20))


def test_topics_concentrate_as_alpha_falls() -> None:
    def topics_a_user(alpha: float) -> float:
        return float(
            np.mean([len(set(s.pairs.topics)) for s in draw(topic_alpha=alpha, mean_pairs=200).shards])
        )

    assert topics_a_user(0.01) < 1.6 < 7.5 < topics_a_user(100.0)


@pytest.mark.parametrize("form", ["attributes", "embedding"])
def test_a_seed_fixes_everything_and_another_seed_changes_it(form: str) -> None:
    assert everything(draw(1, form=form, num_clients=4)) == everything(draw(1, form=form, num_clients=4))
    assert everything(draw(1, form=form, num_clients=4)) != everything(draw(2, form=form, num_clients=4))


def test_a_user_does_not_depend_on_how_many_users_there_are() -> None:
    few, many = draw(num_clients=3), draw(num_clients=8)
    for part in ("shards", "held_out"):
        for a, b in zip(getattr(few, part), getattr(many, part)[:3], strict=True):
            assert columns(a.pairs) == columns(b.pairs)


def test_held_out_pairs_do_not_depend_on_the_noise_of_training() -> None:
    quiet, loud = draw(num_clients=4, flips=0.0), draw(num_clients=4, flips=0.4, position_bias=2.0)
    for a, b in zip(truth_of(quiet).held_out, truth_of(loud).held_out, strict=True):
        assert a.p_chosen.shape == b.p_chosen.shape
        np.testing.assert_array_equal(
            np.maximum(a.p_chosen, 1 - a.p_chosen), np.maximum(b.p_chosen, 1 - b.p_chosen)
        )


def test_no_shard_or_held_out_set_reaches_the_truth() -> None:
    population = draw(num_clients=4)
    for owner in owners(population):
        reached, frontier = set(), [owner.__dict__]
        while frontier:
            thing = frontier.pop()
            assert not isinstance(thing, (SyntheticTruth, Annotator, Judgement))
            if id(thing) not in reached and not isinstance(thing, type):
                reached.add(id(thing))
                frontier.extend(gc.get_referents(thing))
        opcodes = pickletools.genops(pickle.dumps(owner))
        words = " ".join(str(argument) for _, argument, _ in opcodes if isinstance(argument, str))
        assert "synthetic" not in words
