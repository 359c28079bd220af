"""Layers in bfloat16: near float32, with float32 weights; on every device that this machine has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from fedpref.clients.lora_reward import LoraReward
from fedpref.errors import ConfigurationError
from fedpref.models import HuggingFace, MiniLM
from fedpref.models.lora import lora_model
from fedpref.models.precision import DeviceName, Precision
from fedpref.models.tiny import tiny_causal_lm, tiny_encoder
from fedpref.models.transformer import load_model
from fedpref.seeds import generator
from fedpref.types import ClientState, Pairs, Reply, Shard, Task, Weights

PAIRS = Pairs(
    prompts=("is it good?", "why", "", "is it?", "why", "a long one"),
    chosen=("the good and short", "because of this", "fancy", "it is", "plain and good", "that"),
    rejected=("bad", "not as long as the other, not plain, not short", "x y z", "no", "bad", "to be or not"),
    pair_ids=tuple("abcdef"),
    topics=("",) * 6,
)
# A product is rounded to 1/256 of its size, several times a layer; in a mean loss, most of that cancels.
NEAR, LOSS_NEAR = 0.05, 0.005


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDPREF_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module", params=["encoder", "causal"])
def exact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HuggingFace:
    """Float32 on a processor."""
    build = tiny_encoder if request.param == "encoder" else tiny_causal_lm
    return HuggingFace(str(build(tmp_path_factory.mktemp(request.param))), max_tokens=60)


@pytest.fixture(params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def backbone(request: pytest.FixtureRequest, exact: HuggingFace) -> HuggingFace:
    """Float32 on each device."""
    return replace(exact, device=request.param)


@pytest.fixture
def rounded(backbone: HuggingFace) -> HuggingFace:
    """In bfloat16 there."""
    return replace(backbone, precision="bfloat16")


def rule(backbone: HuggingFace, **options: object) -> LoraReward:
    return LoraReward(backbone, **{"local_steps": 6, "batch_pairs": 4, **options})  # type: ignore[arg-type]


def random_weights(learner: LoraReward) -> Weights:
    fresh = learner.fresh(generator(0, "fresh"))
    return {
        key: (0.3 * generator(1, key).standard_normal(array.shape)).astype(np.float32)
        for key, array in fresh.items()
    }


def tasks(weights: Weights, count: int) -> tuple[list[Task], list[Shard], list[ClientState]]:
    shards = [Shard(i, str(i), PAIRS.take(range(2 + 2 * i))) for i in range(count)]
    return [Task(i, weights) for i in range(count)], shards, [ClientState()] * count


def train(learner: LoraReward, weights: Weights) -> Reply:
    return learner.answer(Task(0, weights), Shard(0, "a", PAIRS), ClientState(), generator(0, "task"))[0]


@pytest.mark.parametrize("options", [{"precision": "float16"}, {"device": "gpu"}])
@pytest.mark.parametrize("kind", [MiniLM, lambda **options: HuggingFace(".", "abc", **options)])
def test_an_unknown_precision_or_device_is_refused_by_its_key(kind: object, options: dict[str, str]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(ConfigurationError, match=rf"backbone\.{name}={value} must be .* or "):
        kind(**options)  # type: ignore[operator]


def test_a_gpu_that_is_not_there_is_refused_with_both_mends(
    exact: HuggingFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigurationError, match=r"backbone\.device=cpu.*executor\.num_gpus=0\.25"):
        load_model(replace(exact, device="cuda").checkpoint)


def test_results_that_are_rounded_differently_are_kept_apart(exact: HuggingFace) -> None:
    assert exact.checkpoint.fingerprint.endswith("-60")  # what was kept before there were precisions
    options = [(p, d) for p in get_args(Precision) for d in get_args(DeviceName)]
    variants = [replace(exact, precision=p, device=d) for p, d in options]
    assert len({variant.fingerprint for variant in variants}) == 4
    assert len({variant.checkpoint.fingerprint for variant in variants}) == 4
    assert len({MiniLM(precision=p, device=d).fingerprint for p, d in options}) == 4


def test_a_device_gives_the_rewards_of_the_processor(backbone: HuggingFace, exact: HuggingFace) -> None:
    weights = random_weights(rule(exact))
    margins = rule(exact).margins(weights, PAIRS)
    np.testing.assert_allclose(rule(backbone).margins(weights, PAIRS), margins, atol=1e-4)


@pytest.mark.parametrize("use_cache", [True, False])
def test_rewards_in_bfloat16_are_near_those_in_float32_and_not_rounded_themselves(
    rounded: HuggingFace, exact: HuggingFace, use_cache: bool
) -> None:
    weights = random_weights(rule(exact))
    margins = rule(rounded, use_cache=use_cache).margins(weights, PAIRS)
    expected = rule(exact).margins(weights, PAIRS)
    assert not np.array_equal(margins, expected)
    np.testing.assert_allclose(margins, expected, atol=NEAR * np.abs(expected).max())
    rewards = lora_model(rounded.checkpoint, rule(rounded).lora).rewards(list(PAIRS.chosen))
    assert rewards.dtype == torch.float32 and (rewards != rewards.bfloat16()).any()


def test_all_layers_multiply_in_bfloat16_and_the_head_in_float32(rounded: HuggingFace) -> None:
    model = load_model(rounded.checkpoint, reward=True)
    seen: dict[str, torch.dtype] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output.dtype}))
    ids = torch.ones((1, 3), dtype=torch.int64, device=model.device)
    assert model(input_ids=ids).logits.dtype == torch.float32
    heads = {name for name in seen if name in ("score", "classifier")}
    assert len(heads) == 1 and seen.pop(heads.pop()) == torch.float32
    assert len(seen) > 3 and set(seen.values()) == {torch.bfloat16}


def test_training_in_bfloat16_ends_near_training_in_float32_with_float32_weights(
    rounded: HuggingFace, exact: HuggingFace
) -> None:
    weights = random_weights(rule(exact))
    found, expected = train(rule(rounded), weights), train(rule(exact), weights)
    assert expected.metrics["loss_after"] < expected.metrics["loss_before"] - 0.02
    for name in ("loss_before", "loss_after"):
        assert found.metrics[name] == pytest.approx(expected.metrics[name], abs=LOSS_NEAR)
    assert found.metrics["skipped_steps"] == 0  # so every gradient was finite
    for key, array in found.weights.items():
        assert array.dtype == np.float32 and np.isfinite(array).all()
        assert not np.array_equal(array, weights[key])


def test_two_runs_in_bfloat16_on_a_processor_give_the_same_bits(exact: HuggingFace) -> None:
    rounded = replace(exact, precision="bfloat16")
    weights = random_weights(rule(rounded))
    first, second = (train(rule(rounded), weights) for _ in range(2))
    assert first.metrics == second.metrics
    assert all(np.array_equal(first.weights[key], second.weights[key]) for key in weights)


@pytest.mark.parametrize("precision", get_args(Precision))
def test_a_cohort_ends_where_its_members_end_alone(backbone: HuggingFace, precision: Precision) -> None:
    learner = rule(replace(backbone, precision=precision), local_steps=3)
    together = tasks(random_weights(learner), 3)
    alone = [
        learner.answer(*own, generator(0, "task", i))[0] for i, own in enumerate(zip(*together, strict=True))
    ]
    found = learner.answer_cohort(*together, [generator(0, "task", i) for i in range(3)])
    tolerance = 1e-4 if precision == "float32" else LOSS_NEAR
    for (reply, _), expected in zip(found, alone, strict=True):
        assert reply.metrics["loss_after"] == pytest.approx(expected.metrics["loss_after"], abs=tolerance)
        assert all(array.dtype == np.float32 for array in reply.weights.values())


def test_features_in_bfloat16_are_near_those_in_float32(rounded: HuggingFace, exact: HuggingFace) -> None:
    found, expected = (each.features(PAIRS.prompts, PAIRS.chosen) for each in (rounded, exact))
    assert found.dtype == np.float32 and not np.array_equal(found, expected)
    np.testing.assert_allclose(found, expected, atol=NEAR * np.abs(expected).max())


def test_an_adapter_is_exported_with_the_logits_that_everybody_can_repeat(
    rounded: HuggingFace, exact: HuggingFace, tmp_path: Path
) -> None:
    weights = random_weights(rule(exact))
    texts = []
    for backbone, name in ((rounded, "rounded"), (exact, "exact")):
        rule(backbone).export(weights, tmp_path / name)
        texts.append((tmp_path / name / "reference.json").read_text())
    assert texts[0] == texts[1]
