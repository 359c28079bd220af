"""One factor shared, one at home: what leaves a client, what all changes together are, who gets what."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from cohorts import assert_cohort_equals_singles, assert_parts_equal_singles
from flwr.app import Message

from fedpref.clients.linear_lora import LinearLora
from fedpref.clients.lora_reward import LoraReward
from fedpref.clients.p_sharelora import PShareLora
from fedpref.data.synthetic import Synthetic
from fedpref.errors import ConfigurationError
from fedpref.federation.federation import Federation
from fedpref.flower.exchange import Exchange
from fedpref.models import Given, HuggingFace
from fedpref.models.tiny import tiny_encoder
from fedpref.seeds import generator
from fedpref.strategies.fedavg import FedAvg
from fedpref.types import (
    Arrival,
    ClientState,
    HasWorkload,
    Pairs,
    Personal,
    Population,
    Reply,
    Settings,
    Shard,
    Task,
    Weights,
)

DIM, RANK = 6, 2
HEAD, A, B = "score.weight", "score.lora_A.weight", "score.lora_B.weight"
TEXTS = Pairs(
    prompts=("is it good?", "why", "", "is it?"),
    chosen=("the good and short", "because of this", "fancy", "it is"),
    rejected=("bad", "not as long as the other, not plain, not short", "x y z", "no"),
    pair_ids=tuple("abcd"),
    topics=("",) * 4,
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDPREF_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> HuggingFace:
    return HuggingFace(str(tiny_encoder(tmp_path_factory.mktemp("encoder"))))


@pytest.fixture(scope="module")
def population() -> Population:
    return Synthetic(preset="tiny", form="attributes", num_attributes=DIM, test_pairs=10).population(seed=5)


def linear(**options: object) -> PShareLora:
    return PShareLora(**{"backbone": Given(DIM), "rank": RANK, **options})  # type: ignore[arg-type]


def vector_shard(num_pairs: int = 40, client_id: int = 0) -> Shard:
    """Pairs judged with noise, so that no head separates them."""
    rng = generator(client_id, "pairs")
    truth, (left, right) = rng.standard_normal(DIM), rng.standard_normal((2, num_pairs, DIM))
    likes_left = ((left - right) @ truth + rng.logistic(size=num_pairs) > 0)[:, None]
    chosen, rejected = np.where(likes_left, left, right), np.where(likes_left, right, left)
    columns = ("",) * num_pairs, chosen, rejected, tuple(map(str, range(num_pairs))), ("",) * num_pairs
    return Shard(client_id, str(client_id), Pairs(*columns))


def trained_weights(seed: int = 1) -> dict[str, np.ndarray]:
    """All three arrays, away from zero."""
    shapes = {HEAD: (1, DIM), A: (RANK, 1), B: (DIM, RANK)}
    return {
        key: generator(seed, key).standard_normal(shape).astype(np.float32) for key, shape in shapes.items()
    }


def shared_weights(seed: int = 1) -> dict[str, np.ndarray]:
    return {key: array for key, array in trained_weights(seed).items() if key != A}


def answer(
    rule: PShareLora | LinearLora | LoraReward,
    weights: Weights,
    shard: Shard,
    state: ClientState,
    number: int = 0,
) -> tuple[Reply, ClientState]:
    return rule.answer(Task(shard.client_id, weights), shard, state, generator(0, "task", number))


@pytest.mark.parametrize("own", ["a", "b"])
@pytest.mark.parametrize("kind", ["linear", "transformer"])
def test_one_client_alone_is_ordinary_lora_bit_for_bit(kind: str, own: str, encoder: HuggingFace) -> None:
    shard = vector_shard() if kind == "linear" else Shard(0, "0", TEXTS)
    backbone = Given(DIM) if kind == "linear" else encoder
    options = {"local_steps": 4, "batch_pairs": 3, "refit_steps": 0, "last_layers": 1}
    rule = PShareLora(backbone, own=own, rank=RANK, **options)  # type: ignore[arg-type]
    shared, state = rule.fresh(generator(0, "global")), ClientState()
    whole: Weights = {**shared, **rule.personalise(shared, Shard(0, "0", shard.pairs.take([])), state)}
    for number in range(3):
        ordinary, _ = answer(rule.body, whole, shard, ClientState(), number)
        reply, state = answer(rule, shared, shard, state, number)
        assert reply.metrics == ordinary.metrics
        whole, shared = ordinary.weights, reply.weights
        joined = {**shared, **state.arrays}
        assert joined.keys() == whole.keys() and not shared.keys() & state.arrays.keys()
        assert all(joined[key].tobytes() == whole[key].tobytes() for key in whole)
    served = rule.personalise(shared, shard, state)
    np.testing.assert_array_equal(rule.margins(served, shard.pairs), rule.body.margins(whole, shard.pairs))
    assert np.abs(rule.margins(served, shard.pairs)).max() > 1e-4


@dataclass(frozen=True)
class Spy(PShareLora):
    """Remembers what its clients keep, and what they send."""

    kept: dict[int, Weights] = field(default_factory=dict, compare=False)
    sent: list[np.ndarray] = field(default_factory=list, compare=False)

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        reply, new = super().answer(task, shard, state, rng)
        self.kept[shard.client_id] = new.arrays
        self.sent.extend(reply.weights.values())
        return reply, new


@pytest.mark.parametrize(("own", "travels"), [("a", {HEAD, B}), ("b", {HEAD, A})])
def test_no_byte_of_the_own_factor_is_in_any_message_to_the_server(
    own: str, travels: set[str], population: Population, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[Message] = []
    receive = Exchange._receive

    def watched(self: Exchange, reply: Message, version: int) -> list[Arrival]:
        received.append(reply)
        return receive(self, reply, version)

    monkeypatch.setattr(Exchange, "_receive", watched)
    rule = Spy(Given(DIM), own=own, rank=RANK, local_steps=5)  # type: ignore[arg-type]
    result = Federation(population, rule, FedAvg(cohort_size=6), rounds=6, seed=1).run()
    assert set(result.models["global"]) == travels
    assert len(received) == 36 and len(rule.kept) > 6
    sizes = {HEAD: DIM, A: RANK, B: RANK * DIM}
    contents = []
    for message in received:
        arrays = [array for record in message.content.array_records.values() for array in record.values()]
        assert sum(array.numpy().size for array in arrays) == sum(sizes[key] for key in travels)
        content = message.content
        told = repr([*content.config_records.values(), *content.metric_records.values()]).encode()
        contents.append(b"".join(array.numpy().tobytes() for array in arrays) + told)
    assert all(array.tobytes() in b"".join(contents) for array in rule.sent)  # so it would be found
    for kept in rule.kept.values():
        for array in kept.values():
            assert array.any() and not any(array.tobytes() in content for content in contents)
            assert not any(repr(float(number)).encode() in c for number in array.flat for c in contents)


def test_all_changes_together_have_the_rank_of_the_shared_factor(population: Population) -> None:
    rule = Spy(Given(DIM), rank=RANK, local_steps=5)
    shared = Federation(population, rule, FedAvg(), rounds=5, seed=1).run().models["global"]
    assert len(rule.kept) == 16
    heads = []
    for shard in population.shards:
        served = rule.personalise(shared, shard, ClientState(rule.kept[shard.client_id]))
        heads.append(rule.margins(served, unit_pairs()) - shared[HEAD][0])
    singular = np.linalg.svd(np.array(heads), compute_uv=False)
    assert singular[RANK - 1] > 1e-3 and singular[RANK] < 1e-6


def unit_pairs() -> Pairs:
    """Pairs whose margins are the entries of the head."""
    ids = tuple(map(str, range(DIM)))
    return Pairs(("",) * DIM, np.eye(DIM), np.zeros((DIM, DIM)), ids, ("",) * DIM)


@pytest.mark.parametrize("precision", [0.5, 4.0])
def test_with_b_frozen_a_client_solves_the_logistic_regression_of_scikit_learn(precision: float) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    rule = linear(adapt_steps=3000, batch_pairs=None, precision=precision, lr=0.2)
    shared = shared_weights() | {HEAD: np.zeros((1, DIM), np.float32)}  # scikit-learn knows no offset
    for client in range(3):
        shard = vector_shard(client_id=client)
        features = (np.asarray(shard.pairs.chosen) - np.asarray(shard.pairs.rejected)) @ shared[B]
        both, labels = np.concatenate([features, -features]), np.repeat([1, 0], len(features))
        # every pair twice, so that both classes occur: twice the loss, half the strength of the penalty
        fit = linear_model.LogisticRegression(C=1 / (2 * precision), fit_intercept=False, tol=1e-10)
        expected = fit.fit(both, labels).coef_[0]
        served = rule.personalise(shared, shard, ClientState())
        np.testing.assert_allclose(served[A][:, 0], expected, atol=1e-5)
        assert served[B] is shared[B] and served[HEAD] is shared[HEAD]


def test_with_a_ridge_the_own_factor_settles_where_loss_and_penalty_balance() -> None:
    ridge, shared, shard, state = 4.0, shared_weights(), vector_shard(), ClientState()
    rule = linear(ridge=ridge, local_steps=1, batch_pairs=None, lr=0.3)
    for number in range(300):  # always against the same B and head
        _, state = answer(rule, shared, shard, state, number)
    own = state.arrays[A].astype(np.float64)
    z = np.asarray(shard.pairs.chosen) - np.asarray(shard.pairs.rejected)
    features = z @ shared[B]
    pull = 1 / (1 + np.exp(z @ shared[HEAD][0] + features @ own[:, 0]))
    np.testing.assert_allclose(pull @ features, ridge * own[:, 0], atol=1e-3)
    plain, _ = answer(replace(rule, ridge=0.0), shared, shard, ClientState({A: state.arrays[A]}))
    again, _ = answer(rule, shared, shard, ClientState({A: state.arrays[A]}))
    assert all(plain.weights[key].tobytes() == again.weights[key].tobytes() for key in shared)


def test_one_step_of_everybody_moves_what_is_shared_down_the_gradient_of_the_mean_loss() -> None:
    rule = linear(local_steps=1, batch_pairs=None, lr=0.1)
    shards = [vector_shard(20 + 5 * client, client) for client in range(3)]
    own = [ClientState({A: trained_weights(seed)[A]}) for seed in range(3)]
    shared = shared_weights(7)

    def mean_loss(weights: Weights) -> float:
        served = [{**weights, **state.arrays} for state in own]
        losses = [
            np.logaddexp(0, -rule.margins(w, s.pairs)).mean() for w, s in zip(served, shards, strict=True)
        ]
        return float(np.mean(losses))

    replies = [answer(rule, shared, shard, state)[0] for shard, state in zip(shards, own, strict=True)]
    for key in shared:
        step = np.mean([reply.weights[key].astype(np.float64) - shared[key] for reply in replies], axis=0)
        direction = generator(3, key).standard_normal(shared[key].shape)
        ahead, behind = (
            mean_loss({**shared, key: (shared[key] + sign * 1e-2 * direction).astype(np.float32)})
            for sign in (1, -1)
        )
        slope = (ahead - behind) / 2e-2
        assert float(np.vdot(step, direction)) == pytest.approx(-0.1 * slope, rel=1e-2, abs=1e-5)


def test_own_draws_differ_by_client_or_are_the_same_and_repeat() -> None:
    shared = linear().fresh(generator(0, "global"))
    for start, is_same in (("independent", False), ("same", True)):
        rule = linear(start=start, local_steps=0)
        drawn = [
            answer(rule, shared, vector_shard(client_id=client), ClientState())[1].arrays[A]
            for client in (0, 0, 1)
        ]
        assert np.array_equal(drawn[0], drawn[1])
        assert np.array_equal(drawn[0], drawn[2]) == is_same
        assert drawn[0].any()


def test_every_clients_draw_has_the_width_of_ordinary_lora_whatever_their_number(
    encoder: HuggingFace,
) -> None:
    rule = PShareLora(encoder, local_steps=0, last_layers=1, rank=8)
    shared = rule.fresh(generator(0, "global"))
    for client in range(3):
        _, state = answer(rule, shared, Shard(client, "c", TEXTS), ClientState())
        for array in state.arrays.values():
            bound = 1 / math.sqrt(array.shape[1])
            assert 0.95 * bound < np.abs(array).max() <= bound
            assert array.std() == pytest.approx(bound / math.sqrt(3), rel=0.15)


def test_who_joins_late_starts_where_the_draws_are_centred_and_never_with_both_factors_zero() -> None:
    rule, shard = linear(local_steps=0), vector_shard()
    untrained = rule.fresh(generator(0, "global"))
    assert not untrained[B].any()
    assert answer(rule, untrained, shard, ClientState())[1].arrays[A].any()
    late = answer(rule, shared_weights(), shard, ClientState())[1].arrays[A]
    assert not late.any()
    _, state = answer(linear(local_steps=1), shared_weights(), shard, ClientState())
    assert state.arrays[A].all()


@pytest.mark.parametrize("start", ["independent", "same"])
def test_who_never_trained_is_adapted_from_the_start_and_a_newcomer_gets_the_start(start: str) -> None:
    rule, shared, shard = linear(start=start), shared_weights(), vector_shard()
    newcomer = rule.personalise(shared, None, ClientState())
    assert newcomer[A].any() == (start == "same")
    for empty in (Shard(3, "x", shard.pairs.take([])), None):
        np.testing.assert_array_equal(rule.personalise(shared, empty, ClientState())[A], newcomer[A])
    np.testing.assert_array_equal(rule.margins(shared, shard.pairs), rule.margins(newcomer, shard.pairs))
    adapted = rule.personalise(shared, shard, ClientState())
    losses = [np.logaddexp(0, -rule.margins(weights, shard.pairs)).mean() for weights in (newcomer, adapted)]
    assert losses[1] < losses[0]
    assert all(adapted[key] is shared[key] for key in shared)


def test_who_trained_is_served_what_is_kept_brought_up_to_todays_b() -> None:
    rule, shared, shard = linear(refit_steps=0), shared_weights(), vector_shard()
    state = ClientState({A: trained_weights(9)[A]})
    assert rule.personalise(shared, shard, state)[A] is state.arrays[A]
    refitted = replace(rule, refit_steps=200, precision=0.0, batch_pairs=None)
    margins = [r.margins(r.personalise(shared, shard, state), shard.pairs) for r in (rule, refitted)]
    assert np.logaddexp(0, -margins[1]).mean() < np.logaddexp(0, -margins[0]).mean()


def test_adaptation_in_a_transformer_changes_the_own_factor_alone(encoder: HuggingFace) -> None:
    rule = PShareLora(encoder, last_layers=1, lr=1e-2, head_std=0.5)
    fresh = rule.fresh(generator(0, "global"))
    shared = {key: generator(1, key).normal(0, 0.3, a.shape).astype(np.float32) for key, a in fresh.items()}
    adapted = rule.personalise(shared, Shard(0, "0", TEXTS), ClientState())
    assert {key for key in adapted if key not in shared} == {key for key in adapted if "lora_A" in key}
    assert all(adapted[key] is shared[key] for key in shared)
    before = rule.margins(rule.personalise(shared, None, ClientState()), TEXTS)
    after = rule.margins(adapted, TEXTS)
    assert np.logaddexp(0, -after).mean() < np.logaddexp(0, -before).mean()


@pytest.mark.parametrize("own", ["a", "b"])
def test_a_warm_start_is_a_trained_lora_for_everybody(own: str, tmp_path: Path) -> None:
    trained = trained_weights()
    LinearLora(Given(DIM), rank=RANK).export(trained, tmp_path)
    rule = linear(start="warm", warm_from=str(tmp_path / "head.safetensors"), own=own)
    shared, pairs = rule.fresh(generator(0, "global")), vector_shard().pairs
    whole = rule.personalise(shared, None, ClientState())
    assert whole.keys() == trained.keys() and whole.keys() - shared.keys() == {A if own == "a" else B}
    assert all(np.array_equal(whole[key], trained[key]) for key in trained)
    np.testing.assert_array_equal(rule.margins(shared, pairs), rule.body.margins(trained, pairs))


def test_a_warm_start_that_is_missing_or_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"client\.warm_from.*cannot be read"):
        linear(start="warm", warm_from=str(tmp_path / "none")).fresh(generator(0, "global"))
    LinearLora(Given(DIM), rank=RANK).export(trained_weights(), tmp_path)
    misfit = linear(start="warm", warm_from=str(tmp_path / "head.safetensors"), rank=RANK + 1)
    with pytest.raises(ConfigurationError, match="does not fit this LoRA"):
        misfit.fresh(generator(0, "global"))


def test_an_export_is_what_serves_a_newcomer(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    rule, shared = linear(start="same"), shared_weights()
    rule.export(shared, tmp_path)
    found = load_file(tmp_path / "head.safetensors")
    newcomer = rule.personalise(shared, None, ClientState())
    assert found.keys() == newcomer.keys()
    assert all(np.array_equal(found[key], newcomer[key]) for key in found)


def test_a_client_without_pairs_sends_what_it_received_and_keeps_what_it_had() -> None:
    empty = Shard(0, "0", vector_shard().pairs.take([]))
    state, shared = ClientState({A: trained_weights(4)[A]}), shared_weights()
    reply, kept = answer(linear(), shared, empty, state)
    assert reply.num_pairs == 0 and reply.weights == shared and kept is state


def test_nothing_handed_in_is_changed() -> None:
    shared, state = shared_weights(), ClientState({A: trained_weights(4)[A]})
    before = {key: array.copy() for key, array in {**shared, **state.arrays}.items()}
    answer(linear(), shared, vector_shard(), state)
    linear(refit_steps=5).personalise(shared, vector_shard(), state)
    for key, array in {**shared, **state.arrays}.items():
        np.testing.assert_array_equal(array, before[key])


def test_the_work_of_a_task_is_told_before_it_is_done() -> None:
    rule, shard = linear(batch_pairs=7), vector_shard()
    assert isinstance(rule, Personal) and isinstance(rule, HasWorkload)
    reply, _ = answer(rule, shared_weights(), shard, ClientState())
    assert rule.workload(Task(0, {}), shard).flops == reply.metrics["flops"] > 0


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"rank": 0}, "rank"),
        ({"rank": DIM + 1}, "rank"),
        ({"own": "c"}, "own"),
        ({"start": "cold"}, "start"),
        ({"start": "warm"}, "warm_from"),
        ({"warm_from": "x"}, "warm_from"),
        ({"lr": 0.0}, "lr"),
        ({"precision": 30.0}, "precision"),
        ({"ridge": -1.0}, "ridge"),
        ({"adapt_steps": -1}, "adapt_steps"),
        ({"refit_steps": -1}, "refit_steps"),
    ],
)
def test_bad_options_are_refused_with_their_key(options: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"client\.{key}"):
        linear(**options)


def test_weights_of_another_shape_and_other_kinds_of_task_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="needs weights"):
        answer(
            linear(), shared_weights() | {B: np.zeros((DIM, 3), np.float32)}, vector_shard(), ClientState()
        )
    with pytest.raises(ConfigurationError, match="'score'"):
        linear().answer(
            Task(0, shared_weights(), "score"), vector_shard(), ClientState(), generator(0, "task")
        )


@pytest.mark.parametrize("own", ["a", "b"])
@pytest.mark.parametrize("batch_pairs", [None, 4])
def test_a_cohort_of_linear_heads_gets_and_keeps_what_each_client_does_alone(
    own: Literal["a", "b"], batch_pairs: int | None
) -> None:
    rule = PShareLora(Given(DIM), own, rank=RANK, local_steps=5, batch_pairs=batch_pairs, ridge=2.0)
    settings: list[Settings] = [{"local_steps": 2}, {"proximal_mu": 0.5}, {}]
    rng, shards = np.random.default_rng(0), []
    for i, count in enumerate((30, 1, 0, 40, 2, 9)):
        names, (chosen, rejected) = [str(pair) for pair in range(count)], rng.standard_normal((2, count, DIM))
        if i == 5 and batch_pairs:  # with the whole shard in each batch, no step would be finite
            chosen[1, 0] = np.nan
        shards.append(Shard(i, str(i), Pairs(names, chosen, rejected, names, names)))
    weights = [rule.fresh(np.random.default_rng(seed)) for seed in range(2)]
    tasks = [Task(i, weights[i % 2], settings=settings[i % 3]) for i in range(6)]
    _, kept = rule.answer(tasks[0], shards[3], ClientState(), np.random.default_rng(0))
    states = [kept if i in (2, 4) else ClientState() for i in range(6)]
    with np.errstate(invalid="ignore"):
        assert_cohort_equals_singles(rule, tasks, shards, states)


@pytest.mark.parametrize("own", ["a", "b"])
@pytest.mark.parametrize("batch_pairs", [None, 4])
def test_own_factors_of_linear_heads_fitted_together_are_those_fitted_one_by_one(
    own: Literal["a", "b"], batch_pairs: int | None
) -> None:
    rule = PShareLora(Given(DIM), own, rank=RANK, local_steps=5, batch_pairs=batch_pairs, adapt_steps=7)
    rng, shards = np.random.default_rng(0), [None, vector_shard(0)]
    for i, count in enumerate((30, 1, 40, 9)):
        names, (chosen, rejected) = [str(pair) for pair in range(count)], rng.standard_normal((2, count, DIM))
        if count == 9 and batch_pairs:
            chosen[1, 0] = np.nan
        shards.append(Shard(i, str(i), Pairs(names, chosen, rejected, names, names)))
    moved = {
        key: array + rng.standard_normal(array.shape).astype(np.float32)
        for key, array in rule.fresh(np.random.default_rng(0)).items()
    }
    kept = ClientState(
        {
            A if own == "a" else B: generator(0, "kept")
            .standard_normal((RANK, 1) if own == "a" else (DIM, RANK))
            .astype(np.float32)
        }
    )
    states = [kept if i in (2, 4) else ClientState() for i in range(6)]
    with np.errstate(invalid="ignore"):
        assert_parts_equal_singles(rule, [moved] * 6, shards, states)


def test_own_factors_in_a_transformer_are_fitted_one_by_one(encoder: HuggingFace) -> None:
    rule = PShareLora(encoder, last_layers=1, lr=1e-2, head_std=0.5, adapt_steps=2)
    fresh = rule.fresh(generator(0, "global"))
    shards = [Shard(0, "0", TEXTS), None, Shard(2, "2", TEXTS.take([1, 2]))]
    assert_parts_equal_singles(rule, [fresh] * 3, shards)
