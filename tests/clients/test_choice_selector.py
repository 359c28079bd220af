"""The selector inside a causal language model: choice tokens and LoRA through PEFT."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from cohorts import assert_cohort_equals_singles

from fedpref.clients.selector import Selector
from fedpref.errors import ConfigurationError, FederationError
from fedpref.models import HuggingFace
from fedpref.models.choice import fill
from fedpref.models.choice_head import ChoiceHead, choice_model
from fedpref.models.pair_head import PairHead
from fedpref.models.tiny import tiny_causal_lm, tiny_encoder
from fedpref.models.transformer import load_causal_lm, load_tokenizer
from fedpref.objectives.selector import slot_biases
from fedpref.seeds import generator
from fedpref.types import ClientState, Pairs, Reply, Settings, Shard, Task, Weights

with_plain_peft = pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing:FutureWarning"
)  # of PEFT itself

TEMPLATE = "{prompt} a: {response_a} b: {response_b} better:"
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


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> HuggingFace:
    return HuggingFace(str(tiny_causal_lm(tmp_path_factory.mktemp("causal"))))


def rule(backbone: HuggingFace, **options: object) -> Selector:
    return Selector(backbone, **{"template": TEMPLATE, **options})  # type: ignore[arg-type]


def random_weights(learner: Selector) -> Weights:
    """Weights with B away from zero, so that every part matters."""
    fresh = learner.fresh(generator(0, "fresh"))
    return {
        key: (0.3 * generator(1, key).standard_normal(array.shape)).astype(np.float32)
        for key, array in fresh.items()
    }


def train(learner: Selector, weights: Weights, settings: Settings | None = None, seed: int = 0) -> Reply:
    task = Task(client_id=0, weights=weights, settings=settings or {})
    return learner.answer(task, Shard(0, "a", PAIRS), ClientState(), generator(seed, "task"))[0]


def plain_peft(learner: Selector, backbone: HuggingFace, layers: list[int], weights: Weights) -> object:
    """The same model through PEFT alone."""
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    config = LoraConfig(
        task_type="CAUSAL_LM", r=learner.rank, lora_alpha=learner.alpha, layers_to_transform=layers
    )
    with torch.random.fork_rng():
        model = get_peft_model(load_causal_lm(backbone.checkpoint), config)
    absent = set_peft_model_state_dict(model, {key: torch.tensor(value) for key, value in weights.items()})
    assert not absent.unexpected_keys
    return model.eval()


def plain_logits(model: object, backbone: HuggingFace, pairs: Pairs) -> torch.Tensor:
    """Logits of both orders, every text alone and whole, the answers picked from all logits."""
    tokenizer = load_tokenizer(backbone.checkpoint)
    a, b = tokenizer.convert_tokens_to_ids(["a", "b"])
    rows = []
    for prompt, *sides in zip(pairs.prompts, pairs.chosen, pairs.rejected, strict=True):
        for first, second in (sides, sides[::-1]):
            batch = tokenizer(fill(TEMPLATE, prompt, first, second), return_tensors="pt")
            logits = model(**batch).logits[0, -1]  # type: ignore[operator]
            rows.append(logits[a] - logits[b])
    return torch.stack(rows).reshape(-1, 2)


def test_a_causal_language_model_gets_choice_tokens_and_an_encoder_a_pair_head(
    backbone: HuggingFace, tmp_path: Path
) -> None:
    assert isinstance(rule(backbone).head, ChoiceHead)
    encoder = HuggingFace(str(tiny_encoder(tmp_path / "encoder")))
    assert isinstance(rule(encoder).head, PairHead)


@with_plain_peft
@pytest.mark.parametrize("last_layers", [0, 1, 2, 3])
@pytest.mark.parametrize("use_cache", [True, False])
def test_logits_are_those_of_plain_peft(backbone: HuggingFace, last_layers: int, use_cache: bool) -> None:
    learner = rule(backbone, last_layers=last_layers, use_cache=use_cache)
    weights = random_weights(learner)
    model = plain_peft(learner, backbone, list(range(3))[-last_layers:], weights)
    with torch.no_grad():
        expected = plain_logits(model, backbone, PAIRS).numpy()
    ours = learner.both_orders(weights, PAIRS)
    assert ours.dtype == np.float64 and ours.shape == (6, 2)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert np.abs(ours).min() > 1e-4


@with_plain_peft
@pytest.mark.parametrize(("last_layers", "use_cache"), [(0, True), (2, True), (2, False)])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_equals_plain_peft_with_torch_alone(
    backbone: HuggingFace, last_layers: int, use_cache: bool, optimizer: str
) -> None:
    from peft import get_peft_model_state_dict

    # Adam divides by the gradient's size, so it turns rounding of the smallest gradients into whole steps.
    lr = 1e-3 if optimizer == "adamw" else 1e-2
    learner = rule(
        backbone,
        local_steps=3,
        batch_pairs=None,
        lr=lr,
        last_layers=last_layers,
        use_cache=use_cache,
        optimizer=optimizer,
        bias_penalty=0.1,
    )
    weights = random_weights(learner)
    model = plain_peft(learner, backbone, list(range(3))[-last_layers:], weights)
    trained = [p for p in model.parameters() if p.requires_grad]  # type: ignore[attr-defined]
    steps: torch.optim.Optimizer = torch.optim.SGD(trained, lr=lr)
    if optimizer == "adamw":
        steps = torch.optim.AdamW(trained, lr=lr, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(3):
        both = plain_logits(model, backbone, PAIRS)
        # Cross entropy over the two choices: A is right in the first order, B in the second.
        loss = torch.nn.functional.softplus(torch.stack([-both[:, 0], both[:, 1]])).mean()
        loss = loss + 0.1 * (both.mean(dim=1) ** 2).mean()
        steps.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        steps.step()
    expected = get_peft_model_state_dict(model)
    ours = train(learner, weights).weights
    assert ours.keys() == expected.keys()
    for key, array in ours.items():
        np.testing.assert_allclose(array, expected[key].detach().numpy(), atol=2e-5)
        assert not np.array_equal(array, weights[key])


def test_only_lora_travels_and_fresh_selectors_agree_with_the_frozen_model(backbone: HuggingFace) -> None:
    learner = rule(backbone, last_layers=2)
    one, other = (learner.fresh(generator(0, "fresh", n)) for n in (0, 1))
    assert all("lora_" in key and array.dtype == np.float32 for key, array in one.items())
    assert {part for key in one for part in key.split(".") if part.isdigit()} == {"1", "2"}
    assert any(not np.array_equal(one[key], other[key]) for key in one)
    with torch.no_grad():
        frozen = plain_logits(load_causal_lm(backbone.checkpoint), backbone, PAIRS).numpy()
    for weights in (one, other):
        np.testing.assert_allclose(learner.both_orders(weights, PAIRS), frozen, atol=1e-5)
    drawn = rule(backbone, init_std=0.1).fresh(generator(0, "fresh"))
    assert all(array.any() for array in drawn.values())


def test_swapping_negates_the_score_to_the_bit_and_identical_responses_score_zero(
    backbone: HuggingFace,
) -> None:
    learner = rule(backbone)
    weights = random_weights(learner)
    twins = Pairs(PAIRS.prompts, PAIRS.rejected, PAIRS.chosen, PAIRS.pair_ids, PAIRS.topics)
    margins = learner.margins(weights, PAIRS)
    np.testing.assert_array_equal(learner.margins(weights, twins), -margins)
    assert np.abs(margins).min() > 0
    same = Pairs(PAIRS.prompts, PAIRS.chosen, PAIRS.chosen, PAIRS.pair_ids, PAIRS.topics)
    assert not learner.margins(weights, same).any()
    assert np.abs(slot_biases(learner.both_orders(weights, same))).min() > 0


def test_both_orders_of_a_pair_run_in_one_micro_batch(backbone: HuggingFace) -> None:
    learner = rule(backbone, batch_pairs=None, local_steps=1, use_cache=False, last_layers=0)
    head, weights = learner.head, random_weights(learner)
    assert isinstance(head, ChoiceHead)
    model = choice_model(head.checkpoint, head.lora, head.template, head.choices)
    seen: list[set[tuple[int, ...]]] = []

    def note(_: object, args: object, inputs: dict[str, torch.Tensor]) -> None:
        if torch.is_grad_enabled():
            rows = zip(inputs["input_ids"], inputs["attention_mask"].sum(dim=1), strict=True)
            seen.append({tuple(ids[:length].tolist()) for ids, length in rows})

    hook = model.lora.peft.register_forward_pre_hook(note, with_kwargs=True)
    try:
        train(learner, weights)
    finally:
        hook.remove()
    tokenizer = load_tokenizer(head.checkpoint)
    assert len(seen) == 2  # six pairs, four at a time
    for both in head.texts(PAIRS):
        first, second = (tuple(tokenizer(text)["input_ids"]) for text in both)
        assert first != second
        assert sum({first, second} <= passed for passed in seen) == 1


def test_training_lowers_the_loss_and_removes_a_bias(backbone: HuggingFace) -> None:
    learner = rule(backbone, local_steps=40, lr=1e-2, batch_pairs=None)
    weights = random_weights(learner)
    before = slot_biases(learner.both_orders(weights, PAIRS))
    reply = train(learner, weights)
    assert reply.metrics["loss_after"] < 0.1 < reply.metrics["loss_before"]
    assert (learner.margins(reply.weights, PAIRS) > 0).all()
    after = slot_biases(learner.both_orders(reply.weights, PAIRS))
    assert reply.metrics["position_bias"] == pytest.approx(after.mean())
    assert (after**2).mean() < (before**2).mean()
    assert reply.metrics["steps_done"] == 40 and reply.metrics["flops"] > 0


def test_scoring_reports_the_loss_of_each_selector(backbone: HuggingFace) -> None:
    learner = rule(backbone)
    models = [random_weights(learner), learner.fresh(generator(0, "fresh"))]
    sent = {f"{u}/{key}": array for u, model in enumerate(models) for key, array in model.items()}
    task = Task(0, sent, "score", reply={})
    reply, _ = learner.answer(task, Shard(0, "a", PAIRS), ClientState(), generator(0, "task"))
    assert reply.weights == {} and reply.metrics["flops"] > 0
    for u, model in enumerate(models):
        expected = train(learner, model, {"local_steps": 0}).metrics["loss_before"]
        assert reply.metrics[f"loss_{u}"] == pytest.approx(expected, abs=1e-6)


def test_a_frozen_a_comes_back_as_it_was_sent(backbone: HuggingFace) -> None:
    learner = rule(backbone, local_steps=2, freeze_a=True)
    weights = random_weights(learner)
    for key, array in train(learner, weights).weights.items():
        assert np.array_equal(array, weights[key]) == ("lora_A" in key)


def test_a_proximal_weight_of_zero_is_none_and_a_positive_one_holds_back(backbone: HuggingFace) -> None:
    learner = rule(backbone, local_steps=3)
    weights = random_weights(learner)
    plain, zero, held = (
        train(learner, weights, s).weights for s in ({}, {"proximal_mu": 0.0}, {"proximal_mu": 100.0})
    )

    def distance(found: Weights) -> float:
        return math.sqrt(sum(float(((found[key] - weights[key]) ** 2).sum()) for key in weights))

    assert all(np.array_equal(plain[key], zero[key]) for key in weights)
    assert distance(held) < distance(plain)


def test_dropout_follows_the_address_and_leaves_the_global_generator_alone(backbone: HuggingFace) -> None:
    learner = rule(backbone, local_steps=2, dropout=0.5, batch_pairs=None)
    weights, before = random_weights(learner), torch.random.get_rng_state()
    first, again, other = (train(learner, weights, seed=seed).weights for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert any(not np.array_equal(first[key], other[key]) for key in first)


def test_steps_without_finite_gradients_fail(backbone: HuggingFace) -> None:
    learner = rule(backbone, local_steps=3)
    weights = {key: np.full_like(array, np.inf) for key, array in random_weights(learner).items()}
    with pytest.raises(FederationError, match="none of 3 steps"):
        train(learner, weights)


def test_warming_leaves_nothing_to_run_below_the_first_trainable_layer(
    backbone: HuggingFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = rule(backbone, last_layers=1)
    weights = random_weights(learner)
    learner.warm([PAIRS])

    def refuse(*_: object) -> np.ndarray:
        raise AssertionError("a frozen layer ran again")

    monkeypatch.setattr("fedpref.models.lora.capture", refuse)
    assert learner.margins(weights, PAIRS).shape == (6,)


def test_vectors_are_refused(backbone: HuggingFace) -> None:
    vectors = np.zeros((1, 3), np.float32)
    learner = rule(backbone)
    with pytest.raises(ConfigurationError, match="reads text"):
        learner.margins(random_weights(learner), Pairs(("",), vectors, vectors, ("a",), ("",)))


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"last_layers": 9}, "last_layers"),
        ({"target_modules": ("nope",)}, "target_modules"),
        ({"choices": (" A", " a")}, "choices"),
        ({"choices": (" A", " ☃")}, "choices"),
        ({"choices": (" A", " not good")}, "choices"),
    ],
)
def test_options_that_do_not_fit_the_model_are_refused(
    backbone: HuggingFace, options: dict[str, object], key: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"client\.{key}"):
        rule(backbone, **options).fresh(generator(0, "fresh"))


def test_a_federation_of_language_models_serves_opposite_tastes_by_grouping_them(
    backbone: HuggingFace,
) -> None:
    from fedpref.federation.federation import Federation
    from fedpref.strategies.fedbiscuit import FedBiscuit
    from fedpref.types import HeldOut, Population

    against = Pairs(PAIRS.prompts, PAIRS.rejected, PAIRS.chosen, PAIRS.pair_ids, PAIRS.topics)
    tastes = (PAIRS, against, PAIRS, against)
    people = Population(
        [Shard(i, str(i), pairs) for i, pairs in enumerate(tastes)],
        [HeldOut(str(i), i, pairs) for i, pairs in enumerate(tastes)],
    )
    learner = rule(backbone, local_steps=8, batch_pairs=None, lr=1e-2, init_std=0.1)
    strategy = FedBiscuit(
        num_selectors=2, warmup_rounds=0, regroup_every=2, agg_norm="repliers", grouping_pairs="all"
    )
    result = Federation(people, learner, strategy, rounds=4, seed=0).run()
    # One model for both tastes, or clients in the wrong group, would be right half the time.
    assert result.summary["pair_accuracy"] == 1
    assert result.models.keys() == {"selector/0", "selector/1"}


@pytest.mark.parametrize(
    "options",
    [{}, {"use_cache": False, "bias_penalty": 0.3}, {"optimizer": "sgd", "lr": 0.05}, {"dropout": 0.2}],
)
def test_a_cohort_equals_clients_one_by_one(backbone: HuggingFace, options: dict[str, object]) -> None:
    learner = rule(backbone, local_steps=3, batch_pairs=2, **options)
    weights = random_weights(learner)
    settings: list[Settings] = [{}, {"grouping_share": 0.4}, {"local_steps": 1}, {"proximal_mu": 0.5}, {}]
    tasks = [Task(i, weights, settings=each) for i, each in enumerate(settings)]
    tasks.append(Task(5, {f"0/{key}": array for key, array in weights.items()}, "score", reply={}))
    shards = [Shard(i, f"{i}", PAIRS.take(range(6 - n, 6))) for i, n in enumerate([6, 5, 3, 4, 0, 2])]
    assert_cohort_equals_singles(learner, tasks, shards)
