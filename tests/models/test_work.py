"""Counted operations against a count by hand and PyTorch's own counter, activations against autograd's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fedpref.models import HuggingFace
from fedpref.models.choice_head import choice_model
from fedpref.models.lora import TEXTS_A_PASS, Lora, LoraModel, lora_model
from fedpref.models.tiny import tiny_causal_lm, tiny_encoder
from fedpref.models.transformer import Checkpoint

TEXTS = [f"{'the good and short ' * n}end" for n in (1, 2, 2, 9, 4, 1, 3, 30, 7, 0)]
HIDDEN, WIDE, RANK = 32, 48, 8
LAYER = 4 * HIDDEN**2 + 2 * HIDDEN * WIDE
ADAPTERS = 2 * (RANK * HIDDEN + HIDDEN * RANK)  # A and B of query and value

Read = Callable[[Sequence[str], bool], torch.Tensor]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDPREF_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    built = {
        "encoder": tiny_encoder(tmp_path_factory.mktemp("encoder")),
        "causal": tiny_causal_lm(tmp_path_factory.mktemp("causal")),
    }
    return {name: HuggingFace(str(folder)).checkpoint for name, folder in built.items()}


def model_and_read(checkpoints: dict[str, Checkpoint], kind: str, last_layers: int) -> tuple[LoraModel, Read]:
    lora = Lora(rank=RANK, last_layers=last_layers)
    if kind == "choice":
        template = "{prompt}{response_a}{response_b} better:"
        chooser = choice_model(checkpoints["causal"], lora, template, ("a", "b"))
        return chooser.lora, chooser.logits
    model = lora_model(checkpoints[kind], lora)
    return model, model.rewards


def test_an_encoder_is_counted_as_by_hand(checkpoints: dict[str, Checkpoint]) -> None:
    model, _ = model_and_read(checkpoints, "encoder", last_layers=1)
    text = "the good"
    tokens = len(model.tokens([text])[text])
    pooler_and_head = HIDDEN**2 + HIDDEN
    forward = 2 * tokens * (LAYER + ADAPTERS) + 4 * tokens**2 * HIDDEN + 2 * pooler_and_head
    assert model.flops([text], use_cache=True, backward=False) == forward
    frozen = 2 * (2 * tokens * LAYER + 4 * tokens**2 * HIDDEN)
    assert model.flops([text], use_cache=False, backward=False) == forward + frozen
    # Nothing passes back through what reads the layer's input: three matrices, and A of two adapters.
    passed_back = LAYER - 3 * HIDDEN**2 + ADAPTERS / 2
    back = 2 * tokens * (passed_back + ADAPTERS) + 8 * tokens**2 * HIDDEN + 2 * (pooler_and_head + HIDDEN)
    assert model.flops([text], use_cache=True) == forward + back
    assert model.flops([text], use_cache=False) == forward + frozen + back


@pytest.mark.parametrize("kind", ["encoder", "causal", "choice"])
@pytest.mark.parametrize("last_layers", [0, 1, 2])
@pytest.mark.parametrize("use_cache", [True, False])
def test_operations_are_those_of_pytorchs_counter_padding_included(
    checkpoints: dict[str, Checkpoint], kind: str, last_layers: int, use_cache: bool
) -> None:
    model, read = model_and_read(checkpoints, kind, last_layers)
    if use_cache and last_layers:
        model.states(TEXTS)  # what is kept is not counted
    # The counter knows attention written as products; it leaves out the fused kernel of a CPU.
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            rewards = read(TEXTS, use_cache)
        with FlopCounterMode(display=False) as back:
            rewards.sum().backward()  # type: ignore[no-untyped-call]
    model.peft.zero_grad()
    counted = model.flops(TEXTS, use_cache, backward=False), model.flops(TEXTS, use_cache)
    # Keys have no LoRA, so those of the first layer that has need no gradient: one product of four less on
    # the way back. The fused kernel, for which we count, computes it all the same.
    lengths = sorted(len(ids) for ids in model.tokens(TEXTS).values())
    passes = [lengths[start : start + TEXTS_A_PASS] for start in range(0, len(lengths), TEXTS_A_PASS)]
    keys = sum(2 * HIDDEN * len(some) * max(some) ** 2 for some in passes)
    assert counted[0] == forward.get_total_flops()
    assert counted[1] == forward.get_total_flops() + back.get_total_flops() + keys


@pytest.mark.parametrize("kind", ["encoder", "causal", "choice"])
@pytest.mark.parametrize("last_layers", [0, 1, 2])
def test_activations_have_room_and_not_much_more_than_they_need(
    checkpoints: dict[str, Checkpoint], kind: str, last_layers: int
) -> None:
    model, read = model_and_read(checkpoints, kind, last_layers)
    texts = [f"{'the good and short ' * 10}{letter}" for letter in "abcdefgh"[:TEXTS_A_PASS]]
    held: list[torch.Tensor] = []

    def hold(array: torch.Tensor) -> torch.Tensor:
        held.append(array)
        return array

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda array: array):
        rewards = read(texts, True)
    rewards.sum().backward()  # type: ignore[no-untyped-call]
    model.peft.zero_grad()
    parameters = {p.untyped_storage().data_ptr() for p in model.peft.parameters()}
    storages = {array.untyped_storage().data_ptr(): array.untyped_storage() for array in held}
    kept = sum(storage.nbytes() for place, storage in storages.items() if place not in parameters)
    assert kept <= model.activation_bytes(texts, len(texts)) <= 2.5 * kept


def test_memory_holds_the_model_copies_of_its_adapters_and_what_is_kept(
    checkpoints: dict[str, Checkpoint],
) -> None:
    model, _ = model_and_read(checkpoints, "encoder", last_layers=2)
    adapters = 4 * (2 * ADAPTERS + HIDDEN)
    frozen = 4 * sum(p.numel() for p in model.peft.parameters()) - adapters
    tokens = sum(len(ids) for ids in model.tokens(TEXTS).values())
    assert model.memory_bytes(TEXTS, use_cache=False, copies=4) == frozen + 5 * adapters
    kept = model.memory_bytes(TEXTS, True, copies=4) - model.memory_bytes(TEXTS, False, copies=4)
    assert kept == sum(array.nbytes for array in model.states(TEXTS).values()) == 4 * HIDDEN * tokens
