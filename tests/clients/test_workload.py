"""What a task will take, told before it is done, against what the task reports."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedpref.clients.linear_reward import LinearReward
from fedpref.clients.lora_reward import LoraReward
from fedpref.clients.selector import Selector
from fedpref.errors import ConfigurationError
from fedpref.models import Given, Hashing, HuggingFace
from fedpref.models.tiny import tiny_causal_lm, tiny_encoder
from fedpref.seeds import generator
from fedpref.types import ClientState, HasWorkload, Pairs, Settings, Shard, Task, Workload

DIM = 5
TEMPLATE = "{prompt} a: {response_a} b: {response_b} better:"
WORDS = ("good", "bad", "short", "long", "plain", "fancy")
HELD_BACK: Settings = {"grouping_share": 0.3, "grouping_seed": 5}

Rule = LinearReward | LoraReward | Selector


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDPREF_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> HuggingFace:
    return HuggingFace(str(tiny_encoder(tmp_path_factory.mktemp("encoder"))))


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> HuggingFace:
    return HuggingFace(str(tiny_causal_lm(tmp_path_factory.mktemp("causal"))))


@pytest.fixture(params=["lora_reward", "lora_reward whole", "selector", "selector whole"])
def transformer_rule(request: pytest.FixtureRequest, encoder: HuggingFace, causal: HuggingFace) -> Rule:
    """Rules inside a transformer, with kept activations and, "whole", without."""
    kind, use_cache = request.param.split()[0], "whole" not in request.param
    if kind == "lora_reward":
        return LoraReward(encoder, batch_pairs=3, last_layers=1, use_cache=use_cache)
    return Selector(causal, template=TEMPLATE, batch_pairs=3, last_layers=1, use_cache=use_cache)


def text_shard(num_pairs: int = 10, client_id: int = 0) -> Shard:
    """Texts of many lengths; some are shared by pairs, one pair has two equal texts."""
    rng = generator(client_id, "texts")
    sides = [[" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(num_pairs)] for _ in range(2)]
    sides[0][num_pairs // 2] = sides[0][0]
    sides[1][-1] = sides[0][-1]
    ids = tuple(map(str, range(num_pairs)))
    chosen, rejected = map(tuple, sides)
    return Shard(client_id, "a", Pairs(("why",) * num_pairs, chosen, rejected, ids, ("",) * num_pairs))


def vector_shard(num_pairs: int = 23) -> Shard:
    chosen, rejected = generator(0, "vectors").standard_normal((2, num_pairs, DIM)).astype(np.float32)
    ids = tuple(map(str, range(num_pairs)))
    return Shard(0, "a", Pairs(("",) * num_pairs, chosen, rejected, ids, ("",) * num_pairs))


def told(rule: Rule, shard: Shard, settings: Settings | None = None, kind: str = "train") -> Workload:
    """Asked without weights, as before anything is sent."""
    return rule.workload(Task(0, {}, kind, settings or {}), shard)


def reported(
    rule: Rule, shard: Shard, settings: Settings | None = None, kind: str = "train", seed: int = 0
) -> float:
    weights = rule.fresh(generator(1, "fresh"))
    if kind == "score":
        number = int((settings or {}).get("num_selectors", 1))
        weights = {f"{u}/{key}": array for u in range(number) for key, array in weights.items()}
    task = Task(0, weights, kind, settings or {})
    return rule.answer(task, shard, ClientState(), generator(seed, "task"))[0].metrics["flops"]


def frozen_head_rules() -> Sequence[Rule]:
    return (
        LinearReward(Given(DIM)),
        LinearReward(Given(DIM), optimizer="adamw", l2=0.1),
        Selector(Given(DIM)),
        Selector(Given(DIM), optimizer="adamw"),
    )


@pytest.mark.parametrize(
    "rule", frozen_head_rules(), ids=lambda rule: f"{type(rule).__name__} {rule.optimizer}"
)
@pytest.mark.parametrize("batch_pairs", [None, 1, 4, 16, 100])
def test_a_head_on_features_takes_exactly_what_it_told(rule: Rule, batch_pairs: int | None) -> None:
    rule, shard = replace(rule, batch_pairs=batch_pairs), vector_shard()
    for steps, mu in itertools.product((0, 1, 2, 7, 50), (0.0, 0.5)):
        settings = {"local_steps": steps, "proximal_mu": mu}
        assert told(rule, shard, settings).flops == reported(rule, shard, settings) > 0
    assert told(rule, shard).flops == reported(rule, shard)


def test_a_skipped_step_was_computed_so_it_counts() -> None:
    shard = vector_shard()
    shard.pairs.chosen[3] = np.nan  # type: ignore[index]
    for rule in (LinearReward(Given(DIM), batch_pairs=4), Selector(Given(DIM), batch_pairs=4)):
        weights = rule.fresh(generator(0, "fresh"))
        with np.errstate(invalid="ignore"):
            reply, _ = rule.answer(Task(0, weights), shard, ClientState(), generator(0, "task"))
        assert reply.metrics["skipped_steps"] > 0
        assert reply.metrics["flops"] == told(rule, shard).flops


def test_a_transformer_takes_at_least_what_it_told_and_not_much_more(transformer_rule: Rule) -> None:
    shard = text_shard()
    for steps, seed in itertools.product((0, 1, 2, 5, 9), range(4)):
        settings: Settings = {"local_steps": steps}
        bound = told(transformer_rule, shard, settings).flops
        done = reported(transformer_rule, shard, settings, seed=seed)
        assert 0.4 * done < bound <= done
        assert steps > 0 or bound == done


@pytest.mark.parametrize("batch_pairs", [None, 10, 99])
def test_a_transformer_takes_exactly_what_it_told_where_a_batch_is_the_shard(
    transformer_rule: Rule, batch_pairs: int | None
) -> None:
    rule, shard = replace(transformer_rule, batch_pairs=batch_pairs), text_shard()
    for steps in (0, 1, 3):
        settings: Settings = {"local_steps": steps}
        assert told(rule, shard, settings).flops == reported(rule, shard, settings)


def test_every_client_has_a_bound_of_its_own(transformer_rule: Rule) -> None:
    bounds = []
    for client_id in range(4):
        shard = text_shard(num_pairs=5 + client_id, client_id=client_id)
        bounds.append(told(transformer_rule, shard, {"local_steps": 3}).flops)
        assert bounds[-1] <= reported(transformer_rule, shard, {"local_steps": 3})
    assert len(set(bounds)) == 4


def test_more_steps_never_take_less(transformer_rule: Rule) -> None:
    for rule in (transformer_rule, replace(transformer_rule, batch_pairs=None), *frozen_head_rules()):
        shard = vector_shard() if isinstance(rule.backbone, Given) else text_shard()
        flops = [told(rule, shard, {"local_steps": steps}).flops for steps in range(25)]
        assert all(before < after for before, after in itertools.pairwise(flops))


@pytest.mark.parametrize("batch_pairs", [None, 3])
def test_pairs_held_back_for_grouping_are_no_work_to_train_on(
    causal: HuggingFace, batch_pairs: int | None
) -> None:
    settings = {**HELD_BACK, "local_steps": 4}
    for rule, shard in (
        (Selector(Given(DIM), batch_pairs=batch_pairs), vector_shard()),
        (Selector(causal, template=TEMPLATE, batch_pairs=batch_pairs), text_shard()),
    ):
        bound, done = told(rule, shard, settings).flops, reported(rule, shard, settings)
        assert bound <= done and (bound == done or batch_pairs is not None)
        assert bound < told(rule, shard, {"local_steps": 4}).flops or batch_pairs is not None
        other = told(rule, shard, {**settings, "grouping_share": 0.8}).flops
        assert other <= reported(rule, shard, {**settings, "grouping_share": 0.8})


@pytest.mark.parametrize("num_selectors", [1, 3])
def test_scoring_takes_exactly_what_it_told(causal: HuggingFace, num_selectors: int) -> None:
    for split in ({}, {"grouping_share": 0.0}, HELD_BACK):
        settings = {**split, "num_selectors": num_selectors}
        for rule, shard in (
            (Selector(Given(DIM)), vector_shard()),
            (Selector(causal, template=TEMPLATE), text_shard()),
        ):
            assert told(rule, shard, settings, "score").flops == reported(rule, shard, settings, "score") > 0
            one = told(rule, shard, split, "score")
            assert told(rule, shard, settings, "score").flops == num_selectors * one.flops


def test_fewer_selectors_than_were_told_are_refused() -> None:
    rule, shard = Selector(Given(DIM)), vector_shard()
    for weights in ({}, {f"0/{key}": array for key, array in rule.fresh(generator(0, "fresh")).items()}):
        task = Task(0, weights, "score", {"num_selectors": 2})
        with pytest.raises(ConfigurationError, match="not 2"):
            rule.answer(task, shard, ClientState(), generator(0, "task"))


def test_a_client_that_draws_its_losses_and_one_without_pairs_do_no_work(transformer_rule: Rule) -> None:
    single = vector_shard(num_pairs=1)
    assert told(Selector(Given(DIM)), single, HELD_BACK, "score").flops == 0
    for rule in (LinearReward(Given(DIM)), Selector(Given(DIM)), LinearReward(Hashing()), transformer_rule):
        assert told(rule, Shard(0, "a", vector_shard().pairs.take([]))) == Workload(0.0, 0.0)
        assert told(rule, text_shard(), kind="dance") == Workload(0.0, 0.0)


def test_memory_holds_features_batch_and_head_in_float64() -> None:
    shard = vector_shard(23)
    for optimizer, copies in (("sgd", 3), ("adamw", 5)):
        linear = LinearReward(Given(DIM), batch_pairs=4, optimizer=optimizer)  # type: ignore[arg-type]
        assert told(linear, shard).memory_bytes == 8 * DIM * (23 + 4 + copies)
        pair = Selector(Given(DIM), batch_pairs=4, optimizer=optimizer)  # type: ignore[arg-type]
        assert told(pair, shard).memory_bytes == 8 * (2 * DIM * (23 + 4) + (2 * DIM + 1) * copies)


def test_memory_grows_with_batch_and_selectors_and_kept_activations(
    encoder: HuggingFace, causal: HuggingFace
) -> None:
    shard = text_shard()

    def memory(rule: Rule, settings: Settings | None = None, kind: str = "train") -> float:
        return told(rule, shard, settings, kind).memory_bytes

    small = LoraReward(encoder, batch_pairs=2, last_layers=1)
    assert memory(small) < memory(replace(small, batch_pairs=4))
    assert memory(replace(small, use_cache=False)) < memory(small)
    chooser = Selector(causal, template=TEMPLATE, batch_pairs=4)
    assert memory(chooser) == memory(replace(chooser, batch_pairs=8))  # micro-batches bound it
    assert memory(replace(chooser, optimizer="sgd")) < memory(chooser)
    assert memory(chooser, {}, "score") < memory(chooser, {"num_selectors": 9}, "score")


def test_what_was_counted_for_a_shard_is_kept(
    transformer_rule: Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = text_shard()
    first = told(transformer_rule, shard)

    def refuse(*_: object) -> None:
        raise AssertionError("tokens are counted again")

    monkeypatch.setattr("fedpref.models.lora.LoraModel.tokens", refuse)
    assert told(transformer_rule, shard) == first
    assert told(transformer_rule, shard, {"local_steps": 31}).flops > first.flops


def test_every_rule_can_tell_its_work(transformer_rule: Rule) -> None:
    assert all(isinstance(rule, HasWorkload) for rule in (transformer_rule, *frozen_head_rules()))
