"""LoRA of many clients in one model: rewards and gradients are those of one client's weights alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedpref.models import HuggingFace
from fedpref.models.lora import Lora, LoraModel, lora_model
from fedpref.models.lora_cohort import LoraCohort, trained_layers
from fedpref.models.tiny import tiny_causal_lm, tiny_encoder
from fedpref.seeds import generator
from fedpref.types import Weights

TEXTS = ["the good and short", "bad", "a long one, not plain, not short", "x y z", "it is"]
ENCODER = [("query", "value"), ("query", "key", "value", "dense"), ()]
CAUSAL = [("q_proj", "v_proj"), ("o_proj", "gate_proj", "up_proj", "down_proj"), ()]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDPREF_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module", params=[("encoder", m) for m in ENCODER] + [("causal", m) for m in CAUSAL])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoraModel:
    kind, modules = request.param
    build = tiny_encoder if kind == "encoder" else tiny_causal_lm
    backbone = HuggingFace(str(build(tmp_path_factory.mktemp(kind))))
    return lora_model(backbone.checkpoint, Lora(rank=3, target_modules=modules))


def members(model: LoraModel, count: int = 3) -> list[Weights]:
    return [
        {
            key: (0.3 * generator(i, key).standard_normal(tuple(p.shape))).astype(np.float32)
            for key, p in model.trainable.items()
        }
        for i in range(count)
    ]


def cohort(model: LoraModel, own: list[Weights]) -> LoraCohort:
    assert trained_layers(model) is not None
    return LoraCohort(model, own, lr=0.01)


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_row_has_the_reward_that_its_owner_gives_it(model: LoraModel, use_cache: bool) -> None:
    own = members(model)
    rows = [(text, owner) for text in TEXTS for owner in range(3)]
    with torch.no_grad():
        found = cohort(model, own).read(rows, model.reward_of, use_cache).numpy().reshape(len(TEXTS), 3)
        for owner, weights in enumerate(own):
            model.load(weights)
            np.testing.assert_allclose(found[:, owner], model.rewards(TEXTS, use_cache).numpy(), atol=1e-5)
    assert np.abs(found[:, 0] - found[:, 1]).min() > 1e-3


def test_a_way_back_gives_each_client_its_own_gradient(model: LoraModel) -> None:
    own = members(model)
    together = cohort(model, own)
    rows = [(text, owner) for owner in (2, 0) for text in TEXTS[: 3 + owner]]  # the second has none
    factors = torch.linspace(-1, 2, len(rows))
    for parameter in model.trainable.values():
        parameter.requires_grad_(True)
    expected = []
    for owner, weights in enumerate(own):
        model.load(weights)
        model.peft.zero_grad()
        mine = [place for place, (_, whose) in enumerate(rows) if whose == owner]
        if mine:
            (model.rewards([rows[place][0] for place in mine]) * factors[mine]).sum().backward()
        parts = model.trainable.items()
        expected.append({key: torch.zeros_like(p) if p.grad is None else p.grad for key, p in parts})
        model.peft.zero_grad()
    together.step(3, (together.read(rows, model.reward_of) * factors).sum())
    for key in model.trainable:
        for owner in range(3):
            found, alone = together.gradients[key][owner].numpy(), expected[owner][key].numpy()
            np.testing.assert_allclose(found, alone, atol=1e-5 * max(1, np.abs(alone).max()), err_msg=key)


def test_a_layer_that_sees_the_tokens_of_all_texts_in_one_heap_is_found(model: LoraModel) -> None:
    layer = next(layer for key, layer in (trained_layers(model) or {}).items() if "lora_A" in key)
    trained_layers.cache_clear()
    first = layer.register_forward_pre_hook(lambda _, args: (args[0].flatten(0, 1),), prepend=True)
    last = layer.register_forward_hook(lambda _, args, found: found.unflatten(0, (2, 3)))
    try:
        assert trained_layers(model) is None
    finally:
        first.remove()
        last.remove()
        trained_layers.cache_clear()
