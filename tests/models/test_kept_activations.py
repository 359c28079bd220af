"""Hidden states kept in half the room: what that changes, and by how much."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedpref.clients.lora_reward import LoraReward
from fedpref.errors import ConfigurationError
from fedpref.models import HuggingFace
from fedpref.models.cache import Recent
from fedpref.models.lora import Lora, LoraModel, lora_model
from fedpref.models.tiny import tiny_causal_lm, tiny_encoder
from fedpref.models.transformer import Checkpoint, load_model
from fedpref.seeds import generator
from fedpref.types import ClientState, Pairs, Reply, Shard, Task, Weights

TEXTS = ["the good and short", "bad", "a long one, not plain, not short", "x y z"]
PAIRS = Pairs(("",) * 2, tuple(TEXTS[:2]), tuple(TEXTS[2:]), ("a", "b"), ("",) * 2)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder and a memory of this test's own."""
    monkeypatch.setenv("FEDPREF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("fedpref.models.cache._recent", Recent())
    return tmp_path / "cache" / "activations"


@pytest.fixture(scope="module", params=[tiny_encoder, tiny_causal_lm])
def exact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HuggingFace:
    return HuggingFace(str(request.param(tmp_path_factory.mktemp("tiny"))))


@pytest.fixture
def half(exact: HuggingFace) -> HuggingFace:
    return replace(exact, activations="float16")


def model_of(backbone: HuggingFace) -> LoraModel:
    return lora_model(backbone.checkpoint, Lora())


def rewards(model: LoraModel, weights: Weights, use_cache: bool = True) -> np.ndarray:
    model.load(weights)
    with torch.no_grad():
        return model.rewards(TEXTS, use_cache).numpy()


def some_weights(model: LoraModel) -> Weights:
    return model.fresh(generator(0, "fresh"), head_std=0.3, b_std=0.3)


def test_half_precision_takes_half_the_room(exact: HuggingFace, half: HuggingFace) -> None:
    whole, small = (model_of(backbone).states(TEXTS) for backbone in (exact, half))
    for text in TEXTS:
        assert small[text].dtype == np.float16
        assert 2 * small[text].nbytes == whole[text].nbytes
    room = [
        model.memory_bytes(TEXTS, True, copies=4) - model.memory_bytes(TEXTS, False, copies=4)
        for model in (model_of(exact), model_of(half))
    ]
    assert room[0] == 2 * room[1] == sum(array.nbytes for array in whole.values())


def test_each_number_is_rounded_by_a_2048th_at_most(exact: HuggingFace, half: HuggingFace) -> None:
    whole, small = (model_of(backbone).states(TEXTS) for backbone in (exact, half))
    for text in TEXTS:
        np.testing.assert_allclose(small[text].astype(np.float32), whole[text], rtol=2**-11, atol=2**-24)
        assert not np.array_equal(small[text].astype(np.float32), whole[text])


def test_rewards_change_by_less_than_a_hundredth_of_their_spread(
    exact: HuggingFace, half: HuggingFace
) -> None:
    whole, small = model_of(exact), model_of(half)
    weights = some_weights(whole)
    reference, found = rewards(whole, weights), rewards(small, weights)
    assert 0 < np.abs(found - reference).max() < 0.01 * reference.std()
    np.testing.assert_allclose(rewards(small, weights, use_cache=False), reference, atol=1e-5)


def test_training_ends_at_the_same_loss(exact: HuggingFace, half: HuggingFace) -> None:
    def trained(backbone: HuggingFace) -> Reply:
        learner = LoraReward(backbone, local_steps=10)
        task = Task(0, some_weights(model_of(exact)))
        return learner.answer(task, Shard(0, "a", PAIRS), ClientState(), generator(0, "task"))[0]

    whole, small = trained(exact), trained(half)
    assert whole.metrics["loss_before"] - whole.metrics["loss_after"] > 0.1
    assert abs(whole.metrics["loss_after"] - small.metrics["loss_after"]) < 1e-3
    assert all(array.dtype == np.float32 for array in small.weights.values())


def test_neither_kind_is_taken_for_the_other(exact: HuggingFace, half: HuggingFace, cache: Path) -> None:
    whole, small = model_of(exact), model_of(half)
    weights = some_weights(whole)
    before = rewards(whole, weights)
    rewards(small, weights)
    assert len(list(cache.glob("*/*.npy"))) == 2 * len(TEXTS)
    np.testing.assert_array_equal(rewards(whole, weights), before)


def test_what_a_first_run_computes_is_what_a_second_reads(half: HuggingFace) -> None:
    first = model_of(half).states(TEXTS)
    again = LoraModel(half.checkpoint, Lora(), load_model(half.checkpoint, reward=True))
    for text in TEXTS:
        stored = again._cache.read(text)
        assert stored is not None
        np.testing.assert_array_equal(stored, first[text])


def test_what_half_precision_cannot_hold_is_refused(half: HuggingFace) -> None:
    base = load_model(half.checkpoint, reward=True)
    model = LoraModel(half.checkpoint, Lora(), base)
    for name, parameter in base.named_parameters():
        if "LayerNorm" in name or "down_proj" in name:
            parameter.data.mul_(1e6)
    with pytest.raises(ConfigurationError, match=r"backbone.activations=float16: .* beyond .*65504"):
        model.states(["a text that nobody has read before"])


def test_another_kind_is_refused(exact: HuggingFace) -> None:
    with pytest.raises(ConfigurationError, match=r"backbone\.activations=int8 must be float32 or float16"):
        Checkpoint(exact.model, activations="int8")  # type: ignore[arg-type]
