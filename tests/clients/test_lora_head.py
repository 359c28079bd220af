"""LoRA on a frozen layer: what PEFT trains, for one client and for many at once."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cohorts import assert_cohort_equals_singles
from safetensors.numpy import load_file

from fedpref.clients.lora_head import LoraHead, _layer
from fedpref.errors import ConfigurationError, FederationError
from fedpref.federation.federation import Federation
from fedpref.models import Given
from fedpref.models.lora_layer import HEAD, LORA_A, LORA_B, Member, Trained, trained
from fedpref.objectives.batches import batches
from fedpref.objectives.grouping import grouping_split
from fedpref.seeds import generator
from fedpref.simulation.cohort import Cohort
from fedpref.simulation.inline import Inline
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.fedbiscuit import FedBiscuit
from fedpref.types import ClientState, HeldOut, Pairs, Population, Reply, Settings, Shard, Task, Weights

DIM = 10
HELD_BACK: Settings = {"grouping_share": 0.5, "grouping_seed": 5}
RULE = LoraHead(Given(DIM), outputs=6, rank=3, batch_pairs=4, local_steps=5, lr=1e-2, head_std=0.3)


def pairs(num_pairs: int, seed: int = 0) -> Pairs:
    chosen, rejected = generator(seed, "pairs").standard_normal((2, num_pairs, DIM)).astype(np.float32)
    ids = tuple(f"{seed}/{i}" for i in range(num_pairs))
    return Pairs(("",) * num_pairs, chosen + 0.1, rejected, ids, ("",) * num_pairs)


def random_weights(rule: LoraHead = RULE) -> Weights:
    """B away from zero, so that every part matters."""
    fresh = rule.fresh(generator(0, "fresh"))
    return {
        key: (0.3 * generator(1, key).standard_normal(array.shape)).astype(np.float32)
        for key, array in fresh.items()
    }


def several(*models: Weights) -> Weights:
    return {f"{u}/{key}": array for u, model in enumerate(models) for key, array in model.items()}


def train(rule: LoraHead, task: Task, shard: Shard) -> Reply:
    return rule.answer(task, shard, ClientState(), generator(0, "task"))[0]


@pytest.mark.parametrize("mu", [0.0, 0.7])
def test_training_equals_plain_peft_with_torch_alone(mu: float) -> None:
    from peft import LoraConfig, get_peft_model

    layer = torch.nn.Linear(DIM, RULE.outputs, bias=False)
    layer.weight.data = torch.tensor(_layer(0, DIM, RULE.outputs))
    plain = torch.nn.ModuleDict({"layer": layer, "score": torch.nn.Linear(RULE.outputs, 1, bias=False)})
    config = LoraConfig(r=3, lora_alpha=16, target_modules=["layer"], modules_to_save=["score"])
    model = get_peft_model(plain, config).base_model.model
    weights, mine = random_weights(), pairs(9)
    parts = {
        LORA_A: model["layer"].lora_A["default"].weight,
        LORA_B: model["layer"].lora_B["default"].weight,
        HEAD: model["score"].modules_to_save["default"].weight,
    }
    for key, part in parts.items():
        part.data = torch.tensor(weights[key])
    optimizer = torch.optim.AdamW(parts.values(), lr=RULE.lr, betas=(0.9, 0.95), weight_decay=0.0)
    for rows in batches(9, 4, 5, generator(0, "task")):
        good, bad = (
            model["score"](torch.tanh(model["layer"](torch.tensor(side[rows]))))[:, 0]
            for side in (mine.chosen, mine.rejected)
        )
        loss = torch.nn.functional.softplus(bad - good).mean()
        loss = loss + mu / 2 * sum(((p - torch.tensor(weights[k])) ** 2).sum() for k, p in parts.items())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    reply = train(RULE, Task(0, weights, settings={"proximal_mu": mu}), Shard(0, "a", mine))
    for key, part in parts.items():
        assert not np.array_equal(reply.weights[key], weights[key])
        np.testing.assert_allclose(reply.weights[key], part.detach().numpy(), atol=1e-5)


def test_a_cohort_of_unequal_shards_and_steps_equals_clients_one_by_one() -> None:
    weights = random_weights()
    sizes = [9, 0, 1, 4, 5, 30, 31, 33, 12, 9]
    settings: list[Settings] = [{}, {}, {"local_steps": 2}, {}, {"local_steps": 0}, {"local_steps": 17}, {}]
    settings += [{"local_steps": 3}, {"proximal_mu": 0.5}, {"proximal_mu": 0.5, "local_steps": 1}]
    sizes, settings = [*sizes, 9, 9], [*settings, HELD_BACK, {**HELD_BACK, "proximal_mu": 0.5}]
    tasks = [Task(i, weights, settings=each) for i, each in enumerate(settings)]
    tasks[-1] = replace(tasks[-1], weights=several(weights, weights), kind="score", reply={})
    shards = [Shard(i, f"{i}", pairs(size, seed=i)) for i, size in enumerate(sizes)]
    for rule in (RULE, replace(RULE, freeze_a=True), replace(RULE, batch_pairs=None)):
        assert_cohort_equals_singles(rule, tasks, shards)


def test_clients_of_one_size_end_in_the_bits_that_they_reach_alone() -> None:
    shards = [Shard(i, f"{i}", pairs(9, seed=i)) for i in range(5)]
    tasks = [Task(i, random_weights()) for i in range(5)]
    assert_cohort_equals_singles(RULE, tasks, shards, tolerance=0.0)


def test_more_than_fit_into_one_stack_are_trained_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    # A, B and w, their gradients, moments and received values; two responses of four pairs
    numbers = 5 * (30 + 18 + 6) + 4 * 2 * (DIM + 6)
    together: list[int] = []

    def counted(members: Sequence[Member], *others: Any) -> list[Trained]:
        together.append(len(members))
        return trained(members, *others)

    monkeypatch.setattr("fedpref.clients.lora_head._LARGEST_STEP", 3 * numbers)
    monkeypatch.setattr("fedpref.clients.lora_head.trained", counted)
    shards = [Shard(i, f"{i}", pairs(9, seed=i)) for i in range(7)]
    assert_cohort_equals_singles(RULE, [Task(i, random_weights()) for i in range(7)], shards)
    assert together == [1] * 7 + [3, 3, 1]


def test_a_run_in_cohorts_is_the_run_one_by_one_to_rounding() -> None:
    people = [Shard(i, f"{i}", pairs(4 + 3 * i, i)) for i in range(6)]
    population = Population(people, [HeldOut("someone", None, pairs(30, 99))])
    together, alone = (
        Federation(population, RULE, FedAvg(), 3, executor=executor, evaluate_every=3).run()
        for executor in (Cohort(), Inline())
    )
    for key, array in alone.models["global"].items():
        np.testing.assert_allclose(together.models["global"][key], array, atol=1e-6)


def test_selectors_that_score_and_train_it_are_the_same_one_by_one_and_together() -> None:
    people = [Shard(i, f"{i}", pairs(8 + i, i)) for i in range(6)]
    population = Population(people, [HeldOut("someone", None, pairs(30, 99))])
    strategy = FedBiscuit(num_selectors=2, warmup_rounds=1, regroup_every=2, grouping_pairs=0.25)
    together, alone = (
        Federation(population, RULE, strategy, 5, executor=executor, evaluate_every=5).run()
        for executor in (Cohort(), Inline(strict=True))
    )
    assert len(alone.models) == 2
    for name, model in alone.models.items():
        for key, array in model.items():
            np.testing.assert_allclose(together.models[name][key], array, atol=1e-6)


def test_the_product_of_fresh_weights_is_zero_and_training_lowers_the_loss() -> None:
    rule = replace(RULE, local_steps=40)
    fresh = rule.fresh(generator(0, "fresh"))
    assert fresh[LORA_A].any() and not fresh[LORA_B].any()
    mine = pairs(20)
    frozen = np.tanh(np.stack([mine.chosen, mine.rejected]) @ _layer(0, DIM, 6).T) @ fresh[HEAD][0]
    np.testing.assert_allclose(rule.margins(fresh, mine), frozen[0] - frozen[1], atol=1e-6)
    metrics = train(rule, Task(0, fresh), Shard(0, "a", mine)).metrics
    assert metrics["loss_after"] < metrics["loss_before"]
    assert metrics["steps_done"] == 40 and metrics["skipped_steps"] == 0


def test_a_frozen_a_comes_back_as_it_was_sent() -> None:
    weights = random_weights()
    reply = train(replace(RULE, freeze_a=True), Task(0, weights), Shard(0, "a", pairs(9)))
    for key, array in reply.weights.items():
        assert np.array_equal(array, weights[key]) == (key == LORA_A)


def test_the_work_that_is_told_is_the_work_that_is_reported_and_less_with_a_frozen_a() -> None:
    shard, task = Shard(0, "a", pairs(9)), Task(0, random_weights())
    told = RULE.workload(task, shard)
    assert train(RULE, task, shard).metrics["flops"] == told.flops
    # 13 pairs in 5 batches of 4, 4, 1, 4, 4; two responses a pair; A 30, B 18 and w 6 numbers.
    forward, back = 2 * (30 + 18 + 6), 2 * (30 + 2 * 18 + 6)
    assert told.flops == 2 * 17 * (forward + back) + 2 * 2 * 9 * forward
    frozen = replace(RULE, freeze_a=True).workload(task, shard)
    assert told.flops - frozen.flops == 2 * 17 * 2 * 30
    assert RULE.workload(replace(task, kind="evaluate"), shard).flops == 0
    models = Task(0, several(*[random_weights()] * 3), "score", {**HELD_BACK, "num_selectors": 3}, reply={})
    assert (
        train(RULE, models, shard).metrics["flops"]
        == RULE.workload(models, shard).flops
        == 3 * 2 * 4 * forward
    )


def test_a_client_whose_every_gradient_is_not_finite_fails_and_others_do_not() -> None:
    shards = [Shard(i, f"{i}", pairs(9, seed=i)) for i in range(3)]
    broken = {**random_weights(), HEAD: np.full((1, 6), np.nan, np.float32)}
    with pytest.raises(FederationError, match="none of 5 steps"):
        train(RULE, Task(0, broken), shards[0])
    shards[1].pairs.chosen[0] = np.nan  # one pair of nine spoils the batches that it is in
    tasks = [Task(i, random_weights()) for i in range(3)]
    assert_cohort_equals_singles(RULE, tasks, shards)
    reply = train(RULE, tasks[1], shards[1])
    spoiled = sum(0 in batch for batch in batches(9, 4, 5, generator(0, "task")))
    assert 0 < reply.metrics["skipped_steps"] == spoiled < 5
    assert all(np.isfinite(array).all() for array in reply.weights.values())


def test_scores_are_the_losses_of_each_model_and_carry_no_weights() -> None:
    mine, models = pairs(9), [random_weights(), RULE.fresh(generator(0, "fresh"))]
    reply = train(RULE, Task(0, several(*models), "score", reply={}), Shard(0, "a", mine))
    assert reply.weights == {} and reply.num_pairs == 9
    assert reply.metrics.keys() == {"flops", "loss_0", "loss_1"}
    for u, model in enumerate(models):
        expected = np.logaddexp(0, -RULE.margins(model, mine)).mean()
        assert reply.metrics[f"loss_{u}"] == pytest.approx(expected, rel=1e-6)


def test_pairs_that_are_held_back_are_scored_and_not_trained_on() -> None:
    shard, weights = Shard(0, "a", pairs(12)), random_weights()
    split = grouping_split(shard, HELD_BACK)
    assert split.grouping is not None and len(split.grouping) == 6
    some = train(RULE, Task(0, weights, settings=HELD_BACK), shard)
    alone = train(RULE, Task(0, weights), Shard(0, "a", shard.pairs.take(split.train)))
    for key, array in alone.weights.items():
        np.testing.assert_array_equal(some.weights[key], array)
    assert some.num_pairs == 12 and some.metrics == alone.metrics
    scored = train(RULE, Task(0, several(weights), "score", HELD_BACK, reply={}), shard).metrics["loss_0"]
    held_back = RULE.margins(weights, shard.pairs.take(split.grouping))
    assert scored == pytest.approx(np.logaddexp(0, -held_back).mean(), rel=1e-6)


def test_a_single_pair_is_scored_at_random_and_none_not_at_all() -> None:
    task = Task(0, several(random_weights(), random_weights()), "score", HELD_BACK, reply={})
    losses = train(RULE, task, Shard(0, "a", pairs(1))).metrics
    draws = generator(0, "task")
    assert losses == {"loss_0": draws.random(), "loss_1": draws.random()}
    assert train(RULE, task, Shard(0, "a", pairs(0))).metrics == {}


def test_a_loss_that_is_not_finite_is_left_out_and_models_that_do_not_fit_are_refused() -> None:
    shard = Shard(0, "a", pairs(9))
    broken = {**random_weights(), HEAD: np.full((1, 6), np.nan, np.float32)}
    task = Task(0, several(broken, random_weights()), "score", reply={})
    assert train(RULE, task, shard).metrics.keys() == {"flops", "loss_1"}
    with pytest.raises(ConfigurationError, match="2 models came to be scored, not 3"):
        train(RULE, replace(task, settings={"num_selectors": 3}), shard)
    with pytest.raises(ConfigurationError, match="lora_head needs weights of"):
        train(RULE, replace(task, weights={"0/score.weight": broken[HEAD]}), shard)


def test_an_export_holds_the_frozen_layer_too(tmp_path: Path) -> None:
    weights, mine = random_weights(), pairs(4)
    RULE.export(weights, tmp_path)
    file = load_file(tmp_path / "head.safetensors")
    layer = file["layer.weight"] + 16 / 3 * file[LORA_B] @ file[LORA_A]
    rewards = np.tanh(np.stack([mine.chosen, mine.rejected]) @ layer.T) @ file[HEAD][0]
    np.testing.assert_allclose(RULE.margins(weights, mine), rewards[0] - rewards[1], atol=1e-5)


def test_other_tasks_other_weights_and_options_out_of_range_are_refused() -> None:
    shard = Shard(0, "a", pairs(3))
    with pytest.raises(ConfigurationError, match="cannot answer a task of kind 'evaluate'"):
        train(RULE, Task(0, random_weights(), kind="evaluate"), shard)
    with pytest.raises(ConfigurationError, match="lora_head needs weights of"):
        train(RULE, Task(0, {HEAD: np.zeros((1, 6), np.float32)}), shard)
    for name, value in {"outputs": 0, "rank": 0, "alpha": 0, "batch_pairs": 0, "lr": 0.0}.items():
        with pytest.raises(ConfigurationError, match=f"client.{name}: 0"):
            replace(RULE, **{name: value})
