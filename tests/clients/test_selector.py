from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from cohorts import assert_cohort_equals_singles

from fedpref.clients.linear_reward import LinearReward
from fedpref.clients.selector import Selector
from fedpref.errors import ConfigurationError, FederationError
from fedpref.models import Given, Hashing
from fedpref.models.pair_head import BIAS, WEIGHT, PairHead
from fedpref.objectives.selector import scores, slot_biases
from fedpref.seeds import generator
from fedpref.types import ClientState, Pairs, Reply, Settings, Shard, Task, Weights

DIM = 5


def vector_pairs(num_pairs: int, seed: int = 0) -> Pairs:
    rng = generator(seed, "pairs")
    truth = np.linspace(-1, 1, DIM)
    left, right = rng.standard_normal((2, num_pairs, DIM))
    likes_left = (left - right) @ truth + rng.logistic(size=num_pairs) > 0
    chosen, rejected = (
        np.where(likes_left[:, None], *sides).astype(np.float32) for sides in ((left, right), (right, left))
    )
    ids = tuple(map(str, range(num_pairs)))
    return Pairs(("",) * num_pairs, chosen, rejected, ids, ("",) * num_pairs)


def swapped(pairs: Pairs) -> Pairs:
    return Pairs(pairs.prompts, pairs.rejected, pairs.chosen, pairs.pair_ids, pairs.topics)


def rule(**options: object) -> Selector:
    return Selector(backbone=Given(DIM), **options)  # type: ignore[arg-type]


def weights_of(seed: int = 1, bias: float = 0.3) -> Weights:
    weight = generator(seed, "weights").standard_normal((1, 2 * DIM)).astype(np.float32)
    return {WEIGHT: weight, BIAS: np.array([bias], np.float32)}


def answer(
    learner: Selector,
    pairs: Pairs,
    weights: Weights,
    settings: Settings | None = None,
    seed: int = 0,
    kind: str = "train",
) -> Reply:
    task = Task(0, weights, kind, settings or {}, reply={} if kind == "score" else None)
    return learner.answer(task, Shard(0, "a", pairs), ClientState(), generator(seed, "task"))[0]


def several(*models: Weights) -> Weights:
    return {f"{u}/{key}": array for u, model in enumerate(models) for key, array in model.items()}


# ------------------------------------------------------------------------------------ the score


def test_swapping_negates_the_score_to_the_bit() -> None:
    pairs, weights = vector_pairs(40), weights_of()
    one, other = rule().margins(weights, pairs), rule().margins(weights, swapped(pairs))
    np.testing.assert_array_equal(one, -other)
    assert np.abs(one).min() > 0
    both, twins = rule().both_orders(weights, pairs), rule().both_orders(weights, swapped(pairs))
    np.testing.assert_array_equal(both, twins[:, ::-1])


def test_identical_responses_score_zero_whatever_the_bias() -> None:
    pairs = vector_pairs(20)
    same = Pairs(pairs.prompts, pairs.chosen, pairs.chosen, pairs.pair_ids, pairs.topics)
    assert not rule().margins(weights_of(), same).any()
    assert rule().both_orders(weights_of(), same).any()


def test_a_liking_for_slot_a_leaves_the_scores_and_shows_in_both_orders() -> None:
    pairs, plain, biased = vector_pairs(60), weights_of(bias=0.25), weights_of(bias=3.25)
    before, after = (rule().both_orders(weights, pairs) for weights in (plain, biased))
    np.testing.assert_allclose(slot_biases(after) - slot_biases(before), 3.0, atol=1e-12)
    np.testing.assert_allclose(scores(after), scores(before), atol=1e-12)
    margins = [rule().margins(weights, pairs) for weights in (plain, biased)]
    np.testing.assert_array_equal(margins[0] > 0, margins[1] > 0)
    assert ((before > 0) != (after > 0)).any()  # a single order would have judged otherwise


# --------------------------------------------------------------------------------- the pair head


def test_an_unbiased_pair_head_is_a_bradley_terry_head_of_half_the_step_size() -> None:
    pairs = vector_pairs(50)
    reward = {"score.weight": generator(0, "reward").standard_normal((1, DIM)).astype(np.float32)}
    start = np.concatenate([reward["score.weight"], -reward["score.weight"]], axis=1)
    ours = answer(
        rule(lr=0.4, local_steps=60, batch_pairs=8), pairs, {WEIGHT: start, BIAS: np.zeros(1, np.float32)}
    )
    linear = LinearReward(Given(DIM), lr=0.2, local_steps=60, batch_pairs=8)
    theirs, _ = linear.answer(Task(0, reward), Shard(0, "a", pairs), ClientState(), generator(0, "task"))
    np.testing.assert_allclose(ours.weights[WEIGHT][:, :DIM], theirs.weights["score.weight"], atol=1e-6)
    np.testing.assert_array_equal(ours.weights[WEIGHT][:, DIM:], -ours.weights[WEIGHT][:, :DIM])
    assert ours.weights[BIAS] == 0 and ours.metrics["position_bias"] == 0
    np.testing.assert_allclose(
        rule().margins(ours.weights, pairs), linear.margins(theirs.weights, pairs), atol=1e-5
    )
    for name in ("loss_before", "loss_after"):
        assert ours.metrics[name] == pytest.approx(theirs.metrics[name])


def one_order_only(pairs: Pairs, steps: int) -> Weights:
    """Logistic regression on l(chosen, rejected) alone: every label is A, so slot A itself predicts it."""
    both = np.concatenate([pairs.chosen, pairs.rejected, np.ones((len(pairs), 1))], axis=1)
    vector = np.zeros(2 * DIM + 1)
    for _ in range(steps):
        vector += 0.3 * (both / (1 + np.exp(both @ vector))[:, None]).mean(axis=0)
    sent = vector.astype(np.float32)
    return {WEIGHT: sent[None, :-1], BIAS: sent[-1:]}


def test_training_on_both_orders_removes_the_bias_that_one_order_taught() -> None:
    pairs, asked = vector_pairs(200), vector_pairs(200, seed=1)
    taught = one_order_only(pairs, steps=400)
    before = rule().both_orders(taught, asked)
    assert slot_biases(before).mean() > 2 and (before > 0).mean() > 0.95  # it says A, whatever it is shown
    learner = rule(lr=0.5, batch_pairs=None, local_steps=2000)
    after = learner.both_orders(answer(learner, pairs, taught).weights, asked)
    assert np.abs(slot_biases(after)).max() < 0.05
    assert (scores(after) > 0).mean() > 0.7


def test_a_penalty_on_the_bias_removes_it_faster() -> None:
    pairs, weights = vector_pairs(60), weights_of(bias=2.0)
    plain, held = (
        answer(rule(lr=0.1, batch_pairs=None, bias_penalty=penalty), pairs, weights) for penalty in (0.0, 0.5)
    )
    assert abs(held.metrics["position_bias"]) < abs(plain.metrics["position_bias"])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_steps_are_those_of_torch(optimizer: str) -> None:
    torch = pytest.importorskip("torch")
    pairs, weights = vector_pairs(30), weights_of()
    w = torch.tensor(np.concatenate([weights[WEIGHT][0], weights[BIAS]]).astype(np.float64)).requires_grad_()
    kinds = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
    extra = {"betas": (0.9, 0.95), "weight_decay": 0.0} if optimizer == "adamw" else {}
    steps = kinds[optimizer]([w], lr=0.05, **extra)
    a, b = (torch.tensor(np.asarray(side, np.float64)) for side in (pairs.chosen, pairs.rejected))
    for _ in range(6):
        steps.zero_grad()
        first, second = (torch.cat(order, dim=1) @ w[:-1] + w[-1] for order in ((a, b), (b, a)))
        (
            torch.nn.functional.softplus(-first).mean() / 2 + torch.nn.functional.softplus(second).mean() / 2
        ).backward()
        steps.step()
    ours = answer(rule(optimizer=optimizer, local_steps=6, lr=0.05, batch_pairs=None), pairs, weights)
    found = np.concatenate([ours.weights[WEIGHT][0], ours.weights[BIAS]])
    np.testing.assert_allclose(found, w.detach().numpy(), atol=1e-6)


def test_a_step_sees_both_orders_so_swapped_pairs_take_the_mirrored_step() -> None:
    # Shown as (a, b) with label A and as (b, a) with label B, a pair is itself and its twin at once.
    pairs, weights = vector_pairs(12), weights_of()
    learner = rule(local_steps=5, batch_pairs=3)
    mirrored = {
        WEIGHT: np.concatenate([-weights[WEIGHT][:, :DIM], -weights[WEIGHT][:, DIM:]], axis=1),
        BIAS: -weights[BIAS],
    }
    one, other = answer(learner, pairs, weights), answer(learner, swapped(pairs), mirrored)
    for key in weights:
        np.testing.assert_allclose(one.weights[key], -other.weights[key], atol=1e-6)


def test_zero_weights_start_at_log_two_and_training_lowers_the_loss() -> None:
    learner = rule()
    metrics = answer(learner, vector_pairs(64), learner.fresh(generator(0, "fresh"))).metrics
    assert metrics["loss_before"] == pytest.approx(math.log(2))
    assert metrics["loss_after"] < metrics["loss_before"]
    assert (metrics["steps_done"], metrics["skipped_steps"]) == (30, 0)


def test_counted_work_grows_with_steps_and_pairs() -> None:
    pairs, weights = vector_pairs(40), weights_of()
    flops = [
        answer(rule(batch_pairs=size), pairs, weights, {"local_steps": steps}).metrics["flops"]
        for size, steps in ((4, 1), (4, 9), (None, 9))
    ]
    # Two operations an entry of a product of (pairs, H): four products a step, two for each of two losses.
    assert flops == [8 * DIM * (40 + used) for used in (4, 36, 360)]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_proximal_weight_of_zero_is_none_bit_for_bit_and_a_positive_one_holds_back(optimizer: str) -> None:
    pairs, weights, learner = vector_pairs(50), weights_of(), rule(optimizer=optimizer, lr=0.01)
    plain, zero, held = (
        answer(learner, pairs, weights, s) for s in ({}, {"proximal_mu": 0.0}, {"proximal_mu": 50.0})
    )
    moved = [np.linalg.norm(reply.weights[WEIGHT] - weights[WEIGHT]) for reply in (plain, held)]
    assert plain.weights[WEIGHT].tobytes() == zero.weights[WEIGHT].tobytes()
    assert plain.metrics == zero.metrics and moved[1] < moved[0]


def test_batches_that_are_not_finite_are_skipped_and_counted() -> None:
    pairs, weights = vector_pairs(6), weights_of()
    broken = np.array(pairs.chosen)
    broken[2, 0] = np.nan
    damaged = Pairs(pairs.prompts, broken, pairs.rejected, pairs.pair_ids, pairs.topics)
    reply = answer(rule(batch_pairs=1, local_steps=12), damaged, weights)
    assert (reply.metrics["skipped_steps"], reply.metrics["steps_done"]) == (2, 10)
    assert all(np.isfinite(array).all() for array in reply.weights.values())
    assert all(math.isfinite(value) for value in reply.metrics.values())
    broken[:] = np.inf
    with pytest.raises(FederationError, match="none of 4 steps"):
        answer(rule(local_steps=4), damaged.take(range(6)), weights)


def test_nothing_handed_in_is_changed_and_one_address_repeats_the_answer() -> None:
    pairs, weights, learner = vector_pairs(40), weights_of(), rule(batch_pairs=4)
    before = [np.array(array) for array in (pairs.chosen, pairs.rejected, *weights.values())]
    first, again, other = (answer(learner, pairs, weights, seed=seed) for seed in (0, 0, 1))
    for old, new in zip(before, (pairs.chosen, pairs.rejected, *weights.values()), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(first.weights[WEIGHT], again.weights[WEIGHT])
    assert not np.array_equal(first.weights[WEIGHT], other.weights[WEIGHT])


def test_a_text_backbone_that_is_no_language_model_gets_a_pair_head() -> None:
    learner = Selector(Hashing(dense_dim=16))
    pairs = Pairs(("",) * 2, ("a good one", "fine"), ("bad", "not so"), ("a", "b"), ("", ""))
    assert isinstance(learner.head, PairHead)
    weights = learner.fresh(generator(0, "fresh"))
    assert weights[WEIGHT].shape == (1, 2 * 18)
    trained = answer(learner, pairs, weights).weights
    assert (learner.margins(trained, pairs) > 0).all()


# ----------------------------------------------------------------------------- grouping and scores


def test_the_training_pairs_alone_decide_the_weights_when_some_are_held_back() -> None:
    pairs, settings = vector_pairs(40), {"grouping_share": 0.25, "grouping_seed": 5}
    learner = rule(batch_pairs=None)
    from fedpref.objectives.grouping import grouping_split

    split = grouping_split(Shard(0, "a", pairs), settings)
    assert split.grouping is not None and len(split.grouping) == 10
    trained = answer(learner, pairs, weights_of(), settings)
    alone = answer(learner, pairs.take(split.train), weights_of())
    np.testing.assert_array_equal(trained.weights[WEIGHT], alone.weights[WEIGHT])
    assert trained.num_pairs == 40
    scored = answer(learner, pairs, several(weights_of(), weights_of(2)), settings, kind="score")
    held_back = answer(
        learner, pairs.take(split.grouping), several(weights_of(), weights_of(2)), kind="score"
    )
    assert scored.metrics["loss_0"] == held_back.metrics["loss_0"] != scored.metrics["loss_1"]


def test_scores_are_the_mean_training_losses_of_each_selector_and_carry_no_weights() -> None:
    pairs, models = vector_pairs(30), [weights_of(seed) for seed in range(12)]
    reply = answer(rule(), pairs, several(*models), kind="score")
    assert reply.weights == {} and reply.num_pairs == 30
    assert reply.metrics.keys() == {"flops", *(f"loss_{u}" for u in range(12))}
    for u, model in enumerate(models):
        trained = answer(rule(), pairs, model, {"local_steps": 0})
        assert reply.metrics[f"loss_{u}"] == trained.metrics["loss_before"]


def test_a_selector_whose_loss_is_not_finite_reports_none() -> None:
    broken = {key: np.full_like(array, np.nan) for key, array in weights_of().items()}
    metrics = answer(rule(), vector_pairs(9), several(broken, weights_of()), kind="score").metrics
    assert metrics.keys() == {"flops", "loss_1"}


def test_a_single_pair_trains_and_scores_at_random_without_preference() -> None:
    pairs, settings = vector_pairs(1), {"grouping_share": 0.05, "grouping_seed": 0}
    models = several(weights_of(0), weights_of(1), weights_of(2))
    assert not np.array_equal(
        answer(rule(), pairs, weights_of(), settings).weights[WEIGHT], weights_of()[WEIGHT]
    )
    chosen = []
    for seed in range(300):
        metrics = answer(rule(), pairs, models, settings, seed=seed, kind="score").metrics
        chosen.append(int(np.argmin([metrics[f"loss_{u}"] for u in range(3)])))
    assert np.bincount(chosen).min() > 70  # 100 expected, standard deviation 8
    again = answer(rule(), pairs, models, settings, seed=0, kind="score").metrics
    assert again == answer(rule(), pairs, models, settings, seed=0, kind="score").metrics


def test_a_client_without_pairs_returns_what_it_received_and_scores_nothing() -> None:
    weights = weights_of()
    reply = answer(rule(), vector_pairs(0), weights)
    assert reply.num_pairs == 0 and reply.weights == weights
    scored = answer(rule(), vector_pairs(0), several(weights), kind="score")
    assert (scored.weights, scored.num_pairs, scored.metrics) == ({}, 0, {})
    assert rule().margins(weights, vector_pairs(0)).shape == (0,)


# --------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0.0},
        {"lr": math.inf},
        {"local_steps": -1},
        {"batch_pairs": 0},
        {"optimizer": "adam"},
        {"bias_penalty": -1.0},
        {"init_std": -1.0},
        {"rank": 0},
        {"alpha": 0},
        {"dropout": 1.0},
        {"last_layers": -1},
        {"template": "{prompt} {response_a} which?"},
        {"choices": ("A", "A")},
    ],
)
def test_bad_options_are_refused_with_their_key(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=rf"client\.{next(iter(options))}"):
        rule(**options)


def test_weights_that_do_not_fit_and_other_kinds_of_task_are_refused() -> None:
    pairs = vector_pairs(3)
    with pytest.raises(ConfigurationError, match="needs weights of shapes"):
        answer(rule(), pairs, {WEIGHT: np.zeros((1, DIM), np.float32), BIAS: np.zeros(1, np.float32)})
    with pytest.raises(ConfigurationError, match="needs weights of shapes"):
        answer(rule(), pairs, {WEIGHT: np.zeros((1, 2 * DIM), np.float32)})
    with pytest.raises(ConfigurationError, match="keys such as 0/pair_head"):
        answer(rule(), pairs, weights_of(), kind="score")
    with pytest.raises(ConfigurationError, match="'resume'"):
        answer(rule(), pairs, weights_of(), kind="resume")


def test_an_exported_pair_head_loads_without_fedpref_and_names_its_features(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    rule().export(weights_of(), tmp_path / "selector_0")
    found = load_file(tmp_path / "selector_0" / "head.safetensors")
    for key, array in weights_of().items():
        np.testing.assert_array_equal(found[key], array)
    facts = json.loads((tmp_path / "selector_0" / "fedpref.json").read_text())
    assert facts == {"backbone": Given(DIM).fingerprint, "dim": DIM}


def test_warming_computes_every_feature_once() -> None:
    from fedpref.models.backbone import Backbone

    class Counting(Hashing):
        calls = 0

        def features(self, prompts: Iterable[str], responses: object) -> np.ndarray:
            Counting.calls += 1
            return super().features(prompts, responses)  # type: ignore[arg-type]

    backbone: Backbone = Counting(dense_dim=8)
    learner = Selector(backbone)
    pairs = Pairs(("",), ("good",), ("bad",), ("a",), ("",))
    learner.warm([pairs])
    warmed, weights = Counting.calls, learner.fresh(generator(0, "fresh"))
    answer(learner, pairs, weights)
    learner.margins(weights, pairs)
    assert Counting.calls == warmed > 0


# ------------------------------------------------------------------------------------ cohorts


@pytest.mark.parametrize(
    "options", [{}, {"bias_penalty": 0.2}, {"batch_pairs": None}, {"optimizer": "adamw"}]
)
def test_a_cohort_equals_clients_one_by_one(options: dict[str, object]) -> None:
    learner = rule(local_steps=7, batch_pairs=4, init_std=0.5) if not options else rule(**options)
    fresh, biased = learner.fresh(generator(0, "fresh")), weights_of()
    sizes = [9, 0, 1, 4, 300, 30, 9, 12, 7]
    settings: list[Settings] = [{}, {}, {"local_steps": 2}, {"local_steps": 0}, {}, {"grouping_share": 0.3}]
    settings += [{"proximal_mu": 0.5}, {"grouping_share": 0.3, "grouping_seed": 2}, {}]
    tasks = [Task(i, biased if i == 8 else fresh, settings=each) for i, each in enumerate(settings)]
    tasks[7] = Task(7, several(fresh, biased), "score", settings[7], reply={})
    shards = [Shard(i, f"{i}", vector_pairs(size, seed=i)) for i, size in enumerate(sizes)]
    assert_cohort_equals_singles(learner, tasks, shards)


def test_a_cohort_with_steps_to_skip_equals_clients_one_by_one() -> None:
    learner = rule(local_steps=6, batch_pairs=4)
    shards = [Shard(i, f"{i}", vector_pairs(9, seed=i)) for i in range(3)]
    shards[1].pairs.chosen[0] = np.nan
    tasks = [Task(i, learner.fresh(generator(0, "fresh"))) for i in range(3)]
    assert learner.answer(tasks[1], shards[1], ClientState(), generator(0, "task", 1))[0].metrics[
        "skipped_steps"
    ]
    assert_cohort_equals_singles(learner, tasks, shards)
