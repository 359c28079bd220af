from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cohorts import assert_cohort_equals_singles, assert_parts_equal_singles

from fedpref.clients.flute import Flute
from fedpref.errors import ConfigurationError, FederationError
from fedpref.models import Given
from fedpref.objectives.low_rank import Factors, Phase, descended, factor_gradients, phases_within
from fedpref.objectives.margin import mean_loss
from fedpref.seeds import generator
from fedpref.types import ClientState, Pairs, Personal, Reply, Settings, Shard, Task, Weights

DIM, RANK = 6, 2
B, HEAD = "representation.weight", "head.weight"


def some_pairs(num_pairs: int, seed: int = 0) -> Pairs:
    rng = generator(seed, "pairs")
    left, right = rng.standard_normal((2, num_pairs, DIM)).astype(np.float32)
    likes_left = (left - right) @ np.linspace(-1, 1, DIM) > 0
    chosen, rejected = (np.where(likes_left[:, None], *sides) for sides in ((left, right), (right, left)))
    return Pairs(("",) * num_pairs, chosen, rejected, tuple(map(str, range(num_pairs))), ("",) * num_pairs)


def differences(pairs: Pairs) -> np.ndarray:
    return np.asarray(pairs.chosen, np.float64) - np.asarray(pairs.rejected, np.float64)


def weights_of(seed: int = 1) -> Weights:
    rng = generator(seed, "weights")
    return {
        B: rng.standard_normal((DIM, RANK)).astype(np.float32),
        HEAD: rng.standard_normal((1, RANK)).astype(np.float32),
    }


def factors_of(weights: Weights) -> Factors:
    return Factors(weights[B].astype(np.float64), weights[HEAD][0].astype(np.float64))


def rule(**options: object) -> Flute:
    return Flute(**{"backbone": Given(DIM), "rank": RANK, **options})  # type: ignore[arg-type]


def train(
    learner: Flute, pairs: Pairs, weights: Weights, settings: Settings | None = None, seed: int = 0
) -> Reply:
    task = Task(client_id=0, weights=weights, settings=settings or {})
    reply, kept = learner.answer(task, Shard(0, "a", pairs), ClientState(), generator(seed, "task"))
    assert kept == ClientState()
    return reply


def test_gradients_are_those_of_the_mean_loss() -> None:
    factors, z, width = factors_of(weights_of()), differences(some_pairs(20)), 1e-6
    for place, gradient in enumerate(factor_gradients(factors, z)):
        for index in np.ndindex(gradient.shape):
            nudge = np.zeros(gradient.shape)
            nudge[index] = width
            ends = [
                Factors(*(x + sign * nudge if i == place else x for i, x in enumerate(factors)))
                for sign in (1, -1)
            ]
            slope = (mean_loss(z @ ends[0].vector) - mean_loss(z @ ends[1].vector)) / (2 * width)
            assert gradient[index] == pytest.approx(slope, abs=1e-8)


def test_one_joint_step_moves_both_factors_from_the_same_point() -> None:
    pairs, weights = some_pairs(20), weights_of()
    sent = train(rule(joint_steps=1, lr=0.2, l2=0.0), pairs, weights).weights
    gradients = factor_gradients(factors_of(weights), differences(pairs))
    np.testing.assert_allclose(sent[B], weights[B] - 0.2 * gradients.representation, atol=1e-6)
    np.testing.assert_allclose(sent[HEAD][0], weights[HEAD][0] - 0.2 * gradients.head, atol=1e-6)


@pytest.mark.parametrize(("phase", "frozen"), [("head_steps", B), ("representation_steps", HEAD)])
def test_a_frozen_factor_comes_back_to_the_bit(phase: str, frozen: str) -> None:
    pairs, weights = some_pairs(20), weights_of()
    sent = train(rule(**{"joint_steps": 0, phase: 3}), pairs, weights).weights
    moved = ({B, HEAD} - {frozen}).pop()
    assert sent[frozen].tobytes() == weights[frozen].tobytes()
    assert not np.array_equal(sent[moved], weights[moved])


def test_head_steps_on_a_square_representation_find_the_ridge_optimum() -> None:
    """With B = I the head is an ordinary linear head; its gradient vanishes at the optimum."""
    pairs, l2 = some_pairs(50), 0.1
    weights = {B: np.eye(DIM, dtype=np.float32), HEAD: np.zeros((1, DIM), np.float32)}
    learner = rule(rank=DIM, joint_steps=0, head_steps=600, lr=0.3, l2=l2)
    head = train(learner, pairs, weights).weights[HEAD][0].astype(np.float64)
    gradient = factor_gradients(Factors(np.eye(DIM), head), differences(pairs)).head
    np.testing.assert_allclose(gradient, -l2 * head, atol=1e-6)


def test_weights_start_at_no_preference_and_learn() -> None:
    learner, pairs = rule(joint_steps=100), some_pairs(60)
    fresh = learner.fresh(generator(0, "fresh"))
    assert {key: array.shape for key, array in fresh.items()} == {B: (DIM, RANK), HEAD: (1, RANK)}
    assert not learner.margins(fresh, pairs).any()
    reply = train(learner, pairs, fresh)
    assert reply.metrics["loss_before"] == pytest.approx(np.log(2))
    assert reply.metrics["loss_after"] < 0.6
    assert np.mean(learner.margins(reply.weights, pairs) > 0) > 0.8


def test_settings_cut_the_phases_in_their_order_and_prolong_the_last() -> None:
    phases = [Phase(3, "head"), Phase(2, "representation"), Phase(0, "both")]
    assert phases_within({}, phases) == phases
    counts = {n: [p.steps for p in phases_within({"local_steps": n}, phases)] for n in (0, 2, 4, 5, 7)}
    assert counts == {0: [0, 0, 0], 2: [2, 0, 0], 4: [3, 1, 0], 5: [3, 2, 0], 7: [3, 2, 2]}


def test_the_proximal_term_holds_the_representation() -> None:
    pairs, weights, learner = some_pairs(40), weights_of(), rule(joint_steps=50, lr=0.1)
    moved = [
        np.linalg.norm(train(learner, pairs, weights, {"proximal_mu": mu}).weights[B] - weights[B])
        for mu in (0.0, 1.0, 10.0)
    ]
    assert moved[0] > moved[1] > moved[2] > 0


def test_a_served_head_takes_the_final_steps_with_the_representation_frozen() -> None:
    pairs, weights, learner = some_pairs(30), weights_of(), rule(final_steps=5)
    assert isinstance(learner, Personal)
    served = learner.personalise(weights, Shard(0, "a", pairs), ClientState())
    expected = train(rule(joint_steps=0, head_steps=5), pairs, weights).weights
    assert served[HEAD].tobytes() == expected[HEAD].tobytes()
    assert served[B] is weights[B]


def test_who_has_no_pairs_is_served_what_the_server_gives() -> None:
    weights, learner = weights_of(), rule()
    assert learner.personalise(weights, None, ClientState()) is weights
    assert learner.personalise(weights, Shard(0, "a", some_pairs(0)), ClientState()) is weights


def test_a_client_without_pairs_returns_what_it_received() -> None:
    weights = weights_of()
    reply = train(rule(), some_pairs(0), weights)
    assert (reply.num_pairs, dict(reply.weights)) == (0, dict(weights))


@pytest.mark.parametrize("batch_pairs", [None, 4])
def test_the_work_told_before_is_the_work_reported_after(batch_pairs: int | None) -> None:
    learner = rule(head_steps=3, representation_steps=2, joint_steps=4, batch_pairs=batch_pairs)
    shard, weights = Shard(0, "a", some_pairs(10)), weights_of()
    for settings in ({}, {"local_steps": 4}, {"local_steps": 30}):
        told = learner.workload(Task(0, weights, settings=settings), shard)
        assert told.flops == train(learner, shard.pairs, weights, settings).metrics["flops"] > 0
        assert told.memory_bytes > 8 * DIM * len(shard.pairs)


def test_steps_that_are_not_finite_are_skipped_and_all_of_them_are_a_failure() -> None:
    pairs = some_pairs(6)
    chosen = np.array(pairs.chosen)
    chosen[2, 0] = np.nan
    broken = Pairs(pairs.prompts, chosen, pairs.rejected, pairs.pair_ids, pairs.topics)
    reply = train(rule(joint_steps=12, batch_pairs=1), broken, weights_of())
    assert (reply.metrics["skipped_steps"], reply.metrics["steps_done"]) == (2, 10)
    with pytest.raises(FederationError, match="finite gradient"):
        train(rule(), broken, weights_of())  # the whole shard is one batch


def test_nothing_handed_in_is_changed() -> None:
    weights, z = weights_of(), differences(some_pairs(10))
    before = {key: array.copy() for key, array in weights.items()}
    train(rule(head_steps=2), some_pairs(10), weights, {"proximal_mu": 0.1})
    start = factors_of(weights)
    descended(start, z, [Phase(2, "both")], None, 0.1, 0.1, 0.1, generator(0, "task"))
    for key, array in before.items():
        np.testing.assert_array_equal(weights[key], array)
    np.testing.assert_array_equal(start.representation, before[B])


def test_the_exported_head_gives_the_same_margins(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    weights, pairs, learner = weights_of(), some_pairs(10), rule()
    learner.export(weights, tmp_path)
    score = load_file(tmp_path / "head.safetensors")["score.weight"]
    assert score.shape == (1, DIM)
    np.testing.assert_allclose(differences(pairs) @ score[0], learner.margins(weights, pairs), atol=1e-5)


def test_a_rank_above_the_dimension_of_the_features_is_refused() -> None:
    rule(rank=DIM).fresh(generator(0, "fresh"))
    with pytest.raises(ConfigurationError, match=r"client\.rank: 7 must be at most 6"):
        rule(rank=DIM + 1).fresh(generator(0, "fresh"))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("rank", 0),
        ("head_steps", -1),
        ("final_steps", -1),
        ("batch_pairs", 0),
        ("lr", 0.0),
        ("init_std", 0.0),
        ("l2", -1.0),
    ],
)
def test_options_out_of_range_are_refused_by_name(option: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"client\.{option}"):
        rule(**{option: value})


def test_other_tasks_and_other_weights_are_refused() -> None:
    task = Task(0, weights_of(), kind="score")
    with pytest.raises(ConfigurationError, match="score"):
        rule().answer(task, Shard(0, "a", some_pairs(3)), ClientState(), generator(0, "task"))
    with pytest.raises(ConfigurationError, match="shapes"):
        rule().margins({"score.weight": np.zeros((1, DIM), np.float32)}, some_pairs(3))


def with_nan(pairs: Pairs) -> Pairs:
    chosen = np.array(pairs.chosen)
    chosen[1, 0] = np.nan
    return Pairs(pairs.prompts, chosen, pairs.rejected, pairs.pair_ids, pairs.topics)


@pytest.mark.parametrize("batch_pairs", [None, 4])
def test_a_cohort_gets_what_each_client_gets_alone(batch_pairs: int | None) -> None:
    settings: list[Settings] = [{"local_steps": 2}, {"proximal_mu": 0.5}, {}]
    shards = [Shard(i, str(i), some_pairs(count, i)) for i, count in enumerate((30, 1, 0, 40, 2, 9))]
    if batch_pairs:  # with the whole shard in each batch, no step would be finite
        shards[5] = Shard(5, "5", with_nan(shards[5].pairs))
    tasks = [Task(i, weights_of(i % 2), settings=settings[i % 3]) for i in range(6)]
    with np.errstate(invalid="ignore"):
        assert_cohort_equals_singles(rule(batch_pairs=batch_pairs, l2=0.1), tasks, shards)


@pytest.mark.parametrize("final_steps", [0, 5])
def test_parts_added_together_are_those_added_one_by_one(final_steps: int) -> None:
    pairs = [some_pairs(count, count) for count in (30, 1, 0, 40)]
    shards = [None, *(Shard(i, str(i), own) for i, own in enumerate(pairs))]
    assert_parts_equal_singles(rule(final_steps=final_steps), [weights_of(i % 2) for i in range(5)], shards)
