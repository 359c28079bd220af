from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from cohorts import assert_cohort_equals_singles

from fedpref.clients.linear_reward import LinearReward
from fedpref.errors import ConfigurationError, FederationError
from fedpref.models import Given
from fedpref.objectives.grouping import grouping_split
from fedpref.seeds import generator
from fedpref.types import ClientState, Pairs, Reply, Settings, Shard, Task, Weights

DIM = 5


def vector_pairs(num_pairs: int, seed: int = 0, noise: float = 1.0) -> Pairs:
    rng = generator(seed, "pairs")
    truth = np.linspace(-1, 1, DIM)
    left, right = rng.standard_normal((2, num_pairs, DIM))
    likes_left = (left - right) @ truth + noise * rng.logistic(size=num_pairs) > 0
    chosen, rejected = (
        np.where(likes_left[:, None], *sides).astype(np.float32) for sides in ((left, right), (right, left))
    )
    ids = tuple(map(str, range(num_pairs)))
    return Pairs(("",) * num_pairs, chosen, rejected, ids, ("",) * num_pairs)


def weights_of(seed: int = 1) -> Weights:
    return {"score.weight": generator(seed, "weights").standard_normal((1, DIM)).astype(np.float32)}


def rule(**options: object) -> LinearReward:
    return LinearReward(backbone=Given(DIM), **options)  # type: ignore[arg-type]


def train(
    learner: LinearReward, pairs: Pairs, weights: Weights, settings: Settings | None = None, seed: int = 0
) -> Reply:
    task = Task(client_id=0, weights=weights, settings=settings or {})
    return learner.answer(task, Shard(0, "a", pairs), ClientState(), generator(seed, "task"))[0]


def exact_gradient(weights: Weights, pairs: Pairs) -> np.ndarray:
    z = np.asarray(pairs.chosen, np.float64) - np.asarray(pairs.rejected, np.float64)
    result: np.ndarray = -(z / (1 + np.exp(z @ weights["score.weight"][0].astype(np.float64)))[:, None]).mean(
        0
    )
    return result


def swapped(pairs: Pairs) -> Pairs:
    return Pairs(pairs.prompts, pairs.rejected, pairs.chosen, pairs.pair_ids, pairs.topics)


def test_one_full_batch_step_is_one_step_of_gradient_descent() -> None:
    pairs, weights = vector_pairs(40), weights_of()
    reply = train(rule(batch_pairs=None, local_steps=1, lr=0.3), pairs, weights)
    expected = weights["score.weight"][0] - 0.3 * exact_gradient(weights, pairs)
    np.testing.assert_allclose(reply.weights["score.weight"][0], expected, atol=1e-6)


def test_averaged_single_steps_of_clients_are_one_pooled_step() -> None:
    pairs, weights, learner = vector_pairs(60), weights_of(), rule(batch_pairs=None, local_steps=1)
    parts = [pairs.take(range(*bounds)) for bounds in ((0, 7), (7, 30), (30, 60))]
    replies = [train(learner, part, weights) for part in parts]
    mean = sum(r.num_pairs * r.weights["score.weight"].astype(np.float64) for r in replies) / len(pairs)
    np.testing.assert_allclose(mean, train(learner, pairs, weights).weights["score.weight"], atol=1e-6)


def test_many_full_batch_steps_reach_the_ridge_optimum_of_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    pairs, l2 = vector_pairs(200), 0.05
    z = np.asarray(pairs.chosen) - np.asarray(pairs.rejected)
    both = np.concatenate([z, -z]).astype(np.float64)
    labels = np.repeat([1, 0], len(pairs))
    # Twice the rows, so that both classes occur: the penalty per row is the same for half the strength.
    reference = linear_model.LogisticRegression(C=1 / (l2 * len(both)), fit_intercept=False, tol=1e-10)
    reference.fit(both, labels)
    reply = train(rule(batch_pairs=None, local_steps=800, lr=0.5, l2=l2), pairs, weights_of())
    np.testing.assert_allclose(reply.weights["score.weight"], reference.coef_, atol=1e-4)


def test_swapping_chosen_and_rejected_negates_margins_and_the_optimum() -> None:
    pairs, learner = vector_pairs(50), rule(batch_pairs=None, local_steps=400, lr=0.5, l2=0.1)
    weights = weights_of()
    np.testing.assert_array_equal(learner.margins(weights, swapped(pairs)), -learner.margins(weights, pairs))
    found = train(learner, pairs, weights).weights["score.weight"]
    negated = train(learner, swapped(pairs), weights).weights["score.weight"]
    np.testing.assert_allclose(found, -negated, atol=1e-4)


def test_zero_weights_start_at_log_two_and_training_lowers_the_loss() -> None:
    learner = rule(local_steps=50)
    fresh = learner.fresh(generator(0, "fresh"))
    metrics = train(learner, vector_pairs(64), fresh).metrics
    assert metrics["loss_before"] == pytest.approx(math.log(2))
    assert metrics["loss_after"] < metrics["loss_before"]
    assert metrics["steps_done"] == 50


def test_the_task_may_ask_for_other_local_steps() -> None:
    pairs, weights = vector_pairs(20), weights_of()
    short = train(rule(local_steps=3), pairs, weights)
    asked = train(rule(local_steps=30), pairs, weights, {"local_steps": 3})
    np.testing.assert_array_equal(short.weights["score.weight"], asked.weights["score.weight"])
    none = train(rule(), pairs, weights, {"local_steps": 0})
    np.testing.assert_array_equal(none.weights["score.weight"], weights["score.weight"])


def test_one_address_repeats_the_batches_and_another_does_not() -> None:
    pairs, weights, learner = vector_pairs(50), weights_of(), rule(batch_pairs=4)
    first, again, other = (train(learner, pairs, weights, seed=s).weights["score.weight"] for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_proximal_weight_of_zero_is_none_bit_for_bit(optimizer: str) -> None:
    pairs, weights, learner = vector_pairs(50), weights_of(), rule(optimizer=optimizer)
    plain, zero = train(learner, pairs, weights), train(learner, pairs, weights, {"proximal_mu": 0.0})
    assert plain.weights["score.weight"].tobytes() == zero.weights["score.weight"].tobytes()
    assert plain.metrics == zero.metrics


def test_the_proximal_optimum_balances_gradient_and_pull_to_the_received_weights() -> None:
    pairs, weights, mu = vector_pairs(80), weights_of(), 0.7
    reply = train(rule(batch_pairs=None, local_steps=500, lr=0.5), pairs, weights, {"proximal_mu": mu})
    moved = (reply.weights["score.weight"] - weights["score.weight"])[0]
    np.testing.assert_allclose(mu * moved, -exact_gradient(reply.weights, pairs), atol=1e-6)
    assert reply.metrics["inexactness"] == pytest.approx(0, abs=1e-6)


def test_inexactness_is_one_without_work_and_falls_with_it() -> None:
    pairs, weights, learner = vector_pairs(80), weights_of(), rule(batch_pairs=None, lr=0.3)
    inexactness = [
        train(learner, pairs, weights, {"proximal_mu": 0.1, "local_steps": steps}).metrics["inexactness"]
        for steps in (0, 2, 20, 200)
    ]
    assert inexactness[0] == 1
    assert inexactness == sorted(inexactness, reverse=True)


def test_a_strong_stable_pull_leaves_the_received_weights() -> None:
    pairs, weights = vector_pairs(30), weights_of()
    reply = train(rule(lr=1e-6), pairs, weights, {"proximal_mu": 1e6})
    np.testing.assert_allclose(reply.weights["score.weight"], weights["score.weight"], atol=1e-5)


def test_the_first_adam_step_moves_every_coordinate_by_the_step_size() -> None:
    pairs, weights = vector_pairs(30), weights_of()
    reply = train(rule(optimizer="adamw", local_steps=1, lr=0.01, batch_pairs=None), pairs, weights)
    moved = (reply.weights["score.weight"] - weights["score.weight"])[0]
    np.testing.assert_allclose(moved, -0.01 * np.sign(exact_gradient(weights, pairs)), atol=1e-6)


def test_adam_takes_the_steps_of_torch() -> None:
    torch = pytest.importorskip("torch")
    pairs, weights = vector_pairs(30), weights_of()
    vector = torch.tensor(weights["score.weight"][0].astype(np.float64), requires_grad=True)
    optimizer = torch.optim.AdamW([vector], lr=0.05, betas=(0.9, 0.95), weight_decay=0.0)
    z = torch.tensor(np.asarray(pairs.chosen, np.float64) - np.asarray(pairs.rejected, np.float64))
    for _ in range(7):
        optimizer.zero_grad()
        torch.nn.functional.softplus(-(z @ vector)).mean().backward()
        optimizer.step()
    reply = train(rule(optimizer="adamw", local_steps=7, lr=0.05, batch_pairs=None), pairs, weights)
    np.testing.assert_allclose(reply.weights["score.weight"][0], vector.detach().numpy(), atol=1e-6)


def test_a_client_without_pairs_returns_what_it_received() -> None:
    weights = weights_of()
    reply = train(rule(), vector_pairs(0), weights)
    assert reply.num_pairs == 0
    np.testing.assert_array_equal(reply.weights["score.weight"], weights["score.weight"])


def test_batches_that_are_not_finite_are_skipped_and_counted() -> None:
    pairs, weights = vector_pairs(6), weights_of()
    broken = np.array(pairs.chosen)
    broken[2, 0] = np.nan
    damaged = Pairs(pairs.prompts, broken, pairs.rejected, pairs.pair_ids, pairs.topics)
    reply = train(rule(batch_pairs=1, local_steps=12), damaged, weights)
    assert (reply.metrics["skipped_steps"], reply.metrics["steps_done"]) == (2, 10)
    assert np.isfinite(reply.weights["score.weight"]).all()
    assert all(math.isfinite(value) for value in reply.metrics.values())


def test_a_client_whose_every_step_is_skipped_fails_instead_of_sending_what_it_received() -> None:
    pairs, weights = vector_pairs(6), weights_of()
    hopeless = Pairs(
        pairs.prompts, np.full_like(pairs.chosen, np.nan), pairs.rejected, pairs.pair_ids, pairs.topics
    )
    with pytest.raises(FederationError, match="none of 4 steps had a finite gradient"):
        train(rule(local_steps=4), hopeless, weights)
    assert train(rule(local_steps=0), hopeless, weights).metrics["steps_done"] == 0


def test_nothing_handed_in_is_changed() -> None:
    pairs, weights = vector_pairs(20), weights_of()
    before = [np.array(array) for array in (pairs.chosen, pairs.rejected, weights["score.weight"])]
    train(rule(l2=0.1), pairs, weights, {"proximal_mu": 0.1})
    after = (pairs.chosen, pairs.rejected, weights["score.weight"])
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


def test_counted_work_grows_with_steps_and_pairs() -> None:
    pairs, weights = vector_pairs(40), weights_of()
    flops = [
        train(rule(batch_pairs=size), pairs, weights, {"local_steps": steps}).metrics["flops"]
        for size, steps in ((4, 1), (4, 9), (None, 9))
    ]
    assert flops == [4 * DIM * (40 + used) for used in (4, 36, 360)]


def test_fresh_weights_follow_their_address() -> None:
    learner = rule(init_std=0.5)
    draws = [learner.fresh(generator(0, "fresh", n))["score.weight"] for n in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert draws[0].shape == (1, DIM) and draws[0].dtype == np.float32
    assert not rule().fresh(generator(0, "fresh"))["score.weight"].any()


@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0.0},
        {"lr": math.inf},
        {"local_steps": -1},
        {"batch_pairs": 0},
        {"optimizer": "adam"},
        {"l2": -1.0},
    ],
)
def test_bad_options_are_refused_with_their_key(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=rf"client\.{next(iter(options))}"):
        rule(**options)


def test_weights_of_another_shape_and_other_kinds_of_task_are_refused() -> None:
    pairs = vector_pairs(3)
    with pytest.raises(ConfigurationError, match=r"score\.weight"):
        train(rule(), pairs, {"score.weight": np.zeros((1, DIM + 1), np.float32)})
    with pytest.raises(ConfigurationError, match="'distil'"):
        task = Task(0, weights_of(), kind="distil")
        rule().answer(task, Shard(0, "a", pairs), ClientState(), generator(0, "task"))


def several(*models: Weights) -> Weights:
    return {f"{u}/{key}": array for u, model in enumerate(models) for key, array in model.items()}


def score(pairs: Pairs, weights: Weights, settings: Settings | None = None, seed: int = 0) -> Reply:
    task = Task(0, weights, "score", settings or {}, reply={})
    return rule().answer(task, Shard(0, "a", pairs), ClientState(), generator(seed, "task"))[0]


def test_scores_are_the_training_losses_of_each_head_and_carry_no_weights() -> None:
    pairs, models = vector_pairs(30), [weights_of(seed) for seed in range(12)]
    reply = score(pairs, several(*models))
    assert reply.weights == {} and reply.num_pairs == 30
    assert reply.metrics.keys() == {"flops", *(f"loss_{u}" for u in range(12))}
    for u, model in enumerate(models):
        untrained = train(rule(), pairs, model, {"local_steps": 0})
        assert reply.metrics[f"loss_{u}"] == pytest.approx(untrained.metrics["loss_before"], rel=1e-12)


def test_pairs_that_are_held_back_are_scored_and_not_trained_on() -> None:
    pairs, settings = vector_pairs(40), {"grouping_share": 0.25, "grouping_seed": 5}
    split = grouping_split(Shard(0, "a", pairs), settings)
    assert split.grouping is not None
    learner, models = rule(batch_pairs=None), several(weights_of(), weights_of(2))
    trained = train(learner, pairs, weights_of(), settings)
    alone = train(learner, pairs.take(split.train), weights_of())
    np.testing.assert_array_equal(trained.weights["score.weight"], alone.weights["score.weight"])
    assert trained.num_pairs == 40 and trained.metrics == alone.metrics
    held_back = score(pairs.take(split.grouping), models)
    assert score(pairs, models, settings).metrics == held_back.metrics


def test_counted_work_is_what_was_foretold_of_both_kinds_of_task() -> None:
    learner, shard = rule(batch_pairs=7), Shard(0, "a", vector_pairs(40))
    held_back = {"grouping_share": 0.25, "grouping_seed": 5, "num_selectors": 3}
    for settings in ({"num_selectors": 3}, held_back):
        for kind, weights in (("train", weights_of()), ("score", several(*[weights_of()] * 3))):
            task = Task(0, weights, kind, settings, reply={} if kind == "score" else None)
            reply, _ = learner.answer(task, shard, ClientState(), generator(0, "task"))
            assert learner.workload(task, shard).flops == reply.metrics["flops"]


def test_a_single_pair_scores_at_random_without_preference_where_some_are_to_be_held_back() -> None:
    settings, models = {"grouping_share": 0.05, "grouping_seed": 0}, several(*map(weights_of, range(3)))
    chosen = []
    for seed in range(300):
        metrics = score(vector_pairs(1), models, settings, seed).metrics
        chosen.append(int(np.argmin([metrics[f"loss_{u}"] for u in range(3)])))
    assert np.bincount(chosen).min() > 70  # 100 expected, standard deviation 8


def test_a_head_whose_loss_is_not_finite_reports_none_and_missing_heads_are_refused() -> None:
    broken = {"score.weight": np.full((1, DIM), np.nan, np.float32)}
    assert score(vector_pairs(9), several(broken, weights_of())).metrics.keys() == {"flops", "loss_1"}
    assert score(vector_pairs(0), several(weights_of())).metrics == {}
    with pytest.raises(ConfigurationError, match="1 models came to be scored, not 2"):
        score(vector_pairs(9), several(weights_of()), {"num_selectors": 2})
    with pytest.raises(ConfigurationError, match=r"keys such as 0/score\.weight"):
        score(vector_pairs(9), weights_of())


def test_an_exported_head_loads_without_fedpref_and_names_its_features(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    rule = LinearReward(Given(3), init_std=1.0)
    weights = rule.fresh(generator(0, "fresh"))
    rule.export(weights, tmp_path / "global")
    found = load_file(tmp_path / "global" / "head.safetensors")
    np.testing.assert_array_equal(found["score.weight"], weights["score.weight"])
    facts = json.loads((tmp_path / "global" / "fedpref.json").read_text())
    assert facts == {"backbone": Given(3).fingerprint, "dim": 3}


@pytest.mark.parametrize(
    "options",
    [
        {"batch_pairs": 4},
        {"batch_pairs": None, "local_steps": 5},
        {"batch_pairs": 4, "l2": 0.1},
        {"batch_pairs": 4, "optimizer": "adamw", "lr": 0.01},
    ],
)
@pytest.mark.parametrize("settings", [{}, {"proximal_mu": 0.3}, {"grouping_share": 0.3, "local_steps": 7}])
def test_a_cohort_is_trained_as_each_client_would_be(options: dict[str, object], settings: Settings) -> None:
    shards = [Shard(i, str(i), vector_pairs(n, seed=i)) for i, n in enumerate([3, 30, 8, 1, 9, 300])]
    tasks = [Task(client_id=i, weights=weights_of(i % 2), settings=settings) for i in range(len(shards))]
    assert_cohort_equals_singles(rule(**options), tasks, shards)


def test_a_cohort_may_have_empty_shards_scores_and_pairs_that_are_not_finite() -> None:
    broken = vector_pairs(12)
    np.asarray(broken.chosen)[:2] = np.inf
    shards = [Shard(i, str(i), p) for i, p in enumerate([vector_pairs(9), vector_pairs(0), broken])]
    models = {f"{u}/score.weight": weights_of(u)["score.weight"] for u in range(2)}
    tasks = [Task(client_id=i, weights=weights_of()) for i in range(3)]
    tasks.append(Task(client_id=0, weights=models, kind="score", settings={"num_selectors": 2}, reply={}))
    with np.errstate(invalid="ignore"):
        assert_cohort_equals_singles(rule(batch_pairs=4), tasks, [*shards, shards[0]])
