"""Synchronous limits through the whole engine: wire, validation, virtual time and fold, bit for bit."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from low_rank_toy import LowRank

from fedpref.clients.linear_reward import LinearReward
from fedpref.data.synthetic import Synthetic
from fedpref.federation.federation import Federation
from fedpref.maths.combine import WeightedMean
from fedpref.maths.expected_weights import ExpectedWeights
from fedpref.maths.fedau import FedAU
from fedpref.maths.lora import FreezeA, SvdMean
from fedpref.maths.staleness import Constant
from fedpref.maths.weights import digest
from fedpref.models.given import Given
from fedpref.seeds import generator
from fedpref.simulation.device_classes import DeviceClass, Mix
from fedpref.strategies.afa_cd import AfaCd
from fedpref.strategies.afa_cs import AfaCs
from fedpref.strategies.fedasmu import FedASMU
from fedpref.strategies.fedasync import FedAsync
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.fedbuff import FedBuff
from fedpref.strategies.fedcompass import FedCompass
from fedpref.strategies.fedfix import FedFix
from fedpref.types import ClientState, Population, Shard, Strategy, Task

DIM, STEPS, ROUNDS, SEED = 6, 4, 5, 3
LINEAR = LinearReward(Given(DIM), local_steps=STEPS, batch_pairs=8, init_std=0.5)
# So fast that the sizes of the shards, which differ, part nobody; and so slow that they part everybody.
EQUAL = Mix({"device": DeviceClass(flops_per_s=1e300, latency_s=0.0)})
UNEQUAL = Mix({"device": DeviceClass(flops_per_s=1e3, speed_sigma=0.7, jitter=0.3)})


@pytest.fixture(scope="module")
def population() -> Population:
    return Synthetic(preset="tiny", form="attributes", num_attributes=DIM, test_pairs=4).population(seed=5)


def federation(population: Population, strategy: Strategy[Any], **options: Any) -> Federation:
    settings: dict[str, Any] = {"rule": LINEAR, "rounds": ROUNDS, "fleet": EQUAL, **options}
    return Federation(population, strategy=strategy, seed=SEED, evaluate_every=100, **settings)


def weights_sha256(population: Population, strategy: Strategy[Any], **options: Any) -> str:
    result = federation(population, strategy, **options).run()
    assert result.summary["rounds"] == options.get("rounds", ROUNDS)
    assert result.summary["replies_failed"] == 0
    return str(result.summary["weights_sha256"])


def alone(population: Population) -> Population:
    """The first client of a population."""
    return dataclasses.replace(population, shards=population.shards[:1], held_out=population.held_out[:1])


@pytest.mark.parametrize("cohort_size", [5, None])
@pytest.mark.parametrize("share", ["clients", "pairs"])
def test_fedbuff_with_a_buffer_of_all_that_are_busy_is_fedavg(
    population: Population, share: Any, cohort_size: int | None
) -> None:
    buffered = FedBuff(cohort_size or len(population), concurrency=cohort_size, share=share)
    average = FedAvg(cohort_size, share)
    assert weights_sha256(population, buffered) == weights_sha256(population, average)


def test_a_smaller_buffer_or_unequal_speeds_are_not_fedavg(population: Population) -> None:
    average = weights_sha256(population, FedAvg(6, "clients"))
    assert weights_sha256(population, FedBuff(3, concurrency=6), rounds=2 * ROUNDS) != average
    assert weights_sha256(population, FedBuff(6, concurrency=6), fleet=UNEQUAL) != average


@pytest.mark.parametrize("cohort_size", [5, None])
@pytest.mark.parametrize("share", ["clients", "pairs"])
def test_fedfix_with_windows_longer_than_the_slowest_is_fedavg_on_any_fleet(
    population: Population, share: Any, cohort_size: int | None
) -> None:
    average = federation(population, FedAvg(cohort_size, share), fleet=UNEQUAL).run()
    assert average.summary["virtual_s"] < 1000 * ROUNDS
    fixed = FedFix(1000.0, concurrency=cohort_size, share=share)
    assert weights_sha256(population, fixed, fleet=UNEQUAL) == average.summary["weights_sha256"]


def sequential_sgd(population: Population, num_tasks: int, steps: int) -> str:
    """Digest after so many tasks one after the other, without any federation."""
    shard: Shard = population.shards[0]
    weights = LINEAR.fresh(generator(SEED, "fresh", "global"))
    for number in range(num_tasks):
        task = Task(0, weights, settings={"local_steps": steps}, number=number)
        weights = LINEAR.answer(task, shard, ClientState(), generator(SEED, "task", number))[0].weights
    return digest({"global": weights})


@pytest.mark.parametrize(
    ("strategy", "parts"),
    [
        (FedAsync(alpha=1.0), 1),
        (FedBuff(1), 1),
        (FedASMU(mu_alpha=1e20, refresh_at=None), 1),
        (FedASMU(mu_alpha=1e20, refresh_at=0.5), 2),
        (FedCompass(1, STEPS, alpha=1.0), 1),
        (FedFix(1.0), 1),
        (AfaCd(1), 1),
        (AfaCs(1), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_one_client_that_is_taken_whole_is_sequential_sgd(
    population: Population, strategy: Strategy[Any], parts: int
) -> None:
    expected = sequential_sgd(population, parts * ROUNDS, STEPS // parts)
    assert weights_sha256(alone(population), strategy) == expected


def test_fedasmu_with_held_coefficients_is_fedasync_on_any_fleet(population: Population) -> None:
    # xi = 1e-300 / … + 1 = 1, so alpha = 1/2, whatever the version and the age.
    held = FedASMU(initial_lambda=1e-300, initial_iota=1.0, meta_lr=0.0, refresh_at=None, concurrency=5)
    mixing = FedAsync(alpha=0.5, staleness=Constant(), concurrency=5)
    digests = [weights_sha256(population, strategy, rounds=20, fleet=UNEQUAL) for strategy in (held, mixing)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("cohort_size", [5, None])
def test_fedcompass_with_identical_speeds_is_fedavg(population: Population, cohort_size: int | None) -> None:
    compass = FedCompass(1, STEPS, alpha=1.0, concurrency=cohort_size)
    average = FedAvg(cohort_size, "clients")
    assert weights_sha256(population, compass) == weights_sha256(population, average)


@pytest.mark.parametrize("server_steps", [None, STEPS])
@pytest.mark.parametrize("kind", [AfaCd, AfaCs])
def test_anarchy_in_which_all_come_and_work_alike_is_fedavg(
    population: Population, kind: Any, server_steps: float | None
) -> None:
    anarchic = kind(buffer_size=len(population), server_steps=server_steps)
    average = FedAvg(share="clients")
    assert weights_sha256(population, anarchic) == weights_sha256(population, average)


@pytest.mark.parametrize("combine", [WeightedMean(), SvdMean(), FreezeA(), FedAU(), ExpectedWeights()])
def test_the_limits_hold_for_lora_factors_and_every_combine(population: Population, combine: Any) -> None:
    rule = LowRank(DIM, freeze_a=isinstance(combine, FreezeA), local_steps=STEPS)
    everybody, own = len(population), {"combine": combine, "share": "clients"}
    limits: list[Strategy[Any]] = [
        FedBuff(everybody, **own),
        FedFix(1000.0, **own),
        AfaCd(everybody, **own),
        AfaCs(everybody, **own),
        FedCompass(1, STEPS, alpha=1.0, combine=combine),
    ]
    average = weights_sha256(population, FedAvg(**own), rule=rule)
    assert [weights_sha256(population, limit, rule=rule) for limit in limits] == [average] * len(limits)


def test_one_client_that_is_taken_whole_is_sequential_sgd_with_svd_up_to_the_basis(
    population: Population,
) -> None:
    rule, only = LowRank(DIM, local_steps=STEPS), alone(population)
    products = []
    for combine in (WeightedMean(), SvdMean()):
        strategy = FedAsync(alpha=1.0, combine=combine)
        model = federation(only, strategy, rule=rule, rounds=1).run().models["global"]
        products.append(model["layer.lora_B.weight"] @ model["layer.lora_A.weight"])
    np.testing.assert_allclose(products[0], products[1], atol=1e-5)
