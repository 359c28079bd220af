"""What the rules with a shared basis have in common: its steps, their work, and what is refused."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from fedpref.clients.lore import Lore
from fedpref.clients.reward_features import RewardFeatures
from fedpref.errors import ConfigurationError, FederationError
from fedpref.models import Given
from fedpref.types import ClientState, HasWorkload, Pairs, Personal, Reply, Settings, Shard, Task, Workload

DIM, COUNT = 6, 3
Rule = RewardFeatures | Lore
RULES: dict[str, Rule] = {
    "reward_features": RewardFeatures(Given(DIM), COUNT),
    "with a learned prior": RewardFeatures(Given(DIM), COUNT, learn_prior=True),
    "lore": Lore(Given(DIM), COUNT),
}


def _shard(num_pairs: int = 23, says: float = 0.5) -> Shard:
    rng, names = np.random.default_rng(3), [str(i) for i in range(num_pairs)]
    chosen, rejected = rng.standard_normal((2, num_pairs, DIM))
    return Shard(0, "0", Pairs(names, chosen + says, chosen if says == 0 else rejected, names, names))


def _answered(rule: Rule, shard: Shard, settings: Settings | None = None, kind: str = "train") -> Reply:
    weights = rule.fresh(np.random.default_rng(0))
    task = Task(0, weights, kind, settings or {})
    return rule.answer(task, shard, ClientState(), np.random.default_rng(1))[0]


@pytest.fixture(params=RULES)
def rule(request: pytest.FixtureRequest) -> Rule:
    return RULES[request.param]


@pytest.mark.parametrize("mu", [0.0, 0.7])
def test_the_steps_are_down_the_gradient_of_the_basis_with_the_weights_fixed(rule: Rule, mu: float) -> None:
    rule, shard = replace(rule, local_steps=2, lr=0.2), _shard()
    first = rule.fresh(np.random.default_rng(0))["basis.weight"].astype(np.float64)
    reply = _answered(rule, shard, {"proximal_mu": mu})
    own = reply.weights["prior.mean"].astype(np.float64)
    z = np.asarray(shard.pairs.chosen) - np.asarray(shard.pairs.rejected)
    basis = first
    for _ in range(2):
        by_head = -(z / (1 + np.exp(z @ (own @ basis)))[:, None]).mean(axis=0)
        basis = basis - 0.2 * (np.outer(own, by_head) + mu * (basis - first))
    np.testing.assert_allclose(reply.weights["basis.weight"], basis, atol=1e-5)


@pytest.mark.parametrize("batch_pairs", [None, 1, 4, 100])
def test_a_client_does_the_work_that_was_told_and_what_its_fit_takes_more(
    rule: Rule, batch_pairs: int | None
) -> None:
    rule = replace(rule, batch_pairs=batch_pairs)
    fits = set()
    for steps, mu in itertools.product((0, 1, 7, 50), (0.0, 0.5)):
        settings: Settings = {"local_steps": steps, "proximal_mu": mu}
        told = rule.workload(Task(0, {}, "train", settings), _shard()).flops
        fits.add(_answered(rule, _shard(), settings).metrics["flops"] - told)
    assert len(fits) == 1 and fits.pop() > 0  # one fit to what was received, whatever the steps


def test_a_fit_that_has_nothing_to_learn_takes_just_what_was_told(rule: Rule) -> None:
    shard = _shard(says=0)
    assert _answered(rule, shard).metrics["flops"] == rule.workload(Task(0, {}), shard).flops > 0


def test_more_heads_and_larger_batches_take_more_memory(rule: Rule) -> None:
    def memory(rule: Rule) -> float:
        return rule.workload(Task(0, {}), _shard()).memory_bytes

    small = replace(rule, batch_pairs=2)
    assert memory(small) < memory(replace(rule, batch_pairs=4)) < memory(rule)
    assert memory(Lore(Given(DIM), 2)) < memory(Lore(Given(DIM), 4))


def test_a_client_without_pairs_returns_what_it_received_and_does_no_work(rule: Rule) -> None:
    empty = _shard(0)
    reply = _answered(rule, empty)
    assert reply.num_pairs == 0 and not reply.metrics
    for key, array in rule.fresh(np.random.default_rng(0)).items():
        np.testing.assert_array_equal(reply.weights[key], array)
    assert rule.workload(Task(0, {}), empty) == Workload(0.0, 0.0)


def test_other_tasks_and_weights_are_refused_and_no_work(rule: Rule) -> None:
    assert isinstance(rule, HasWorkload) and isinstance(rule, Personal)
    assert rule.workload(Task(0, {}, "score"), _shard()) == Workload(0.0, 0.0)
    with pytest.raises(ConfigurationError, match="'score'"):
        _answered(rule, _shard(), kind="score")
    other = Lore(Given(DIM), COUNT + 1).fresh(np.random.default_rng(0))
    with pytest.raises(ConfigurationError, match="are needed"):
        rule.answer(Task(0, other), _shard(), ClientState(), np.random.default_rng(0))


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_client_whose_every_step_is_skipped_fails(rule: Rule) -> None:
    shard = _shard()
    shard.pairs.chosen[3] = np.nan  # type: ignore[index]
    with pytest.raises(FederationError, match="finite gradient"):
        _answered(rule, shard)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"ridge": 0.0}, "ridge"),
        ({"lr": 0.0}, "lr"),
        ({"local_steps": -1}, "local_steps"),
        ({"batch_pairs": 0}, "batch_pairs"),
        ({"init_std": -1.0}, "init_std"),
    ],
)
def test_bad_options_are_refused_with_their_key(rule: Rule, options: dict[str, float], key: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"client\.{key}"):
        replace(rule, **options)  # type: ignore[arg-type]
