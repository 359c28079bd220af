from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from cohorts import assert_cohort_equals_singles

from fedpref.clients.lora_reward import LoraReward
from fedpref.errors import ConfigurationError, FederationError
from fedpref.models import Hashing, HuggingFace
from fedpref.models.tiny import tiny_causal_lm, tiny_encoder
from fedpref.models.transformer import load_model, load_tokenizer
from fedpref.seeds import generator
from fedpref.types import ClientState, Pairs, Reply, Settings, Shard, Task, Weights

PAIRS = Pairs(
    prompts=("is it good?", "why", "", "is it?", "why", "a long one"),
    chosen=("the good and short", "because of this", "fancy", "it is", "plain and good", "that"),
    rejected=("bad", "not as long as the other, not plain, not short", "x y z", "no", "bad", "to be or not"),
    pair_ids=tuple("abcdef"),
    topics=("",) * 6,
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDPREF_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module", params=["encoder", "causal"])
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HuggingFace:
    build = tiny_encoder if request.param == "encoder" else tiny_causal_lm
    return HuggingFace(str(build(tmp_path_factory.mktemp(request.param))))


def random_weights(learner: LoraReward) -> Weights:
    """Weights with B and the head away from zero, so that every part matters."""
    fresh = learner.fresh(generator(0, "fresh"))
    return {
        key: (0.3 * generator(1, key).standard_normal(array.shape)).astype(np.float32)
        for key, array in fresh.items()
    }


def train(learner: LoraReward, weights: Weights, settings: Settings | None = None, seed: int = 0) -> Reply:
    task = Task(client_id=0, weights=weights, settings=settings or {})
    return learner.answer(task, Shard(0, "a", PAIRS), ClientState(), generator(seed, "task"))[0]


@pytest.mark.parametrize("last_layers", [1, 2, 3])
def test_cached_activations_give_the_margins_of_the_whole_model(
    backbone: HuggingFace, last_layers: int
) -> None:
    split = LoraReward(backbone=backbone, last_layers=last_layers)
    whole = LoraReward(backbone=backbone, last_layers=last_layers, use_cache=False)
    weights = random_weights(split)
    margins = whole.margins(weights, PAIRS)
    assert np.abs(margins).min() > 1e-4
    np.testing.assert_allclose(split.margins(weights, PAIRS), margins, atol=1e-5)


def test_split_training_gives_the_weights_of_training_the_whole_model(backbone: HuggingFace) -> None:
    split = LoraReward(backbone=backbone, local_steps=4, batch_pairs=2)
    whole = LoraReward(backbone=backbone, local_steps=4, batch_pairs=2, use_cache=False)
    weights = random_weights(split)
    ours, reference = train(split, weights), train(whole, weights)
    assert ours.weights.keys() == reference.weights.keys()
    for key in ours.weights:
        assert not np.array_equal(ours.weights[key], weights[key])
        np.testing.assert_allclose(ours.weights[key], reference.weights[key], atol=1e-5)


def test_training_equals_plain_peft_with_torch_alone(backbone: HuggingFace) -> None:
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    from fedpref.models.lora import _with_lora

    learner = LoraReward(backbone=backbone, local_steps=3, batch_pairs=None, last_layers=1, lr=1e-2)
    weights = random_weights(learner)
    plain = _with_lora(load_model(backbone.checkpoint, reward=True), backbone.checkpoint, learner.lora, [2])
    # PEFT wants the bias of the head, which cancels in every margin and so never travels.
    absent = {key: torch.zeros_like(value) for key, value in get_peft_model_state_dict(plain).items()}
    sent = {key: torch.tensor(value) for key, value in weights.items()}
    assert absent.keys() - sent.keys() <= {"base_model.model.classifier.bias"}
    set_peft_model_state_dict(plain, absent | sent)
    tokenizer = load_tokenizer(backbone.checkpoint)
    trained = [p for name, p in plain.named_parameters() if p.requires_grad and not name.endswith("bias")]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.0)
    sides = [
        [f"{x}\n\n{y}" if x else y for x, y in zip(PAIRS.prompts, side, strict=True)]
        for side in (PAIRS.chosen, PAIRS.rejected)
    ]
    for _ in range(3):
        good, bad = (
            plain(**tokenizer(side, padding=True, return_tensors="pt")).logits[:, 0] for side in sides
        )
        optimizer.zero_grad()
        torch.nn.functional.softplus(bad - good).mean().backward()
        optimizer.step()
    expected = get_peft_model_state_dict(plain)
    ours = train(learner, weights).weights
    for key, array in ours.items():
        np.testing.assert_allclose(array, expected[key].detach().numpy(), atol=1e-5)


def test_only_the_last_layers_and_the_head_travel_and_no_bias(backbone: HuggingFace) -> None:
    weights = LoraReward(backbone=backbone, last_layers=2).fresh(generator(0, "fresh"))
    layers = {part for key in weights for part in key.split(".") if part.isdigit()}
    assert layers == {"1", "2"}
    heads = [key for key in weights if "lora_" not in key]
    assert len(heads) == 1 and heads[0].endswith((".score.weight", ".classifier.weight"))
    assert all(array.dtype == np.float32 for array in weights.values())


def test_fresh_weights_have_b_zero_and_follow_their_address(backbone: HuggingFace) -> None:
    learner = LoraReward(backbone=backbone)
    first, again, other = (learner.fresh(generator(0, "fresh", n)) for n in (0, 0, 1))
    for key, array in first.items():
        np.testing.assert_array_equal(array, again[key])
        assert array.any() != ("lora_B" in key)
        assert "lora_B" in key or not np.array_equal(array, other[key])


def test_training_lowers_the_loss_and_reports_its_work(backbone: HuggingFace) -> None:
    learner = LoraReward(backbone=backbone, local_steps=20, lr=1e-2, batch_pairs=None)
    metrics = train(learner, random_weights(learner)).metrics
    assert metrics["loss_after"] < metrics["loss_before"]
    assert metrics["steps_done"] == 20 and metrics["skipped_steps"] == 0
    assert metrics["flops"] > 0


def test_a_frozen_a_comes_back_as_it_was_sent(backbone: HuggingFace) -> None:
    learner = LoraReward(backbone=backbone, local_steps=2, freeze_a=True)
    weights = random_weights(learner)
    reply = train(learner, weights)
    for key, array in reply.weights.items():
        assert np.array_equal(array, weights[key]) == ("lora_A" in key)


def test_a_proximal_weight_of_zero_is_none_and_a_positive_one_holds_back(backbone: HuggingFace) -> None:
    learner = LoraReward(backbone=backbone, local_steps=3)
    weights = random_weights(learner)
    plain, zero, held = (
        train(learner, weights, s) for s in ({}, {"proximal_mu": 0.0}, {"proximal_mu": 100.0})
    )

    def distance(reply: Reply) -> float:
        return math.sqrt(sum(float(((reply.weights[k] - weights[k]) ** 2).sum()) for k in weights))

    for key in weights:
        np.testing.assert_array_equal(plain.weights[key], zero.weights[key])
    assert distance(held) < distance(plain)


def test_answers_do_not_depend_on_what_the_process_did_before(backbone: HuggingFace) -> None:
    learner = LoraReward(backbone=backbone, local_steps=3, batch_pairs=2)
    weights = random_weights(learner)
    sent = {key: array.copy() for key, array in weights.items()}
    first = train(learner, weights)
    train(LoraReward(backbone=backbone, local_steps=3, freeze_a=True), first.weights)
    again = train(learner, weights)
    for key in weights:
        np.testing.assert_array_equal(first.weights[key], again.weights[key])
        np.testing.assert_array_equal(weights[key], sent[key])


def test_dropout_follows_the_address_and_leaves_the_global_generator_alone(backbone: HuggingFace) -> None:
    learner = LoraReward(backbone=backbone, local_steps=2, dropout=0.5, batch_pairs=None)
    weights, before = random_weights(learner), torch.random.get_rng_state()
    first, again, other = (train(learner, weights, seed=seed).weights for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert any(not np.array_equal(first[key], other[key]) for key in first)


def test_swapping_chosen_and_rejected_negates_the_margins(backbone: HuggingFace) -> None:
    learner = LoraReward(backbone=backbone)
    twins = Pairs(PAIRS.prompts, PAIRS.rejected, PAIRS.chosen, PAIRS.pair_ids, PAIRS.topics)
    weights = random_weights(learner)
    np.testing.assert_array_equal(learner.margins(weights, twins), -learner.margins(weights, PAIRS))


def test_a_client_without_pairs_returns_what_it_received(backbone: HuggingFace) -> None:
    learner = LoraReward(backbone=backbone)
    weights = random_weights(learner)
    task = Task(client_id=0, weights=weights)
    reply, _ = learner.answer(task, Shard(0, "a", PAIRS.take([])), ClientState(), generator(0, "task"))
    assert reply.num_pairs == 0 and reply.weights == weights
    assert learner.margins(weights, PAIRS.take([])).shape == (0,)


def test_a_client_whose_every_step_is_skipped_fails_instead_of_sending_what_it_received(
    backbone: HuggingFace,
) -> None:
    learner = LoraReward(backbone=backbone, local_steps=3)
    weights = {key: np.full_like(array, np.inf) for key, array in random_weights(learner).items()}
    with pytest.raises(FederationError, match="none of 3 steps had a finite gradient"):
        train(learner, weights)


def test_weights_of_another_rank_are_refused(backbone: HuggingFace) -> None:
    weights = random_weights(LoraReward(backbone=backbone, rank=4))
    with pytest.raises(ConfigurationError, match="do not fit"):
        LoraReward(backbone=backbone, rank=8).margins(weights, PAIRS)


@pytest.mark.parametrize(
    ("options", "key"),
    [({"last_layers": 9}, "last_layers"), ({"target_modules": ("nope",)}, "target_modules")],
)
def test_options_that_do_not_fit_the_model_are_refused(
    backbone: HuggingFace, options: dict[str, object], key: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"client\.{key}"):
        LoraReward(backbone=backbone, **options).fresh(generator(0, "fresh"))  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"rank": 0}, {"dropout": 1.0}, {"lr": -1.0}, {"last_layers": 0}])
def test_bad_options_are_refused_with_their_key(backbone: HuggingFace, options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=rf"client\.{next(iter(options))}"):
        LoraReward(backbone=backbone, **options)  # type: ignore[arg-type]


def test_a_backbone_that_is_no_transformer_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="lora_reward"):
        LoraReward(backbone=Hashing())  # type: ignore[arg-type]


def cohort(rule: LoraReward, settings: list[Settings], sizes: list[int]) -> tuple[list[Task], list[Shard]]:
    weights = random_weights(rule)
    own = [{key: (1 + i / 9) * array for key, array in weights.items()} for i in range(len(sizes))]
    tasks = [Task(i, own[i], settings=each) for i, each in enumerate(settings)]
    shards = [Shard(i, f"{i}", PAIRS.take(range(6 - size, 6))) for i, size in enumerate(sizes)]
    return tasks, shards


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_cache": False},
        {"freeze_a": True},
        {"batch_pairs": None},
        {"dropout": 0.1},
        {"last_layers": 3},
    ],
)
def test_a_cohort_of_unequal_shards_and_steps_equals_clients_one_by_one(
    backbone: HuggingFace, options: dict[str, object]
) -> None:
    rule = LoraReward(**{"backbone": backbone, "local_steps": 3, "batch_pairs": 2, **options})
    settings: list[Settings] = [{}, {}, {"local_steps": 1}, {"proximal_mu": 0.5}, {"local_steps": 0}, {}]
    assert_cohort_equals_singles(rule, *cohort(rule, settings, [6, 3, 5, 4, 2, 0]))


def test_a_cohort_with_steps_to_skip_equals_clients_one_by_one(
    backbone: HuggingFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = LoraReward(backbone, local_steps=4, batch_pairs=2)
    tasks, shards = cohort(rule, [{}] * 3, [6, 3, 5])
    states = rule._model().states

    def spoilt(texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Those of one text of the first client are no numbers."""
        found = states(texts)
        return {
            text: array * np.nan if text.startswith("is it good?") else array for text, array in found.items()
        }

    monkeypatch.setattr(rule._model(), "states", spoilt)
    alone, _ = rule.answer(tasks[0], shards[0], ClientState(), generator(0, "task", 0))
    assert 0 < alone.metrics["skipped_steps"] < 4
    assert_cohort_equals_singles(rule, tasks, shards)


def test_clients_that_do_not_fit_into_memory_together_are_trained_in_turn(
    backbone: HuggingFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedpref.models.lora_cohort._MOST_BYTES", 1)
    rule = LoraReward(backbone, local_steps=2, batch_pairs=2)
    assert_cohort_equals_singles(rule, *cohort(rule, [{}] * 3, [6, 3, 5]), tolerance=0.0)


def test_a_model_that_mixes_the_tokens_of_rows_is_trained_one_by_one(
    backbone: HuggingFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = LoraReward(backbone, local_steps=2, batch_pairs=2)
    tasks, shards = cohort(rule, [{}] * 2, [6, 3])
    monkeypatch.setattr("fedpref.models.lora_cohort.trained_layers", lambda model: None)
    assert_cohort_equals_singles(rule, tasks, shards, tolerance=0.0)
