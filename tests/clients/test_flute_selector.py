from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedpref.clients.flute_selector import FluteSelector
from fedpref.clients.linear_reward import LinearReward
from fedpref.errors import ConfigurationError, FederationError
from fedpref.models import Given, Hashing
from fedpref.objectives.selector import scores, slot_biases
from fedpref.seeds import generator
from fedpref.types import (
    ClientState,
    HasWorkload,
    Pairs,
    Personal,
    Reply,
    Settings,
    Shard,
    Task,
    Weights,
    Workload,
)

DIM, WIDTH = 6, 3
LAYER, OFFSETS, ROWS, BIASES = "representation.weight", "representation.bias", "head.weight", "head.bias"
SHAPES = {LAYER: (WIDTH, DIM), OFFSETS: (WIDTH,), ROWS: (2, WIDTH), BIASES: (2,)}


def some_pairs(num_pairs: int, seed: int = 0) -> Pairs:
    rng = generator(seed, "pairs")
    left, right = rng.standard_normal((2, num_pairs, DIM)).astype(np.float32)
    likes_left = (left - right) @ np.linspace(-1, 1, DIM) > 0
    chosen, rejected = (np.where(likes_left[:, None], *sides) for sides in ((left, right), (right, left)))
    return Pairs(("",) * num_pairs, chosen, rejected, tuple(map(str, range(num_pairs))), ("",) * num_pairs)


def weights_of(seed: int = 1) -> Weights:
    rng = generator(seed, "weights")
    return {key: rng.normal(0, 0.5, shape).astype(np.float32) for key, shape in SHAPES.items()}


def rule(**options: object) -> FluteSelector:
    return FluteSelector(**{"backbone": Given(DIM), "width": WIDTH, **options})  # type: ignore[arg-type]


def train(
    learner: FluteSelector, pairs: Pairs, weights: Weights, settings: Settings | None = None, seed: int = 0
) -> Reply:
    task = Task(client_id=0, weights=weights, settings=settings or {})
    reply, kept = learner.answer(task, Shard(0, "a", pairs), ClientState(), generator(seed, "task"))
    assert kept == ClientState()
    return reply


def test_everything_travels_and_nothing_is_kept() -> None:
    fresh = rule().fresh(generator(0, "fresh"))
    assert {key: array.shape for key, array in fresh.items()} == SHAPES
    reply = train(rule(), some_pairs(20), fresh)
    assert {key: array.shape for key, array in reply.weights.items()} == SHAPES
    assert all(array.dtype == np.float32 for array in (*fresh.values(), *reply.weights.values()))


def test_weights_start_almost_without_preference_and_learn() -> None:
    learner, pairs = rule(), some_pairs(60)
    fresh = learner.fresh(generator(0, "fresh"))
    assert np.abs(learner.margins(fresh, pairs)).max() < 0.1
    reply = train(learner, pairs, fresh, {"local_steps": 200})
    assert reply.metrics["loss_before"] == pytest.approx(np.log(2), abs=0.01)
    assert reply.metrics["loss_after"] < 0.6
    assert np.mean(learner.margins(reply.weights, pairs) > 0) > 0.8


def test_small_weights_are_a_linear_reward() -> None:
    """tanh(x) is x up to x^3 / 3."""
    weights, pairs, small = weights_of(), some_pairs(20), 1e-3
    shrunk = {**weights, LAYER: small * weights[LAYER], OFFSETS: small * weights[OFFSETS]}
    linear = {"score.weight": (weights[ROWS][:1] - weights[ROWS][1:]) @ weights[LAYER]}
    np.testing.assert_allclose(
        rule().margins(shrunk, pairs),
        small * LinearReward(Given(DIM)).margins(linear, pairs),
        atol=20 * small**3,
    )


def test_margins_are_the_scores_of_both_orders_and_the_biases_differ_by_the_liking_for_a_slot() -> None:
    weights, pairs = weights_of(), some_pairs(20)
    both = rule().both_orders(weights, pairs)
    np.testing.assert_array_equal(rule().margins(weights, pairs), scores(both))
    bias = float(weights[BIASES][0]) - float(weights[BIASES][1])
    np.testing.assert_allclose(slot_biases(both), bias)
    assert bias != 0
    swapped = Pairs(pairs.prompts, pairs.rejected, pairs.chosen, pairs.pair_ids, pairs.topics)
    np.testing.assert_array_equal(rule().both_orders(weights, swapped), both[:, ::-1])


def test_no_liking_for_a_slot_arises() -> None:
    learner, pairs = rule(batch_pairs=4), some_pairs(30)
    reply = train(learner, pairs, learner.fresh(generator(0, "fresh")))
    assert reply.metrics["position_bias"] == 0 and not reply.weights[BIASES].any()


def test_the_head_is_fitted_first_and_then_all_moves_from_there() -> None:
    pairs, weights, whole_shards = some_pairs(20), weights_of(), rule(batch_pairs=None)
    head_only = train(replace(whole_shards, head_steps=5, joint_steps=0), pairs, weights).weights
    for key in (LAYER, OFFSETS):
        assert head_only[key].tobytes() == weights[key].tobytes()
    assert not np.array_equal(head_only[ROWS], weights[ROWS])
    rest = train(replace(whole_shards, head_steps=0, joint_steps=3), pairs, head_only).weights
    whole = train(replace(whole_shards, head_steps=5, joint_steps=3), pairs, weights).weights
    for key in SHAPES:  # not to the bit: what came in between was rounded to float32
        np.testing.assert_allclose(whole[key], rest[key], atol=1e-6)
        assert key == BIASES or not np.array_equal(whole[key], head_only[key])


def test_settings_cut_the_phases_and_prolong_the_last() -> None:
    pairs, weights = some_pairs(20), weights_of()
    learner = rule(head_steps=5, joint_steps=3)
    for steps, phases in ((0, (0, 0)), (4, (4, 0)), (7, (5, 2)), (11, (5, 6))):
        cut = train(learner, pairs, weights, {"local_steps": steps})
        same = train(rule(head_steps=phases[0], joint_steps=phases[1]), pairs, weights)
        assert cut.metrics["steps_done"] == steps
        assert all(cut.weights[key].tobytes() == same.weights[key].tobytes() for key in SHAPES)


def test_the_proximal_term_holds_the_representation() -> None:
    pairs, weights, learner = some_pairs(40), weights_of(), rule(joint_steps=50, lr=0.1)
    moved = [
        np.linalg.norm(train(learner, pairs, weights, {"proximal_mu": mu}).weights[LAYER] - weights[LAYER])
        for mu in (0.0, 1.0, 8.0)
    ]
    assert moved[0] > moved[1] > moved[2] > 0


def test_a_served_head_takes_the_final_steps_with_the_representation_frozen() -> None:
    pairs, weights = some_pairs(30), weights_of()
    learner = rule(final_steps=5)
    assert isinstance(learner, Personal)
    served = learner.personalise(weights, Shard(0, "a", pairs), ClientState())
    expected = train(rule(head_steps=5, joint_steps=0, batch_pairs=None), pairs, weights).weights
    assert served[LAYER] is weights[LAYER] and served[OFFSETS] is weights[OFFSETS]
    for key in (ROWS, BIASES):
        assert served[key].tobytes() == expected[key].tobytes()


def test_who_has_no_pairs_is_served_what_the_server_gives_and_returns_what_came() -> None:
    weights, learner, nothing = weights_of(), rule(), Shard(0, "a", some_pairs(0))
    assert learner.personalise(weights, None, ClientState()) is weights
    assert learner.personalise(weights, nothing, ClientState()) is weights
    reply = train(learner, nothing.pairs, weights)
    assert (reply.num_pairs, dict(reply.weights)) == (0, dict(weights))


@pytest.mark.parametrize("batch_pairs", [None, 4])
def test_the_work_told_before_is_the_work_reported_after(batch_pairs: int | None) -> None:
    learner = rule(head_steps=3, joint_steps=4, batch_pairs=batch_pairs)
    shard, weights = Shard(0, "a", some_pairs(10)), weights_of()
    assert isinstance(learner, HasWorkload)
    for settings in ({}, {"local_steps": 0}, {"local_steps": 2}, {"local_steps": 30}):
        told = learner.workload(Task(0, {}, settings=settings), shard)
        assert told.flops == train(learner, shard.pairs, weights, settings).metrics["flops"] > 0
        assert told.memory_bytes > 8 * 2 * DIM * len(shard.pairs)
    assert learner.workload(Task(0, {}), Shard(0, "a", some_pairs(0))) == Workload(0, 0)
    assert learner.workload(Task(0, {}, kind="score"), shard) == Workload(0, 0)


def test_work_is_two_operations_an_entry_of_every_product() -> None:
    pairs, weights = some_pairs(10), weights_of()

    def flops(head: int, joint: int) -> float:
        return train(rule(head_steps=head, joint_steps=joint, batch_pairs=None), pairs, weights).metrics[
            "flops"
        ]

    through, out = 2 * DIM * WIDTH, 2 * WIDTH  # of one response, of one pair
    assert flops(0, 0) == 2 * 10 * (2 * through + out)
    assert flops(1, 0) - flops(0, 0) == 10 * 2 * out
    assert flops(0, 1) - flops(0, 0) == 10 * (2 * 2 * through + 2 * out)


def test_steps_that_are_not_finite_are_skipped_and_all_of_them_are_a_failure() -> None:
    pairs = some_pairs(6)
    chosen = np.array(pairs.chosen)
    chosen[2, 0] = np.nan
    broken = Pairs(pairs.prompts, chosen, pairs.rejected, pairs.pair_ids, pairs.topics)
    reply = train(rule(head_steps=6, joint_steps=6, batch_pairs=1), broken, weights_of())
    assert (reply.metrics["skipped_steps"], reply.metrics["steps_done"]) == (2, 10)
    with pytest.raises(FederationError, match="finite gradient"):
        train(rule(batch_pairs=None), broken, weights_of())


def test_nothing_handed_in_is_changed() -> None:
    weights, pairs = weights_of(), some_pairs(10)
    before = {key: array.copy() for key, array in weights.items()}
    train(rule(), pairs, weights, {"proximal_mu": 0.1})
    rule().personalise(weights, Shard(0, "a", pairs), ClientState())
    for key, array in before.items():
        np.testing.assert_array_equal(weights[key], array)


def test_the_exported_layers_give_the_same_margins_elsewhere(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.numpy import load_file

    weights, pairs = weights_of(), some_pairs(10)
    rule().export(weights, tmp_path)
    found = {key: torch.tensor(array) for key, array in load_file(tmp_path / "head.safetensors").items()}
    layer, head = torch.nn.Linear(DIM, WIDTH), torch.nn.Linear(WIDTH, 2)
    layer.load_state_dict({"weight": found[LAYER], "bias": found[OFFSETS]})
    head.load_state_dict({"weight": found[ROWS], "bias": found[BIASES]})
    with torch.no_grad():
        a, b = (torch.tanh(layer(torch.tensor(side))) for side in (pairs.chosen, pairs.rejected))
        logits = head(a - b)
    np.testing.assert_allclose(
        (logits[:, 0] - logits[:, 1]).numpy(), rule().both_orders(weights, pairs)[:, 0], atol=1e-5
    )


def test_it_reads_texts_through_a_backbone() -> None:
    pairs = Pairs(("why",) * 4, ("good",) * 4, ("bad", "worse", "short", "no"), tuple("abcd"), ("",) * 4)
    learner = FluteSelector(Hashing())
    learner.warm([pairs])
    reply = train(learner, pairs, learner.fresh(generator(0, "fresh")))
    assert np.all(learner.margins(reply.weights, pairs) > 0)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("width", 0),
        ("head_steps", -1),
        ("joint_steps", -1),
        ("final_steps", -1),
        ("batch_pairs", 0),
        ("lr", 0.0),
        ("collapse", -0.1),
        ("head_decay", float("nan")),
        ("feature_decay", float("inf")),
        ("init_std", 0.0),
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
        rule(width=WIDTH + 1).margins(weights_of(), some_pairs(3))
